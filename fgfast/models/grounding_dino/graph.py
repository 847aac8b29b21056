"""`grounding_dino` as transformers computes it: for images that fill their canvas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.backends.session import Session
from fgfast.methods import Precision
from fgfast.models.grounding_dino.checkpoint import MEAN, STD
from fgfast.models.grounding_dino.precision import DTYPES
from fgfast.models.grounding_dino.prompt import PAD
from fgfast.models.serving.canvases import AnyCanvas
from fgfast.records import Size

# px; thinner images get a margin, else they may have fewer cells than the network has queries (900).
SMALLEST_SIDE = 128


class Normalise(nn.Module):
    """Resized images as the network takes them."""

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

    An image smaller than its canvas is padded as transformers does it, which changes its results: see `canvas`.

    Args:
        model: transformers' GroundingDinoForObjectDetection, prepared by `with_precision`.
        precision: that it was prepared for.
    """

    def __init__(self, model: Any, precision: Precision = "fp32") -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.normalise = Normalise().to(model.device)

    def forward(self, pixels: Tensor, sizes: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Takes and returns what `graphs.grounding_dino` says."""
        _, height, width, _ = pixels.shape
        inside = _inside(sizes, height, width)
        margin = (0, max(0, SMALLEST_SIDE - width), 0, max(0, SMALLEST_SIDE - height))
        values = functional.pad(self.normalise(pixels) * inside[:, None], margin)
        mask = functional.pad(inside.long(), margin)
        device = self.model.device.type
        with torch.autocast(device, DTYPES[self.precision], enabled=self.precision != "fp32"):
            out = self.model(
                pixel_values=values, pixel_mask=mask, input_ids=input_ids, attention_mask=(input_ids != PAD).long()
            )
        seen = out.enc_outputs_class.float().amax(-1)
        cells = seen.topk(self.model.config.num_queries, dim=1).indices
        return out.logits[..., : input_ids.shape[1]].float(), out.pred_boxes.float(), cells


class OwnCanvases(AnyCanvas):
    """A session for every size of image, so that no image is padded.

    Args:
        make, batch, device: as for AnyCanvas.
    """

    def __init__(self, make: Callable[[Size, int], Session], batch: int = 1, device: str = "cpu") -> None:
        super().__init__(make, batch=batch, device=device)

    def bucket(self, size: Size) -> Size:
        """As Canvases.bucket: the image's own size."""
        return size

    def spread(self, sizes: Sequence[Size]) -> list[tuple[Size, list[int]]]:
        """Images of one size together."""
        alike: dict[Size, list[int]] = {}
        for place, size in enumerate(sizes):
            alike.setdefault(size, []).append(place)
        return list(alike.items())


def _inside(sizes: Tensor, height: int, width: int) -> Tensor:
    """(B, height, width) bool: the pixels of images of these sizes (B, 2)."""
    rows = torch.arange(height, device=sizes.device) < sizes[:, :1]
    columns = torch.arange(width, device=sizes.device) < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
