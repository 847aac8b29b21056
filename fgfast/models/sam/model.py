"""The complete SAM: image encoder, prompt encoder and mask decoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fgfast.backends.session import DTYPES
from fgfast.methods import Precision
from fgfast.models.sam.architecture import architecture
from fgfast.models.sam.image_encoder import ImageEncoder
from fgfast.models.sam.mask_decoder import MaskDecoder
from fgfast.models.sam.prompt_encoder import PromptEncoder


class Sam(nn.Module):
    """Segment Anything for boxes, made with `Sam.build`.

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
    def build(cls, name: str, weights: Mapping[str, Tensor], precision: Precision = "fp32") -> Sam:
        """Return a SAM for inference.

        Args:
            name: of the architecture.
            weights: an official checkpoint's state dict, whose tensors are used without a copy.
            precision: of the encoder's linear layers and convolutions; everything else is always float32.

        Raises:
            UnknownNameError: for an unknown name.
            RuntimeError: torch's, where keys or shapes of the weights differ from the architecture's.
        """
        with torch.device("meta"):
            model = cls(name)
        model.load_state_dict(weights, strict=True, assign=True)
        for module in model.image_encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(DTYPES[precision])
        return model.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.image_encoder.pos_embed.device
