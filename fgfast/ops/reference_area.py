"""`area_average` and `area_coverage` in NumPy, in whole numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8


def area_average(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_average."""
    return _averaged(pixels, size)


def area_coverage(bits: Bool, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_coverage."""
    return _averaged((bits.view(np.uint8) != 0) * np.uint8(255), size)


def _averaged(array: UInt8, size: tuple[int, int]) -> UInt8:
    """Average (H, W) or (H, W, 3) over the areas of `size`."""
    sums, areas = array.astype(np.int64), 1
    for axis, length in enumerate(size):
        sums, area = _summed(sums, axis, length)
        areas *= area
    return np.asarray((2 * sums + areas) // (2 * areas), np.uint8)


def _summed(sums: NDArray[np.int64], axis: int, length: int) -> tuple[NDArray[np.int64], int]:
    """Return the sums of one axis over the areas of `length`, weighted by overlap, and what the weights sum up to.

    They are differences of the running sum, which between two pixels grows by a part of the next one.
    """
    rows = np.moveaxis(sums, axis, 0)
    common = math.gcd(len(rows), length)
    area, unit = len(rows) // common, length // common  # of an output and of an input, in the same measure
    running = np.concatenate([np.zeros_like(rows[:1]), np.cumsum(rows, axis=0)])
    whole, part = np.divmod(np.arange(length + 1) * area, unit)
    following = rows[np.minimum(whole, len(rows) - 1)]
    until = running[whole] * unit + following * part.reshape(-1, *[1] * (rows.ndim - 1))
    return np.moveaxis(np.diff(until, axis=0), 0, axis), area
