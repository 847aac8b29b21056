"""The canvas: which cells of a map belong to an image, when the canvas is larger than the reference's own.

The reference pads an image (h, w) to multiples of 32 and masks nothing after that, so its results depend on
that canvas. A batch, or an engine of fixed shape, needs a larger one. Results stay those of the image
alone if every layer that mixes cells is told the "valid" size: the size that the reference's own canvas
would have on the map in question. Throughout fgfast.models.detic, `valid` is None (the canvas is the valid
size, or masking is not wanted) or a tensor (B, 2) int64, (height, width) in cells of the map in question.
Whole numbers in float32 are as good: graphs use them, because engines compute little with int64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgfast.models.serving.canvases import CANVAS_MULTIPLE, canvas_of
from fgfast.records import Size

PYRAMID_STRIDES = (8, 16, 32, 64, 128)


def own_canvas(sizes: Tensor) -> Tensor:
    """(B, 2) int64 sizes of resized images, pixels -> (B, 2) int64, the canvas the reference gives each
    alone.
    """
    return (sizes + (CANVAS_MULTIPLE - 1)) // CANVAS_MULTIPLE * CANVAS_MULTIPLE


def needs_masking(sizes: list[Size], canvas: Size) -> bool:
    """Whether any image's own canvas differs from the one it lies on."""
    return any(canvas_of([size]) != canvas for size in sizes)


def halved(valid: Tensor | None) -> Tensor | None:
    """The valid size on the next coarser map: (B, 2) int64, rounded up."""
    return None if valid is None else (valid + 1) // 2


def inside(valid: Tensor, height: int, width: int) -> Tensor:
    """(B, height, width) bool: the cells within each image's valid size (B, 2)."""
    rows = torch.arange(height, device=valid.device, dtype=valid.dtype)
    columns = torch.arange(width, device=valid.device, dtype=valid.dtype)
    return (rows < valid[:, :1])[:, :, None] & (columns < valid[:, 1:])[:, None, :]


def clear_outside(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero the cells of maps (B, C, H, W) outside the valid size; x itself where `valid` is None."""
    if valid is None:
        return x
    return x * inside(valid, x.shape[2], x.shape[3])[:, None].to(x.dtype)
