"""`nms` in NumPy: exact greedy suppression, class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.checks import check_array, check_range
from fgfast.records import Float32

Int64 = NDArray[np.int64]


def nms(boxes: Float32, scores: Float32, threshold: float, limit: int, classes: Int64 | None = None) -> Int64:
    """Greedy suppression, best score first; it ends when `limit` boxes are kept, which changes nothing about them.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit.
        scores: (N,) float32; of equal scores the earlier comes first, NaN before all.
        threshold: a box is suppressed by a kept one of its class with an IoU above this; all in float32, each
            operation rounded, as PyTorch computes it. The IoU of two empty boxes, NaN, is not above anything.
        limit: most boxes to keep.
        classes: (N,) int64; boxes of different classes do not meet. None: all are of one class.

    Returns:
        (K,) int64, K <= limit, the kept boxes in descending order of score.

    Raises:
        TypeError, ValueError: an argument is not of that kind.
    """
    check_nms(boxes, scores, limit, classes)
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


def check_nms(boxes: Float32, scores: Float32, limit: int, classes: Int64 | None) -> None:
    """Raise TypeError or ValueError unless these are arguments of `nms`."""
    check_array("boxes", boxes, np.float32, 2)
    if boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), not {boxes.shape}")
    columns = [("scores", scores, np.float32)] + ([] if classes is None else [("classes", classes, np.int64)])
    for name, column, dtype in columns:
        check_array(name, column, dtype, 1)
        if len(column) != len(boxes):
            raise ValueError(f"{name} must have shape {boxes.shape[:1]}, as there are boxes, not {column.shape}")
    check_range("limit", limit, 0, 2**63 - 1)


def _overlaps(boxes: Float32, box: Float32) -> Float32:
    """IoU of (N, 4) boxes with one (4,): (N,) float32; NaN where both are empty."""
    with np.errstate(all="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        sides = np.maximum(sides, np.float32(0))
        shared = sides[:, 0] * sides[:, 1]
        overlap: Float32 = shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)
    return overlap
