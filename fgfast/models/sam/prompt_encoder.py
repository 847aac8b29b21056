"""SAM's prompt encoder: tokens of box corners and points, the addition of a mask to the image tokens, their positions.

Always float32: the angles are 2 pi times numbers of several units.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fgfast.models.sam.architecture import CHANNELS, Architecture
from fgfast.models.sam.image_encoder import LayerNorm2d

# segment-anything, prompt_encoder.py: embeddings 0 and 1 are background and foreground points, 2 and 3 box corners.
_CORNERS = (2, 3)
_POINT_KINDS = 4
# segment-anything, build_sam.py: mask_in_chans.
_MASK_CHANNELS = 16
# A box corner at pixel x is located at its centre, x + 0.5.
_PIXEL_CENTRE = 0.5


class PromptEncoder(nn.Module):
    """Boxes, points and masks to tokens.

    Args:
        architecture: the sizes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.side, self.grid = architecture.side, architecture.grid
        self.pe_layer = FourierPositions()
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, CHANNELS) for _ in range(_POINT_KINDS))
        self.not_a_point_embed = nn.Embedding(1, CHANNELS)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, _MASK_CHANNELS // 4, 2, stride=2),
            LayerNorm2d(_MASK_CHANNELS // 4),
            nn.GELU(),
            nn.Conv2d(_MASK_CHANNELS // 4, _MASK_CHANNELS, 2, stride=2),
            LayerNorm2d(_MASK_CHANNELS),
            nn.GELU(),
            nn.Conv2d(_MASK_CHANNELS, CHANNELS, 1),
        )
        self.no_mask_embed = nn.Embedding(1, CHANNELS)
        # (grid * grid, 256) float32: positions of the image tokens, row by row; a constant of the weights.
        self.register_buffer("dense_pe", self._dense_pe(), persistent=False)
        self.dense_pe: Tensor
        nn.Module.register_load_state_dict_post_hook(self, PromptEncoder._weights_loaded)

    def forward(self, boxes: Tensor) -> Tensor:
        """(N, 4) float32, x0 y0 x1 y1 in pixels of the square input -> (N, 2, 256) float32, one token per corner."""
        corners = (boxes + _PIXEL_CENTRE).view(-1, 2, 2) / self.side
        kinds = torch.cat([self.point_embeddings.get_parameter(f"{n}.weight") for n in _CORNERS])
        return self.pe_layer(corners) + kinds

    def points(self, points: Tensor, kinds: Tensor) -> Tensor:
        """Embed points and box corners.

        Args:
            points: (N, P, 2) float32, x y in pixels of the square input; ignored for padding.
            kinds: (N, P) int64: 0 on the background, 1 on the subject, 2 and 3 a box's corners, 4 padding.

        Returns:
            (N, P, 256) float32, one token per point.
        """
        weights = [self.point_embeddings.get_parameter(f"{n}.weight") for n in range(_POINT_KINDS)]
        table = torch.cat([*weights, self.not_a_point_embed.weight])
        placed = torch.ones(_POINT_KINDS + 1, 1, device=table.device)
        placed[_POINT_KINDS] = 0
        chosen = kinds.flatten()
        located = self.pe_layer((points + _PIXEL_CENTRE) / self.side)
        shape = (*kinds.shape, -1)
        return located * placed.index_select(0, chosen).view(shape) + table.index_select(0, chosen).view(shape)

    def dense(self, masks: Tensor, has_mask: Tensor) -> Tensor:
        """Embed masks.

        Args:
            masks: (N, 4g, 4g) float32, logits over the square.
            has_mask: (N,) float32, 1 where there is a mask; elsewhere 0, and `masks` is ignored.

        Returns:
            (N, g * g, 256) float32, added to the image tokens of each prompt.
        """
        given = self.mask_downscaling(masks[:, None]).flatten(2).transpose(1, 2)
        return torch.where(has_mask[:, None, None] > 0, given, self.no_mask)

    @property
    def no_mask(self) -> Tensor:
        """(256,) float32, added to every image token where no mask prompt is given."""
        weight: Tensor = self.no_mask_embed.weight
        return weight[0]

    @torch.no_grad()
    def _dense_pe(self) -> Tensor:
        device = self.pe_layer.positional_encoding_gaussian_matrix.device
        centres = (torch.arange(self.grid, dtype=torch.float32, device=device) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        positions: Tensor = self.pe_layer(torch.stack([x, y], -1))
        return positions.flatten(0, 1)

    @staticmethod
    def _weights_loaded(module: nn.Module, _incompatible_keys: Any) -> None:
        assert isinstance(module, PromptEncoder)
        module.dense_pe = module._dense_pe()


class FourierPositions(nn.Module):
    """Sines and cosines of random projections of a position."""

    def __init__(self) -> None:
        super().__init__()
        # Drawn once, when SAM was trained, and stored in every checkpoint.
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, CHANNELS // 2))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, positions: Tensor) -> Tensor:
        """(..., 2) float32, x y in 0..1 of the square input -> (..., 256) float32."""
        angles = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)
