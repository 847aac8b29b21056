"""Proposals: CenterNet's class-agnostic head, and the boxes that it proposes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.detic.canvas import PYRAMID_STRIDES, halved
from fgfast.models.detic.config import NORM_EPS, DeticConfig
from fgfast.models.detic.pyramid import GroupNorm
from fgfast.models.detic.suppression import nms
from fgfast.models.serving.pixels import inside

# CenterNet2: GroupNorm(32, channels), NUM_BOX_CONVS 4, and the least extent of a decoded box in pixels.
GROUPS = 32
TOWER_DEPTH = 4
LEAST_EXTENT = 0.01

Suppress = Callable[[Tensor, Tensor, float, int], Tensor]


class Candidates(NamedTuple):
    """Boxes of one or more levels: (B, K, 4) float32, pixels of the resized image; scores (B, K) float32, 0 if void."""

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
    """A tower of convolutions, shared by the levels, and two predictions from it."""

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
        """Return the predictions of one level.

        Args:
            x: (B, C, h, w), zero outside the valid size.
            level: 0..4.
            valid: (B, 2) int64, cells, or None.

        Returns:
            heat: (B, 1, h, w) float32, logits.
            distances: (B, 4, h, w) float32, left, top, right, bottom, in strides of the level.
        """
        here = None if valid is None else inside(valid, x.shape[2], x.shape[3])[:, None]
        cells = None if here is None else here[:, None].to(torch.float32)
        for layer in self.bbox_tower:
            x = layer(x, cells) if isinstance(layer, GroupNorm) else layer(x)
            if here is not None and isinstance(layer, nn.ReLU):
                x = x * here.to(x.dtype)
        weight = torch.cat([self.agn_hm.weight, self.bbox_pred.weight])
        bias = torch.cat([self.agn_hm.bias, self.bbox_pred.bias])
        both = functional.conv2d(x.to(weight.dtype), weight, bias, padding=1)
        return both[:, :1], functional.relu(self.scales[level](both[:, 1:]))


class ProposalGenerator(nn.Module):
    """From the pyramid to a fixed number of boxes per image."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        self.config = config
        self.centernet_head = CenterNetHead(config.pyramid_channels)
        # May be replaced by a native implementation or an exportable operator of the same signature. The number of
        # boxes, one beyond the last, may stand in the result for "none".
        self.suppress: Suppress = nms

    def forward(self, pyramid: list[Tensor], valid: Tensor | None) -> Candidates:
        """Return the best boxes, unclipped, in descending order of score; void ones last.

        Args:
            pyramid: p3..p7, (B, C, h, w), zero outside the valid size.
            valid: (B, 2) int64, pixels, or None.

        Returns:
            (B, proposals, 4) and (B, proposals), float32; void boxes are zero.
        """
        return self.best(self.candidates(pyramid, valid))

    def candidates(self, pyramid: list[Tensor], valid: Tensor | None) -> Candidates:
        """Return the hottest cells of all levels as boxes, level by level; for the arguments see forward."""
        found = []
        for n, (maps, size) in enumerate(zip(pyramid, _valid_of_levels(valid), strict=True)):
            heat, distances = self.centernet_head(maps, n, size)
            found.append(level_candidates(heat, distances, PYRAMID_STRIDES[n], size, self.config))
        boxes, scores = (torch.cat(list(column), 1) for column in zip(*found, strict=True))
        return Candidates(boxes, scores)

    def best(self, candidates: Candidates) -> Candidates:
        """Suppress candidates and return exactly config.proposals boxes per image, as forward does."""
        return best(candidates, self.suppress, self.config)


def best(candidates: Candidates, suppress: Suppress, config: DeticConfig) -> Candidates:
    """Suppress candidates and return exactly config.proposals boxes per image, void ones last."""
    limit = config.proposals
    best_boxes, best_scores = [], []
    for boxes, scores in zip(*candidates, strict=True):
        kept = suppress(boxes, scores, config.proposal_overlap, limit)
        if len(kept) < limit:
            kept = functional.pad(kept, (0, limit - len(kept)), value=len(boxes))
        # One more row, void, for boxes that `kept` lacks.
        best_boxes.append(functional.pad(boxes, (0, 0, 0, 1)).index_select(0, kept))
        best_scores.append(functional.pad(scores, (0, 1)).index_select(0, kept))
    return Candidates(torch.stack(best_boxes), torch.stack(best_scores))


def level_candidates(
    heat: Tensor, distances: Tensor, stride: int, valid: Tensor | None, config: DeticConfig
) -> Candidates:
    """Return the hottest cells of one level as boxes, always min(level_candidates, cells) of them.

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
    boxes = _boxes_of_cells(distances, stride).gather(1, cell[:, :, None].expand(-1, -1, 4))
    return Candidates(boxes * (best > 0)[..., None], best.sqrt())


def _boxes_of_cells(distances: Tensor, stride: int) -> Tensor:
    """(B, 4, h, w) float32 distances in strides -> (B, h * w, 4) float32 boxes in pixels.

    For all cells, which needs no arithmetic with the integers of top-k.
    """
    left, top, right, bottom = (distances * stride).unbind(1)
    height, width = left.shape[1:]
    across, down = (
        torch.arange(count, device=distances.device, dtype=torch.float32) * stride + stride // 2
        for count in (width, height)
    )
    x0, y0 = across - left, down[:, None] - top
    x1, y1 = across + right, down[:, None] + bottom
    corners = [x0, y0, torch.maximum(x1, x0 + LEAST_EXTENT), torch.maximum(y1, y0 + LEAST_EXTENT)]
    return torch.stack(corners, -1).flatten(1, 2)


def _valid_of_levels(valid: Tensor | None) -> Iterator[Tensor | None]:
    """Yield the valid size on p3..p7, from that in pixels."""
    size = None if valid is None else valid // PYRAMID_STRIDES[0]
    for _ in PYRAMID_STRIDES:
        yield size
        size = halved(size)
