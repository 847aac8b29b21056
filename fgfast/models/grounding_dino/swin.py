"""transformers' Swin on a canvas: the results of an image alone, whatever the canvas contains beyond it.

Alone, a map is padded with zeros to whole windows, and shifted windows wrap around its edge. On a canvas, cells beyond
the image's extent are therefore set to zero before every attention, and in a shifted window that crosses the edge of
the image's last whole window the cells beyond are a separate region.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.serving.pixels import inside

# transformers adds this to the logits of two tokens that must not attend to each other.
_APART = -100.0


class CanvasSwin(nn.Module):
    """transformers' SwinBackbone.

    Args:
        backbone: transformers' SwinBackbone; its modules are shared.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        swin = backbone.swin
        self.project, self.norm = swin.embeddings.patch_embeddings.projection, swin.embeddings.norm
        self.stages = nn.ModuleList(swin.encoder.layers)
        # Norms of the stages whose maps are returned, by number.
        self.norms = nn.ModuleDict(
            {str(backbone.stage_names.index(stage) - 1): norm for stage, norm in backbone.hidden_states_norms.items()}
        )
        assert swin.embeddings.position_embeddings is None

    def forward(self, images: Tensor, seen: Tensor) -> list[Tensor]:
        """Return maps of the image.

        Args:
            images: (B, 3, H, W) float32, normalised, zero beyond the image; H and W multiples of 32.
            seen: (B, 2) float32, whole numbers: height and width of each image, pixels.

        Returns:
            (B, C, H / s, W / s) float32 for s = 8, 16, 32; undefined beyond the image.
        """
        x = self.norm(self.project(images).permute(0, 2, 3, 1))
        extent = torch.ceil(seen / 4)
        maps = []
        for n, stage in enumerate(self.stages):
            here = inside(extent, x.shape[1], x.shape[2])[..., None].to(x.dtype)
            for block in stage.blocks:
                x = _block(block, x, extent, here)
            if str(n) in self.norms:
                maps.append(self.norms[str(n)](x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = _halved(stage.downsample, x * here)
                extent = torch.ceil(extent / 2)
        return maps


def _block(block: Any, x: Tensor, extent: Tensor, here: Tensor) -> Tensor:
    """Apply a SwinLayer to (B, h, w, C) float32 tokens; `here` is (B, h, w, 1), 1 within the image."""
    batch, height, width, channels = x.shape
    size, shift = block.window_size, block.shift_size
    normed = functional.pad(block.layernorm_before(x) * here, (0, 0, 0, -width % size, 0, -height % size))
    down, across = normed.shape[1] // size, normed.shape[2] // size
    mask = None
    if shift:
        normed = torch.roll(normed, (-shift, -shift), (1, 2))
        mask = _apart(extent, down, across, size, shift)
    windows = normed.view(batch, down, size, across, size, channels).transpose(2, 3).reshape(-1, size * size, channels)
    attended = block.attention(windows, mask)[0].to(x.dtype)
    maps = attended.view(batch, down, across, size, size, channels).transpose(2, 3)
    maps = maps.reshape(batch, down * size, across * size, channels)
    if shift:
        maps = torch.roll(maps, (shift, shift), (1, 2))
    x = x + maps[:, :height, :width]
    return x + block.mlp(block.layernorm_after(x)).to(x.dtype)


def _apart(extent: Tensor, down: int, across: int, size: int, shift: int) -> Tensor:
    """Return the mask of shifted windows, (B * down * across, size², size²) float32, 0 or _APART between two tokens.

    The regions along an axis are: the cells before the last shift, the last `shift` cells, and the cells that an image
    alone does not have. The first cells, which wrap around, are separate from all of these.
    """
    regions = []
    for axis, count in enumerate((down, across)):
        place = torch.arange(count * size, device=extent.device)
        # The source of the cell in each place, and whether it wrapped around the canvas.
        source = torch.roll(place, -shift).to(extent.dtype)
        wrapped = (place >= count * size - shift).to(extent.dtype)
        whole = torch.ceil(extent[:, axis, None] / size) * size
        region = wrapped + 2 * (source >= whole).to(extent.dtype)
        regions.append(region.view(-1, count, size))
    rows, columns = regions
    same_row = rows[:, :, :, None] == rows[:, :, None, :]
    same_column = columns[:, :, :, None] == columns[:, :, None, :]
    together = same_row[:, :, None, :, None, :, None] & same_column[:, None, :, None, :, None, :]
    return torch.where(together, 0.0, _APART).reshape(-1, size * size, size * size)


def _halved(merging: Any, x: Tensor) -> Tensor:
    """Apply a SwinPatchMerging to (B, h, w, C), which is zero beyond the image -> (B, h / 2, w / 2, 2 C)."""
    batch, height, width, channels = x.shape
    cells = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    cells = cells.view(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
    merged = merging.norm(cells.reshape(batch, (height + 1) // 2, (width + 1) // 2, 4 * channels))
    return merging.reduction(merged)
