"""Non-maximum suppression: exact, and quick when few boxes are wanted. On the CPU by the native op where that is
installed, else in plain PyTorch; the same boxes either way."""

from __future__ import annotations

import torch
from torch import Tensor

from fgfast import ops

# Candidates compared with one another at a time.
_BLOCK = 512


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every pair: (N, 4), (M, 4) float32 boxes -> (N, M) float32; NaN where both boxes are empty."""
    area_a, area_b = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b))
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (area_a[:, None] + area_b[None] - shared)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int, classes: Tensor | None = None) -> Tensor:
    """Greedy suppression, best score first; stops when `limit` boxes are kept, which changes nothing about
    them.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit.
        scores: (N,) float32; of equal scores the earlier comes first.
        iou_threshold: a box is suppressed by a kept one of its class with an IoU above this.
        limit: most boxes to keep.
        classes: (N,) integers; boxes of different classes do not meet. None: all are of one class.

    Returns:
        (K,) int64, K <= limit, the kept boxes in descending order of score.
    """
    if boxes.device.type == "cpu" and boxes.dtype == scores.dtype == torch.float32 and ops.implementation() == "native":
        groups = None if classes is None else classes.detach().to(torch.int64).numpy()
        return torch.from_numpy(ops.nms(boxes.detach().numpy(), scores.detach().numpy(), iou_threshold, limit, groups))
    order = scores.sort(descending=True, stable=True).indices
    kept = order[:0]
    for candidates in order.split(_BLOCK):
        if len(kept) >= limit:
            break
        if len(kept):
            hit = _suppresses(boxes, classes, kept, candidates, iou_threshold).any(0)
            candidates = candidates[~hit]
        kept = torch.cat([kept, candidates[_greedy(boxes, classes, candidates, iou_threshold)]])
    return kept[:limit]


def _suppresses(boxes: Tensor, classes: Tensor | None, a: Tensor, b: Tensor, iou_threshold: float) -> Tensor:
    """(N, M) bool: whether box a[i], if kept, suppresses box b[j]."""
    hit = overlaps(boxes[a], boxes[b]) > iou_threshold
    return hit if classes is None else hit & (classes[a][:, None] == classes[b][None])


def _greedy(boxes: Tensor, classes: Tensor | None, order: Tensor, iou_threshold: float) -> Tensor:
    """(N,) bool: which of the boxes, given best first, survive one another.

    A box survives if no surviving box before it suppresses it. Starting from "all survive" and applying this
    rule to all at once, the first n boxes are right after n rounds, mostly far earlier; the rule's only
    fixed point is the answer.
    """
    hit = _suppresses(boxes, classes, order, order, iou_threshold).triu(1).to(torch.float32)
    survives = torch.ones(len(order), dtype=torch.float32, device=boxes.device)
    while True:
        now = (survives @ hit == 0).to(torch.float32)
        if torch.equal(now, survives):
            return now.bool()
        survives = now
