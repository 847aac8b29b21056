"""`area_average` and `area_coverage` in NumPy, in whole numbers."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

Sums: TypeAlias = NDArray[np.unsignedinteger[Any]]


def area_average(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_average."""
    return _averaged(pixels, size)


def area_coverage(bits: Bool, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_coverage."""
    return _averaged((bits.view(np.uint8) != 0) * np.uint8(255), size)


def _averaged(array: UInt8, size: tuple[int, int]) -> UInt8:
    """Average (H, W) or (H, W, 3) over the areas of `size`."""
    columns, height = _summed(array, 0, size[0], np.uint32)  # at most 255 x 2 ** 20
    sums, width = _summed(columns, 1, size[1], np.uint64)
    area = np.uint64(height * width)
    return np.asarray((np.uint64(2) * sums + area) // (np.uint64(2) * area), np.uint8)


def _summed(array: Sums, axis: int, length: int, dtype: type[np.unsignedinteger[Any]]) -> tuple[Sums, int]:
    """Return the sums of one axis over the areas of `length`, weighted by overlap, and what the weights sum up to.

    They are differences of the running sum, which between two pixels grows by a part of the next one. It may overflow:
    the differences are right wherever they fit `dtype`.
    """
    rows = np.moveaxis(array, axis, 0)
    common = math.gcd(len(rows), length)
    area, unit = len(rows) // common, length // common  # of an output and of an input, in the same measure
    running = np.zeros((len(rows) + 1, *rows.shape[1:]), dtype)
    np.cumsum(rows, axis=0, dtype=dtype, out=running[1:])
    whole, part = np.divmod(np.arange(length + 1) * area, unit)
    following = rows[np.minimum(whole, len(rows) - 1)].astype(dtype)
    parts = part.astype(dtype).reshape(-1, *[1] * (rows.ndim - 1))
    until = running[whole] * dtype(unit) + following * parts
    return np.moveaxis(np.diff(until, axis=0), 0, axis), area
