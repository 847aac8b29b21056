"""Proposals: CenterNet's head without classes, and the boxes it proposes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.detic.canvas import PYRAMID_STRIDES, clear_outside, halved, inside
from fgfast.models.detic.config import NORM_EPS, DeticConfig
from fgfast.models.detic.pyramid import GroupNorm
from fgfast.models.detic.suppression import nms

# CenterNet2: GroupNorm(32, channels), NUM_BOX_CONVS 4, and the least extent of a decoded box in pixels.
GROUPS = 32
TOWER_DEPTH = 4
LEAST_EXTENT = 0.01

Suppress = Callable[[Tensor, Tensor, float, int], Tensor]


class Candidates(NamedTuple):
    """Boxes of one or more levels: (B, K, 4) float32, pixels of the resized picture; scores (B, K) float32,
    0 is void.
    """

    boxes: Tensor
    scores: Tensor


class Scale(nn.Module):
    """One learned scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float32."""
        return x * self.scale


class CenterNetHead(nn.Module):
    """A tower of convolutions, shared by the levels, and two predictions read off it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(TOWER_DEPTH):
            layers += [
                nn.Conv2d(channels, channels, 3, 1, 1),
                GroupNorm(GROUPS, channels, NORM_EPS),
                nn.ReLU(inplace=True),
            ]
        self.bbox_tower = nn.ModuleList(layers)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, 1, 1)
        self.agn_hm = nn.Conv2d(channels, 1, 3, 1, 1)
        self.scales = nn.ModuleList(Scale() for _ in PYRAMID_STRIDES)

    def forward(self, x: Tensor, level: int, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """The predictions of one level.

        Args:
            x: (B, C, h, w), zero outside the valid size.
            level: 0..4.
            valid: (B, 2) int64, cells, or None.

        Returns:
            heat: (B, 1, h, w) float32, logits.
            distances: (B, 4, h, w) float32, left, top, right, bottom, in strides of the level.
        """
        for layer in self.bbox_tower:
            x = layer(x, valid) if isinstance(layer, GroupNorm) else layer(x)
            if isinstance(layer, nn.ReLU):
                x = clear_outside(x, valid)
        weight = torch.cat([self.agn_hm.weight, self.bbox_pred.weight])
        bias = torch.cat([self.agn_hm.bias, self.bbox_pred.bias])
        both = functional.conv2d(x.to(weight.dtype), weight, bias, padding=1)
        return both[:, :1], functional.relu(self.scales[level](both[:, 1:]))


class ProposalGenerator(nn.Module):
    """From the pyramid to a fixed number of boxes a picture."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        self.config = config
        self.centernet_head = CenterNetHead(config.pyramid_channels)
        # May be replaced by a native implementation or an exportable operator of the same signature.
        self.suppress: Suppress = nms

    def forward(self, pyramid: list[Tensor], valid: Tensor | None) -> Candidates:
        """The best boxes, unclipped, in descending order of score; void ones last.

        Args:
            pyramid: p3..p7, (B, C, h, w), zero outside the valid size.
            valid: (B, 2) int64, pixels, or None.

        Returns:
            (B, proposals, 4) and (B, proposals), float32; void boxes are zero.
        """
        return self.best(self.candidates(pyramid, valid))

    def candidates(self, pyramid: list[Tensor], valid: Tensor | None) -> Candidates:
        """The hottest cells of all levels as boxes, level by level; arguments as in forward."""
        found = []
        for n, (maps, size) in enumerate(zip(pyramid, _valid_of_levels(valid), strict=True)):
            heat, distances = self.centernet_head(maps, n, size)
            found.append(level_candidates(heat, distances, PYRAMID_STRIDES[n], size, self.config))
        boxes, scores = (torch.cat(list(column), 1) for column in zip(*found, strict=True))
        return Candidates(boxes, scores)

    def best(self, candidates: Candidates) -> Candidates:
        """Suppress, and keep exactly config.proposals boxes a picture; the result as in forward."""
        limit = self.config.proposals
        best_boxes, best_scores = [], []
        for boxes, scores in zip(*candidates, strict=True):
            kept = self.suppress(boxes, scores, self.config.proposal_overlap, limit)
            missing = limit - len(kept)
            best_boxes.append(functional.pad(boxes[kept], (0, 0, 0, missing)))
            best_scores.append(functional.pad(scores[kept], (0, missing)))
        return Candidates(torch.stack(best_boxes), torch.stack(best_scores))


def level_candidates(
    heat: Tensor, distances: Tensor, stride: int, valid: Tensor | None, config: DeticConfig
) -> Candidates:
    """The hottest cells of one level as boxes, always min(level_candidates, cells) of them.

    Args:
        heat: (B, 1, h, w) float32, logits.
        distances: (B, 4, h, w) float32, in strides.
        stride: pixels.
        valid: (B, 2) int64, cells, or None.
    """
    height, width = heat.shape[2:]
    hot = heat.float().sigmoid()[:, 0]
    alive = hot > config.heat_threshold
    if valid is not None:
        alive = alive & inside(valid, height, width)
    hot = torch.where(alive, hot, 0.0).flatten(1)
    best, cell = hot.topk(min(config.level_candidates, height * width), 1)
    reach = distances.flatten(2).transpose(1, 2).gather(1, cell[:, :, None].expand(-1, -1, 4)) * stride
    centre = torch.stack([cell % width, cell // width], -1) * stride + stride // 2
    low, high = centre - reach[..., :2], centre + reach[..., 2:]
    boxes = torch.cat([low, torch.maximum(high, low + LEAST_EXTENT)], -1)
    return Candidates(boxes * (best > 0)[..., None], best.sqrt())


def _valid_of_levels(valid: Tensor | None) -> Iterator[Tensor | None]:
    """The valid size on p3..p7, from that in pixels."""
    size = None if valid is None else valid // PYRAMID_STRIDES[0]
    for _ in PYRAMID_STRIDES:
        yield size
        size = halved(size)
