"""Non-maximum suppression: exact, and fast when few boxes are wanted.

On the CPU it is the native op where installed, else plain PyTorch; both keep the same boxes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from fgfast import ops
from fgfast.models.serving import chosen
from fgfast.models.serving.devices import described
from fgfast.ops import cuda

log = logging.getLogger("fgfast")

# Candidates compared with one another at a time.
_BLOCK = 512


@cache
def fastest_on(device: torch.device) -> Callable[[Tensor, Tensor, float, int], Tensor]:
    """Return `suppress_on_gpu` if the native op runs on this GPU, otherwise `nms`; then the reason is logged, once."""
    if not cuda.built():
        chosen.say("fgfast was built without CUDA: suppression of Detic's proposals waits for the GPU")
        log.info("fgfast was built without CUDA: suppression of Detic's proposals waits for the GPU")
        return nms
    reason = cuda.refusal(torch.cuda.current_device() if device.index is None else device.index)
    if not reason:
        return suppress_on_gpu
    chosen.say(f"suppression of Detic's proposals on {device} is PyTorch's, which waits for the GPU: {reason}")
    log.warning(
        "the native suppression of Detic's proposals does not run on %s: %s; PyTorch's is used, with the same results, "
        "and waits for the GPU; add this GPU to CUDA_ARCHITECTURES in CMakeLists.txt and reinstall fgfast, or install "
        "a newer driver",
        described(str(device)),
        reason,
    )
    return nms


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of every pair: (N, 4), (M, 4) float32 boxes -> (N, M) float32; NaN where both boxes are empty."""
    area_a, area_b = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b))
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (area_a[:, None] + area_b[None] - shared)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int, classes: Tensor | None = None) -> Tensor:
    """Suppress boxes greedily, best score first; stop when `limit` boxes are kept, which does not change them.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit.
        scores: (N,) float32; of equal scores the earlier comes first.
        iou_threshold: a box is suppressed by a kept one of its class with an IoU above this.
        limit: maximum number of boxes to keep.
        classes: (N,) integers; boxes of different classes do not suppress each other. None: one class.

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


def suppress_on_gpu(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    """Suppress as `nms` does, by the native op on the current stream; the fixed size of the result avoids a wait.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, on a GPU.
        scores: (N,) float32.
        overlap: IoU above which a kept box suppresses another.
        limit: maximum number of boxes to keep.

    Returns:
        (min(limit, N),) int64, the kept boxes in descending order of score, then N for "none".
    """
    count, device = len(boxes), boxes.device
    order = scores.sort(descending=True, stable=True).indices
    classes = torch.zeros(count, dtype=torch.int64, device=device)
    workspace = torch.empty(count, (count + 63) // 64, dtype=torch.int64, device=device)
    kept = torch.empty(min(limit, count), dtype=torch.int64, device=device)
    kept_count = torch.empty(1, dtype=torch.int64, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream if boxes.is_cuda else 0
    # Tensors allocated here are reused on this very stream, after the queued work.
    cuda.nms(boxes.contiguous(), order, classes, overlap, workspace, kept, kept_count, stream)
    return kept.masked_fill_(torch.arange(len(kept), device=device) >= kept_count, count)


def _suppresses(boxes: Tensor, classes: Tensor | None, a: Tensor, b: Tensor, iou_threshold: float) -> Tensor:
    """Return (N, M) bool: whether box a[i], if kept, suppresses box b[j]."""
    hit = overlaps(boxes[a], boxes[b]) > iou_threshold
    return hit if classes is None else hit & (classes[a][:, None] == classes[b][None])


def _greedy(boxes: Tensor, classes: Tensor | None, order: Tensor, iou_threshold: float) -> Tensor:
    """Return (N,) bool: the boxes, given best first, that survive each other.

    A box survives if no surviving box before it suppresses it. Starting from "all survive" and applying this rule to
    all boxes simultaneously, the first n boxes are right after n rounds, mostly far earlier; the rule's only fixed
    point is the answer.
    """
    hit = _suppresses(boxes, classes, order, order, iou_threshold).triu(1).to(torch.float32)
    survives = torch.ones(len(order), dtype=torch.float32, device=boxes.device)
    while True:
        now = (survives @ hit == 0).to(torch.float32)
        if torch.equal(now, survives):
            return now.bool()
        survives = now
