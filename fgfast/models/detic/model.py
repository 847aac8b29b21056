"""Detic: from images and a vocabulary to detections.

transform -> backbone (swin, pyramid) -> proposal_generator -> roi_heads (cascade) -> selection
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgfast.backends.session import DTYPES
from fgfast.methods import Precision
from fgfast.models.detic.canvas import own_canvas
from fgfast.models.detic.cascade import Cascade, Refined, combine
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.proposals import ProposalGenerator
from fgfast.models.detic.pyramid import Pyramid
from fgfast.models.serving.canvases import CANVAS_MULTIPLE


class Detic(nn.Module):
    """The network, with the official checkpoint's keys. Inference only."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = "fp32"
        self.backbone = Pyramid(config)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = Cascade(config)
        self.requires_grad_(False)
        self.eval()

    def set_precision(self, precision: Precision) -> Detic:
        """Set the precision of matrix products and convolutions; return self.

        Norms, softmax, sigmoid, the residual stream, box arithmetic and the last layer of each prediction (heat,
        distances, class embeddings, deltas) stay in float32: they cost little and affect coordinates of up to 2400 px.
        """
        self.precision = precision
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

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(self, images: Tensor, sizes: Tensor, vocabulary: Tensor, masked: bool = True) -> Refined:
        """Return boxes and scores of a fixed number of proposals.

        Args:
            images: (B, 3, H, W) float32, normalised, zero-padded; H and W multiples of 32.
            sizes: (B, 2) int64, (h, w) of each image without padding, pixels.
            vocabulary: (512, C + 1) float32, from vocabulary.classifier.
            masked: make results independent of the canvas. With every image on its own canvas (its size rounded up to
                32) False gives the same numbers, faster; on other canvases False gives the reference's numbers, which
                depend on the canvas.

        Returns:
            boxes (B, 256, 4) in pixels of the resized image, unclipped, and scores (B, 256, C + 1); 0 for void
            proposals.
        """
        if any(n % CANVAS_MULTIPLE for n in images.shape[2:]):
            raise ValueError(f"canvas {tuple(images.shape[2:])} must be padded to multiples of {CANVAS_MULTIPLE}")
        valid = own_canvas(sizes) if masked else None
        pyramid = self.backbone(images, valid)
        proposals = self.proposal_generator(pyramid, valid)
        stages = self.roi_heads(pyramid[:3], proposals.boxes, sizes, valid)
        return combine(stages, proposals.scores, vocabulary)
