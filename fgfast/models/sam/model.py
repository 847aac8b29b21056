"""SAM put together: images and boxes in, masks out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fgfast.errors import UnknownNameError
from fgfast.methods import Precision
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.image_encoder import ImageEncoder
from fgfast.models.sam.mask_decoder import MaskDecoder
from fgfast.models.sam.prompt_encoder import PromptEncoder

DTYPES = MappingProxyType({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16})


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
