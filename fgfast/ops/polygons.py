"""Polygons to masks, as COCO's own tools draw them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Size

# COCO's tools (cocodataset/cocoapi, common/maskApi.c, rleFrPoly) walk along the outline on a grid five times as fine as
# the pixels. Other rasterisers differ from them by pixels on the outline.
_FINER = 5


def polygon_mask(points: NDArray[np.float64], size: Size) -> Bool:
    """Return the pixels inside a polygon, equal to those of pycocotools.

    Args:
        points: (N, 2) float64, x y in continuous pixels; the last point is joined to the first.
        size: of the mask, in pixels.

    Returns:
        (H, W) bool.
    """
    height, width = size
    columns, rows = _outline((_FINER * points + 0.5).astype(np.int64))
    # The outline crosses into another column of the fine grid between two of its points. Where that is the middle of a
    # column of pixels, the mask changes there from the outline downwards.
    crossing = np.flatnonzero(np.diff(columns))
    x = (np.minimum(columns[crossing], columns[crossing + 1]) + 0.5) / _FINER - 0.5
    y = (np.minimum(rows[crossing], rows[crossing + 1]) + 0.5) / _FINER - 0.5
    middle = (x == np.floor(x)) & (x >= 0) & (x <= width - 1)
    starts = x[middle].astype(np.int64) * height + np.ceil(np.clip(y[middle], 0, height)).astype(np.int64)
    changes = np.bincount(starts, minlength=height * width + 1)[: height * width]
    bits: Bool = (np.cumsum(changes) & 1).astype(np.bool_).reshape(width, height).T
    return np.ascontiguousarray(bits)


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return columns and rows of all points of the fine grid along the outline, in its order."""
    columns, rows = [], []
    for (xs, ys), (xe, ye) in zip(corners.tolist(), np.roll(corners, -1, axis=0).tolist(), strict=True):
        wide, high = abs(xe - xs), abs(ye - ys)
        steps = np.arange(max(wide, high) + 1)
        # The slower coordinate is rounded along the direction in which the faster one grows.
        if wide >= high:
            slope, steps, start, low = (ye - ys) / max(wide, 1), *_upwards(steps, xs, xe, ys, ye)
            slope = slope if xs <= xe else -slope
            columns.append(low + steps)
            rows.append((start + slope * steps + 0.5).astype(np.int64))
        else:
            slope, steps, start, low = (xe - xs) / high, *_upwards(steps, ys, ye, xs, xe)
            slope = slope if ys <= ye else -slope
            rows.append(low + steps)
            columns.append((start + slope * steps + 0.5).astype(np.int64))
    return np.concatenate(columns), np.concatenate(rows)


def _upwards(
    steps: NDArray[np.int64], fast: int, fast_end: int, slow: int, slow_end: int
) -> tuple[NDArray[np.int64], int, int]:
    """Return the steps of an edge counted from its lower end, and there the slow and the fast coordinate."""
    return (steps, slow, fast) if fast <= fast_end else (steps[::-1], slow_end, fast_end)
