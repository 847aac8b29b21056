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
    ends = np.roll(corners, -1, axis=0)
    extent = np.abs(ends - corners)
    flat = extent[:, 0] >= extent[:, 1]
    # Of each edge the faster coordinate and the slower one; the slower is rounded along the direction in which the
    # faster one grows, so that steps are counted from its lower end.
    fast, slow = np.where(flat, 0, 1), np.where(flat, 1, 0)
    edges = np.arange(len(corners))
    rising = corners[edges, fast] <= ends[edges, fast]
    low = np.where(rising[:, None], corners, ends)
    length = extent[edges, fast]
    climb = ends[edges, slow] - corners[edges, slow]
    slope = np.where(rising, climb, -climb) / np.maximum(length, 1)
    edge = np.repeat(edges, length + 1)
    steps = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - (length + 1), length + 1)
    steps = np.where(rising[edge], steps, length[edge] - steps)
    along = low[edges, fast][edge] + steps
    across = (low[edges, slow][edge] + slope[edge] * steps + 0.5).astype(np.int64)
    return np.where(flat[edge], along, across), np.where(flat[edge], across, along)
