"""`grounding_dino` as transformers computes it, for images that fill their canvas."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.backends.session import DTYPES
from fgfast.methods import Precision
from fgfast.models.grounding_dino.checkpoint import MEAN, STD
from fgfast.models.grounding_dino.prompt import PAD
from fgfast.models.serving.canvases import AnyCanvas
from fgfast.models.serving.pixels import inside
from fgfast.records import Size

# Pixels; smaller images are padded, because they could have fewer cells than the network has queries (900).
SMALLEST_SIDE = 128


class Normalise(nn.Module):
    """Pixels to the input of the network."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32."""
        return (pixels.float().permute(0, 3, 1, 2) * (1 / 255) - self.mean) / self.std


class ImageGraph(nn.Module):
    """transformers' network from resized images to boxes.

    An image smaller than its canvas is padded as in transformers, which changes its results: see `canvas`.

    Args:
        model: transformers' GroundingDinoForObjectDetection, prepared by `with_precision`.
        precision: of the model.
    """

    def __init__(self, model: Any, precision: Precision = "fp32") -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.normalise = Normalise().to(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the graph of the contract graphs.grounding_dino."""
        _, height, width, _ = pixels.shape
        here = inside(sizes, height, width)
        margin = (0, max(0, SMALLEST_SIDE - width), 0, max(0, SMALLEST_SIDE - height))
        values = functional.pad(self.normalise(pixels) * here[:, None], margin)
        mask = functional.pad(here.long(), margin)
        device = self.model.device.type
        with torch.autocast(device, DTYPES[self.precision], enabled=self.precision != "fp32"):
            out = self.model(
                pixel_values=values, pixel_mask=mask, input_ids=input_ids, attention_mask=(input_ids != PAD).long()
            )
        seen = out.enc_outputs_class.float().amax(-1)
        cells = seen.topk(self.model.config.num_queries, dim=1).indices
        return out.logits[..., : input_ids.shape[1]].float(), out.pred_boxes.float(), cells


class OwnCanvases(AnyCanvas):
    """A session per image size, so that no image is padded."""

    def bucket(self, size: Size) -> Size:
        return size
