"""Parts of a subject as arrays: cells inside a mask, maps of clusters, heat maps of points, windows around points.

A grid divides an image into (rows, columns) cells of equal size, as the patches of a vision transformer do. Points are
x y in continuous pixels: the pixel in column c and row r covers c .. c + 1 and r .. r + 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fgfast import ops
from fgfast.records import Bool, Float32, Size, UInt8

NO_PART = -1
"""The label of a cell or pixel that belongs to no part."""

# From this coverage on, of 255, half a cell or more is subject, and the cell inside the mask; see `ops.area_coverage`.
_INSIDE = 128

Labels = NDArray[np.int64]
PixelLabels = NDArray[np.int16]
Window = tuple[int, int, int, int]


def grid_of(size: Size, longest: int, multiple: int = 1) -> Size:
    """Return the grid of an image whose longer side has `longest` cells, and the shorter one in proportion.

    Args:
        size: of the image, in pixels, at least 1 x 1.
        longest: cells along the longer side, at least 1.
        multiple: both numbers are multiples of it, and at least it.
    """
    scale = longest / max(size)
    rows, columns = (max(round(length * scale / multiple), 1) * multiple for length in size)
    return Size(rows, columns)


def cells_inside(bits: Bool, grid: Size) -> Bool:
    """Return which cells of a grid are inside a mask: at least half of their pixels are subject.

    Of a subject so small that no cell has half, the cell with most of it is inside; of an empty mask, none.

    Args:
        bits: (H, W) bool; True is subject.
        grid: rows and columns.

    Returns:
        (rows, columns) bool.
    """
    covered = coverage(bits, grid)
    inside: Bool = covered >= _INSIDE
    if bits.any() and not inside.any():
        # Of a subject that covers less than 1 / 510 of every cell, the cell of its first pixel.
        row, column = np.argwhere(bits)[0] * grid // bits.shape
        best = np.unravel_index(int(covered.argmax()), covered.shape) if covered.any() else (row, column)
        inside[best] = True
    return inside


def coverage(bits: Bool, grid: Size) -> UInt8:
    """Return how much of each cell of a grid is True, 255 all of it: (H, W) bool -> (rows, columns) uint8.

    Pixels that a border between cells divides count by their area. A grid may be finer than the image.
    """
    for axis, (cells, pixels) in enumerate(zip(grid, bits.shape, strict=True)):
        if cells > pixels:
            bits = np.repeat(bits, -(-cells // pixels), axis=axis)
    return ops.area_coverage(np.ascontiguousarray(bits), grid)


def colour_cells(pixels: UInt8, grid: Size, bits: Bool | None = None) -> NDArray[np.float64]:
    """Return the mean colour of each cell in CIE Lab: L 0..100, a and b about -100..100; (rows, columns, 3) float64.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        grid: rows and columns, at most H and W.
        bits: (H, W) bool; where given, only these pixels count, so that no background reaches a cell on the edge. A
            cell that has none, or less than 1 / 510 of it, counts as a whole.
    """
    import cv2

    means = ops.area_average(np.ascontiguousarray(pixels), grid).astype(np.float32)
    if bits is not None:
        covered = coverage(bits, grid)[..., None]
        own = ops.area_average(np.where(bits[..., None], pixels, np.uint8(0)), grid).astype(np.float32)
        means = np.where(covered > 0, np.minimum(own * 255 / np.maximum(covered, 1), 255), means).astype(np.float32)
    return np.asarray(cv2.cvtColor(means / 255, cv2.COLOR_RGB2Lab), np.float64)


def place_cells(box: Float32, size: Size, grid: Size) -> NDArray[np.float64]:
    """Return the middle of each cell as a fraction of a box's width and height; (rows, columns, 2) float64 x y.

    Args:
        box: (4,) x0 y0 x1 y1, in pixels of an image of `size`, with sides greater than 0.
        size: of the image, in pixels.
        grid: rows and columns.
    """
    x0, y0, x1, y1 = box.astype(np.float64)
    x = ((np.arange(grid.width) + 0.5) * (size.width / grid.width) - x0) / (x1 - x0)
    y = ((np.arange(grid.height) + 0.5) * (size.height / grid.height) - y0) / (y1 - y0)
    return np.stack(np.meshgrid(x, y), axis=-1)


def cell_at(x: float, y: float, size: Size, grid: Size) -> tuple[int, int] | None:
    """Return the row and column of the cell under a point, in pixels of an image of `size`; None outside it."""
    if not (0 <= x < size.width and 0 <= y < size.height):
        return None
    return int(y * grid.height / size.height), int(x * grid.width / size.width)


def filled(labels: Labels) -> Labels:
    """Return labels, (rows, columns) int64, with those of the nearest cell that has one where there is `NO_PART`."""
    from scipy.ndimage import distance_transform_edt

    lacking = labels == NO_PART
    if lacking.all() or not lacking.any():
        return labels
    rows, columns = distance_transform_edt(lacking, return_distances=False, return_indices=True)
    near: Labels = labels[rows, columns]
    return near


def spread_labels(labels: Labels, bits: Bool) -> PixelLabels:
    """Return the part of each pixel of a subject, that of its cell or, where this has none, of the nearest with one.

    Args:
        labels: (rows, columns) int64, part of each cell, at most 2**15 - 1, or `NO_PART`.
        bits: (H, W) bool; True is subject.

    Returns:
        (H, W) int16; `NO_PART` outside the subject, and everywhere where no cell has a part.
    """
    rows, columns = middles(Size(*labels.shape), Size(*bits.shape))
    spread = filled(labels).astype(np.int16)[rows[:, None], columns]
    spread[~bits] = NO_PART
    return spread


def middles(grid: Size, other: Size) -> tuple[Labels, Labels]:
    """Return the rows and columns of a grid that lie under the middles of the cells of another, int64 each."""
    rows, columns = ((np.arange(b) * 2 + 1) * a // (2 * b) for a, b in zip(grid, other, strict=True))
    return rows, columns


def part_centres(labels: Labels | PixelLabels, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean places of the pixels of each part, and their numbers.

    Args:
        labels: (H, W), part of each pixel, or `NO_PART`.
        k: the number of parts.

    Returns:
        (k, 2) float64 x y in pixels, NaN for a part without pixels; (k,) int64.
    """
    points, counts = np.full((k, 2), np.nan), np.zeros(k, np.int64)
    for part in range(k):
        own = labels == part
        across, down = own.sum(axis=0), own.sum(axis=1)
        counts[part] = across.sum()
        if counts[part]:
            sums = (float((on * (np.arange(len(on)) + 0.5)).sum()) for on in (across, down))
            points[part] = [total / counts[part] for total in sums]
    return points, counts


def point_in(bits: Bool, x: float, y: float) -> bool:
    """Return whether the pixel under a point is True; False outside the image."""
    height, width = bits.shape
    return 0 <= x < width and 0 <= y < height and bool(bits[int(y), int(x)])


def point_heat_maps(points: Float32, size: Size, grid: Size, sigma: float) -> UInt8:
    """Return a Gaussian around each point, sampled at the middles of a grid's cells, with 255 at its peak.

    Args:
        points: (P, 3) float32 x y visible, in pixels of an image of `size`.
        size: of the image, in pixels.
        grid: rows and columns of each map.
        sigma: the standard deviation, in pixels of the image, greater than 0.

    Returns:
        (P, rows, columns) uint8; a map of zeros where a point is not visible.
    """
    x = (np.arange(grid.width) + 0.5) * (size.width / grid.width)
    y = (np.arange(grid.height) + 0.5) * (size.height / grid.height)
    maps = np.zeros((len(points), *grid), np.uint8)
    for own, (left, top, visible) in zip(maps, points.astype(np.float64).tolist(), strict=True):
        if visible:
            across, down = (np.exp(-((at - middle) ** 2) / (2 * sigma * sigma)) for at, middle in ((x, left), (y, top)))
            own[:] = np.rint(255 * down[:, None] * across)
    return maps


def membership_maps(labels: PixelLabels, k: int, grid: Size) -> UInt8:
    """Return how much of each cell of a grid belongs to each part, 255 for all of it.

    Args:
        labels: (H, W), part of each pixel, or `NO_PART`.
        k: the number of parts.
        grid: rows and columns of each map.

    Returns:
        (k, rows, columns) uint8.
    """
    return np.stack([coverage(labels == part, grid) for part in range(k)])


def window_around(x: float, y: float, side: int) -> Window:
    """Return the square of `side` pixels, at least 1, centred on a point to within half a pixel: x0 y0 x1 y1.

    It may reach beyond the image; right and bottom are exclusive.
    """
    left, top = (math.floor(at - side / 2 + 0.5) for at in (x, y))
    return left, top, left + side, top + side


def cut_window(pixels: UInt8, window: Window) -> UInt8:
    """Return what a window shows of an image, (side, side, C) uint8, 0 beyond the image.

    Args:
        pixels: (H, W, C) uint8.
        window: x0 y0 x1 y1 in pixels; right and bottom are exclusive. It may miss the image.
    """
    (height, width), (x0, y0, x1, y1) = pixels.shape[:2], window
    shown = np.zeros((y1 - y0, x1 - x0, pixels.shape[2]), np.uint8)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left < right and top < bottom:
        shown[top - y0 : bottom - y0, left - x0 : right - x0] = pixels[top:bottom, left:right]
    return shown
