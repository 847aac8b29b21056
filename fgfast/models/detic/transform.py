"""From a decoded image to what the model takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fgfast.models.serving.canvases import CANVAS_MULTIPLE, canvas_of
from fgfast.models.serving.images import resized
from fgfast.records import Size, UInt8

# MODEL.PIXEL_MEAN and PIXEL_STD of the config: ImageNet's, red, green, blue, on 0..255.
PIXEL_MEAN = (123.675, 116.280, 103.530)
PIXEL_STD = (58.395, 57.120, 57.375)


def resized_size(height: int, width: int, shorter: int, longest: int) -> Size:
    """The size after resizing: the shorter edge becomes `shorter` unless the longer would exceed `longest`.

    In double arithmetic, with detectron2's order of operations; one scale for each axis results.
    """
    scale = shorter / min(height, width)
    new_h, new_w = (shorter, scale * width) if height < width else (scale * height, shorter)
    if max(new_h, new_w) > longest:
        scale = longest / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return Size(int(new_h + 0.5), int(new_w + 0.5))


def resize(pixels: UInt8, size: Size) -> UInt8:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 with Pillow's BILINEAR, which averages when it shrinks."""
    return resized(pixels, size)


def normalise(pixels: UInt8) -> Tensor:
    """(h, w, 3) uint8 RGB -> (3, h, w) float32, zero mean and unit deviation."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(torch.float32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return planes.sub_(mean).div_(std)


def stack(
    images: Sequence[UInt8], multiple: int = CANVAS_MULTIPLE, canvas: Size | None = None
) -> tuple[Tensor, Tensor]:
    """Resized images as one batch, zero-padded right and bottom.

    Args:
        images: (h, w, 3) uint8 each, resized.
        multiple: the canvas grows in these steps, pixels.
        canvas: (H, W) of the canvas, multiples of 32; None: the smallest that holds all.

    Returns:
        (B, 3, H, W) float32, normalised, and the sizes (B, 2) int64, (h, w) in pixels.
    """
    sizes = [Size(*p.shape[:2]) for p in images]
    height, width = canvas or canvas_of(sizes, multiple)
    if any(h > height or w > width for h, w in sizes):
        raise ValueError(f"images of {sizes} (h, w) do not fit on a canvas of {(height, width)}")
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[0], : image.shape[1]] = normalise(image)
    return batch, torch.tensor(sizes, dtype=torch.int64)
