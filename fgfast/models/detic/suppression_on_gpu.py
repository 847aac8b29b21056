"""Suppression of proposals by the native op on a GPU: with a result of fixed size, so that nobody waits for a count."""

from __future__ import annotations

import torch
from torch import Tensor

from fgfast.ops import cuda


def suppress(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
    """As fgfast.models.detic.suppression.nms, queued on the current stream.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, on a GPU.
        scores: (N,) float32.
        overlap: IoU above which a kept box suppresses another.
        limit: most boxes to keep.

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
    # What is allocated here goes back to this very stream, behind the work that is queued.
    cuda.nms(boxes.contiguous(), order, classes, overlap, workspace, kept, kept_count, stream)
    return kept.masked_fill_(torch.arange(len(kept), device=device) >= kept_count, count)
