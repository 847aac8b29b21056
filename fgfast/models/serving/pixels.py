"""Resized images as SAM and Detic take them: normalised, and zero in the padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Mean and standard deviation of ImageNet's red, green and blue on 0..255: segment-anything, build_sam.py (pixel_mean,
# pixel_std); Detic's config (MODEL.PIXEL_MEAN, PIXEL_STD).
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class NormalisedImages(nn.Module):
    """Pixels to the input of a network.

    Args:
        device: of the constants.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN, device=device), persistent=False)
        self.register_buffer("std", torch.tensor(STD, device=device), persistent=False)

    def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 RGB and (B, 2) = (h, w) -> (B, 3, H, W) float32, zero beyond each size; channels last."""
        here = inside(sizes, pixels.shape[1], pixels.shape[2])
        normalised = (pixels.to(torch.float32) - self.mean) / self.std
        return torch.where(here[..., None], normalised, 0.0).permute(0, 3, 1, 2)


def inside(sizes: Tensor, height: int, width: int) -> Tensor:
    """(B, height, width) bool: the cells within each size (B, 2) = (h, w), in whole numbers of any dtype."""
    rows = torch.arange(height, device=sizes.device, dtype=sizes.dtype)
    columns = torch.arange(width, device=sizes.device, dtype=sizes.dtype)
    return (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None, :]
