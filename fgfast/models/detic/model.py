"""Detic: from pictures and a vocabulary to detections.

transform -> backbone (swin, pyramid) -> proposal_generator -> roi_heads (cascade) -> selection
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fgfast.models.detic.canvas import CANVAS_MULTIPLE, needs_masking, own_canvas
from fgfast.models.detic.cascade import Cascade, Refined, combine
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.proposals import ProposalGenerator
from fgfast.models.detic.pyramid import Pyramid
from fgfast.models.detic.selection import Selection, select, to_stored
from fgfast.models.detic.transform import resize, resized_size, stack
from fgfast.models.detic.vocabulary import classifier
from fgfast.records import Detections, Image

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Detic(nn.Module):
    """The network, with the official checkpoint's keys. Inference only."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Pyramid(config)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = Cascade(config)
        self.requires_grad_(False)
        self.eval()

    def set_precision(self, precision: Precision) -> Detic:
        """Choose the precision of matrix products and convolutions; returns self.

        Norms, softmax, sigmoid, the residual stream, box arithmetic and the last layer of each prediction
        (heat, distances, class embeddings, deltas) stay in float32: they cost little and feed coordinates of
        up to 2400 px.
        """
        for module in (self.backbone, self.proposal_generator.centernet_head.bbox_tower, self.roi_heads):
            for layer in module.modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    layer.to(DTYPES[precision])
                    if isinstance(layer, nn.Conv2d):
                        layer.to(memory_format=torch.channels_last)
        for module in self.roi_heads.box_predictor:
            for layer in (module.cls_score, module.bbox_pred[2]):
                layer.to(torch.float32)
        return self

    def forward(self, pictures: Tensor, sizes: Tensor, vocabulary: Tensor, masked: bool = True) -> Refined:
        """Boxes and scores of a fixed number of proposals.

        Args:
            pictures: (B, 3, H, W) float32, normalised, zero-padded; H and W multiples of 32.
            sizes: (B, 2) int64, (h, w) of each picture without padding, pixels.
            vocabulary: (512, C + 1) float32, from vocabulary.classifier.
            masked: make results independent of the canvas. With every picture on its own canvas (its size
                rounded up to 32) False gives the same numbers, faster; elsewhere False gives the
                reference's, which depend on the canvas.

        Returns:
            boxes (B, 256, 4) in pixels of the resized picture, unclipped, and scores (B, 256, C + 1); 0 for
            void proposals.
        """
        if any(n % CANVAS_MULTIPLE for n in pictures.shape[2:]):
            raise ValueError(f"canvas {tuple(pictures.shape[2:])} is not a multiple of {CANVAS_MULTIPLE}; use stack()")
        valid = own_canvas(sizes) if masked else None
        pyramid = self.backbone(pictures, valid)
        proposals = self.proposal_generator(pyramid, valid)
        stages = self.roi_heads(pyramid[:3], proposals.boxes, sizes, valid)
        return combine(stages, proposals.scores, vocabulary)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of one picture and where they come from.

    Attributes:
        detections: in pixels of the stored picture, descending.
        classes: (N,) int64, rows of the vocabulary.
        proposal_index: (N,) int64, the proposal of each.
    """

    detections: Detections
    classes: NDArray[np.int64]
    proposal_index: NDArray[np.int64]


class DeticDetector:
    """A Detic with a vocabulary: pictures in, detections in pixels of the stored pictures out.

    Args:
        model: with weights.
        names: C class names.
        embeddings: (C, 512) text embeddings, CLIP ViT-B/32 of "a " + name.
        selection: what counts as a detection.
        canvas_multiple: the canvas of a batch grows in these steps, pixels; results do not depend on it.
    """

    def __init__(
        self,
        model: Detic,
        names: Sequence[str],
        embeddings: Tensor | NDArray[np.float32],
        selection: Selection | None = None,
        canvas_multiple: int = CANVAS_MULTIPLE,
    ) -> None:
        if len(names) != len(embeddings):
            raise ValueError(f"{len(names)} names for {len(embeddings)} text embeddings; there must be one each")
        self.model = model
        self.names = tuple(names)
        self.selection = selection or Selection()
        self.canvas_multiple = canvas_multiple
        self._vocabulary = classifier(torch.as_tensor(embeddings)).to(next(model.parameters()).device)

    def __call__(self, images: Sequence[Image]) -> list[Found]:
        """The detections of each picture, as if it were alone."""
        config = self.model.config
        stored = [(image.pixels.shape[0], image.pixels.shape[1]) for image in images]
        sizes = [resized_size(h, w, config.shorter_edge, config.longest_edge) for h, w in stored]
        resized = [resize(image.pixels, size) for image, size in zip(images, sizes, strict=True)]
        batch, size_rows = stack(resized, self.canvas_multiple)
        masked = needs_masking(sizes, (batch.shape[2], batch.shape[3]))
        device = self._vocabulary.device
        with torch.inference_mode():
            refined = self.model(batch.to(device), size_rows.to(device), self._vocabulary, masked)
        return [
            self._found(boxes, scores, size, original)
            for boxes, scores, size, original in zip(*refined, sizes, stored, strict=True)
        ]

    def _found(self, boxes: Tensor, scores: Tensor, size: tuple[int, int], stored: tuple[int, int]) -> Found:
        found = to_stored(select(boxes, scores, size, self.selection), size, stored)
        classes = found.classes.cpu().numpy()
        detections = Detections(
            found.boxes.cpu().numpy(), found.scores.cpu().numpy(), tuple(self.names[c] for c in classes)
        )
        return Found(detections, classes, found.proposal_index.cpu().numpy())
