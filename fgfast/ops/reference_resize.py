"""`resize` in NumPy: Pillow's bilinear filter for RGB images, to the bit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.geometry import down_first
from fgfast.records import UInt8

PRECISION_BITS = 22
"""Fractional bits of a weight (python-pillow/Pillow, src/libImaging/Resample.c)."""


def resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """Compute fgfast.ops.resize, on one thread."""
    out = np.empty((*size, 3), np.uint8) if out is None else out
    passes = [(1, size[1]), (0, size[0])]
    for axis, length in reversed(passes) if down_first(pixels.shape[:2], size) else passes:
        pixels = _resize_axis(pixels, axis, length)
    out[:] = pixels
    return out


def _resize_axis(pixels: UInt8, axis: int, length: int) -> UInt8:
    """Resize one axis of (H, W, 3) to `length` (Resample.c: precompute_coeffs, normalize_coeffs_8bpc, clip8)."""
    rows = np.moveaxis(pixels, axis, 0)
    scale = len(rows) / length
    reach = max(scale, 1.0)
    made = np.empty((length, *rows.shape[1:]), np.uint8)
    for index in range(length):
        centre = (index + 0.5) * scale
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), len(rows))
        weights = [max(1.0 - abs((n - centre + 0.5) * (1.0 / reach)), 0.0) for n in range(first, end)]
        total = 0.0
        for weight in weights:  # sum() rounds otherwise from Python 3.12 on
            total += weight
        whole: NDArray[np.int64] = np.array([math.floor(0.5 + w / total * 2**PRECISION_BITS) for w in weights])
        sums = np.tensordot(whole, rows[first:end].astype(np.int64), 1) + 2 ** (PRECISION_BITS - 1)
        made[index] = np.minimum(sums >> PRECISION_BITS, 255)
    return np.moveaxis(made, 0, axis)
