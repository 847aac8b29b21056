"""The feature pyramid: p3..p7 at strides 8 to 128."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.detic.canvas import clear_outside, halved
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.swin import Swin


class TopBlock(nn.Module):
    """p6 and p7, from p5's output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.p7 = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, p5: Tensor, valid: Tensor | None) -> list[Tensor]:
        """(B, C, h, w) -> [(B, C, h / 2, w / 2), (B, C, h / 4, w / 4)], rounded up; valid is p5's."""
        valid = halved(valid)
        p6 = clear_outside(self.p6(p5), valid)
        return [p6, clear_outside(self.p7(functional.relu(p6)), halved(valid))]


class Pyramid(nn.Module):
    """Backbone and pyramid."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        channels = config.pyramid_channels
        self.bottom_up = Swin(config)
        # Numbered by log2 of the stride, as in the checkpoint.
        for level, width in zip((3, 4, 5), config.stage_channels[1:], strict=True):
            self.add_module(f"fpn_lateral{level}", nn.Conv2d(width, channels, 1))
            self.add_module(f"fpn_output{level}", nn.Conv2d(channels, channels, 3, 1, 1))
        self.top_block = TopBlock(channels)

    def forward(self, images: Tensor, valid: Tensor | None) -> list[Tensor]:
        """Return the five maps.

        Args:
            images: (B, 3, H, W) float32, normalised; H and W multiples of 32.
            valid: (B, 2) int64, pixels, or None; see canvas.py.

        Returns:
            p3..p7, (B, C, H / s, W / s) in the precision of the weights, zero outside the valid size.
        """
        return self.from_backbone(self.bottom_up(images, valid), valid)

    def from_backbone(self, maps: list[Tensor], valid: Tensor | None) -> list[Tensor]:
        """Return p3..p7 from swin1..swin3; otherwise like forward."""
        dtype = self.top_block.p6.weight.dtype
        levels: list[Tensor] = []
        above: Tensor | None = None
        for level, swin in ((5, maps[2]), (4, maps[1]), (3, maps[0])):
            at_level = None if valid is None else valid // 2**level
            merged = self.get_submodule(f"fpn_lateral{level}")(swin.to(dtype))
            if above is not None:
                merged = merged + functional.interpolate(above, scale_factor=2.0, mode="nearest")
            above = clear_outside(merged, at_level)
            levels.insert(0, clear_outside(self.get_submodule(f"fpn_output{level}")(above), at_level))
        levels += self.top_block(levels[-1], None if valid is None else valid // 32)
        return levels


class GroupNorm(nn.GroupNorm):
    """Group norm in float32, whose statistics run over the valid cells only."""

    def forward(self, x: Tensor, here: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (B, C, H, W) in any precision.
            here: (B, 1, 1, H, W) float32, 1 in the valid cells, else 0; None: all are valid.

        Returns:
            Of x's shape and dtype; undefined in cells that are not valid.
        """
        if here is None:
            return super().forward(x.float()).to(x.dtype)
        batch, channels, height, width = x.shape
        groups = (batch, self.num_groups, channels // self.num_groups, height, width)
        count = here.sum((2, 3, 4), keepdim=True) * groups[2]
        kept = x.float().view(groups) * here
        mean = kept.sum((2, 3, 4), keepdim=True) / count
        centred = (kept - mean) * here
        variance = (centred * centred).sum((2, 3, 4), keepdim=True) / count
        normed = (centred / torch.sqrt(variance + self.eps)).view(x.shape)
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)
