"""`nms` in NumPy: exact greedy suppression, class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Float32

Int64 = NDArray[np.int64]


def nms(boxes: Float32, scores: Float32, threshold: float, limit: int, classes: Int64 | None = None) -> Int64:
    """Compute fgfast.ops.nms."""
    missing = np.isnan(scores)
    order = np.lexsort((-np.where(missing, 0, scores), ~missing))
    kept: list[int] = []
    for candidate in order.tolist():
        if len(kept) == limit:
            break
        rivals = [index for index in kept if classes is None or classes[index] == classes[candidate]]
        if not (_overlaps(boxes[rivals], boxes[candidate]) > np.float32(threshold)).any():
            kept.append(candidate)
    return np.array(kept, np.int64)


def _overlaps(boxes: Float32, box: Float32) -> Float32:
    """Return the IoU of (N, 4) boxes with one (4,): (N,) float32; NaN where both are empty."""
    with np.errstate(all="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        sides = np.maximum(sides, np.float32(0))
        shared = sides[:, 0] * sides[:, 1]
        overlap: Float32 = shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)
    return overlap
