"""How well two masks of one image agree: by their areas, and by their outlines."""

from __future__ import annotations

import math

import numpy as np

from fgfast.ops.distances import distances
from fgfast.records import Bool, Float32

# Pixels as a fraction of the image's diagonal by which outlines may differ and still agree: as in the DAVIS benchmark
# (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", 2016).
OUTLINE_TOLERANCE = 0.008


def iou(a: Bool, b: Bool, both_empty: float = 1.0) -> float:
    """Return the intersection over union of two masks (H, W) bool.

    Where both are empty it is `both_empty`: 1 counts them as equal, 0 as no evidence.

    Raises:
        ValueError: the masks differ in size.
    """
    _check(a, b)
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else both_empty


def boundary_f(a: Bool, b: Bool, tolerance: float = OUTLINE_TOLERANCE) -> float:
    """Return the F score of two outlines, 0..1: the harmonic mean of the shares of each that lie near the other.

    Args:
        a, b: masks (H, W) bool. The border of the image is no outline: nobody draws it.
        tolerance: the distance up to which an outline is near, as a fraction of the image's diagonal; at least 1 px.

    Returns:
        1 where neither has an outline, 0 where only one has.

    Raises:
        ValueError: the masks differ in size.
    """
    _check(a, b)
    mine, other = _outline(a), _outline(b)
    if not mine.any() or not other.any():
        return float(mine.any() == other.any())
    near = max(1.0, tolerance * math.hypot(*a.shape))
    precision = float((_distance(other)[mine] <= near).mean())
    recall = float((_distance(mine)[other] <= near).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _check(a: Bool, b: Bool) -> None:
    if a.shape != b.shape:
        raise ValueError(f"masks of one image must have one size, not {a.shape} and {b.shape}")


def _outline(bits: Bool) -> Bool:
    """Return the subject pixels that have a neighbour of the background, above, below, left or right, in the image."""
    inside = bits.copy()
    inside[1:] &= bits[:-1]
    inside[:-1] &= bits[1:]
    inside[:, 1:] &= bits[:, :-1]
    inside[:, :-1] &= bits[:, 1:]
    outline: Bool = bits & ~inside
    return outline


def _distance(outline: Bool) -> Float32:
    """Return the distance of every pixel from the nearest one of an outline, (H, W) float32 px."""
    return distances(~outline)
