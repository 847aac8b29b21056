"""SAM put together: pictures and boxes in, masks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fgfast.errors import UnknownNameError
from fgfast.models.sam import transform
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.image_encoder import ImageEncoder
from fgfast.models.sam.mask_decoder import MaskDecoder
from fgfast.models.sam.prompt_encoder import PromptEncoder
from fgfast.records import Bool, Float32, UInt8

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = MappingProxyType({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16})


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The masks of one picture, one row for each of its N boxes; M is 3 with multimask, else 1.

    Attributes:
        bits: (N, M, H, W) bool at the size of the stored picture; True is subject.
        quality: (N, M) float32, SAM's estimate of each mask's IoU; not confined to 0..1.
        stability: (N, M) float32 in 0..1, how little the mask depends on the threshold; NaN for no mask at all.
    """

    bits: Bool
    quality: Float32
    stability: Float32


class Sam(nn.Module):
    """Segment Anything from boxes. Make one with `Sam.build`.

    Args:
        name: "vit_b", "vit_l", "vit_h", or one of the tests' "tiny256" and "tiny1024".
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.architecture = architecture(name)
        self.image_encoder = ImageEncoder(self.architecture)
        self.prompt_encoder = PromptEncoder(self.architecture)
        self.mask_decoder = MaskDecoder()

    @classmethod
    def build(cls, name: str, weights: Mapping[str, Tensor] | None = None, precision: Precision = "fp32") -> Sam:
        """A SAM for inference.

        Args:
            name: which one.
            weights: an official checkpoint's state dict, whose tensors are taken over, not copied; None leaves the
                weights random, for trying out.
            precision: of the encoder's matrix products.

        Raises:
            UnknownNameError: for an unknown name or precision.
            RuntimeError: torch's, where keys or shapes of the weights differ from the architecture's.
        """
        if precision not in DTYPES:
            raise UnknownNameError("precision", precision, DTYPES)
        if weights is None:
            model = cls(name)
        else:
            with torch.device("meta"):
                model = cls(name)
            model.load_state_dict(weights, strict=True, assign=True)
        return model.set_precision(precision).eval().requires_grad_(False)

    def set_precision(self, precision: Precision) -> Sam:
        """Turn the encoder's linear layers and convolutions to `precision`; everything else is float32 always."""
        for module in self.image_encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(DTYPES[precision])
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image_encoder.pos_embed.device

    def decode(
        self, embeddings: Tensor, image_index: Tensor, boxes: Tensor, multimask: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Decode N (image, box) pairs.

        Args:
            embeddings: (E, 256, g, g) float32 from the image encoder.
            image_index: (N,) int64, the embedding each box belongs to.
            boxes: (N, 4) float32 in pixels of the square.
            multimask: three masks a box instead of one.

        Returns:
            Low-resolution logits (N, M, 4g, 4g) and estimated IoU (N, M), float32.
        """
        prompts = self.prompt_encoder
        logits, iou = self.mask_decoder(
            embeddings, image_index, prompts(boxes), prompts.dense_pe, prompts.no_mask, multimask
        )
        return logits, iou

    @torch.inference_mode()
    def segment(self, images: Sequence[UInt8], boxes: Sequence[Float32], multimask: bool = False) -> list[Segments]:
        """Masks for boxes, at full size. All pictures go through the encoder as one batch.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: (N, 4) float32 for each picture, in its stored pixels; N may be 0.
            multimask: three masks a box instead of one.
        """
        side = self.architecture.side
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        pixels = transform.to_square([transform.resize(image, side) for image in images], side, self.device)
        scaled = [transform.scale_boxes(b, h, w, side) for b, (h, w) in zip(boxes, sizes, strict=True)]
        counts = [len(b) for b in scaled]
        index = torch.arange(len(images)).repeat_interleave(torch.tensor(counts)).to(self.device)
        corners = torch.from_numpy(np.concatenate(scaled)).to(self.device)
        logits, iou = self.decode(self.image_encoder(pixels), index, corners, multimask)
        pictures = zip(logits.split(counts), iou.split(counts), sizes, strict=True)
        return [self._segments(own_logits, own_iou, *size) for own_logits, own_iou, size in pictures]

    def _segments(self, low_res: Tensor, iou: Tensor, height: int, width: int) -> Segments:
        logits = transform.to_stored_size(low_res, height, width, self.architecture.side)
        bits = logits > transform.THRESHOLD
        return Segments(bits.cpu().numpy(), iou.cpu().numpy(), transform.stability(logits).cpu().numpy())
