"""`resize` in NumPy: Pillow's bilinear filter for RGB images, to the bit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.checks import check_array, check_range
from fgfast.records import UInt8

MAX_LENGTH = 2**20
"""Longest side in pixels that the native engine takes."""
PRECISION_BITS = 22
"""Of a weight, behind the point (python-pillow/Pillow, src/libImaging/Resample.c)."""


def resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """What the installed Pillow makes of an image with BILINEAR: it enlarges, and averages when it shrinks.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        size: (h, w) in pixels, at least 1 and at most 2**20 each.
        out: (h, w, 3) uint8 to write into, perhaps a part of a larger image, its pixels side by side in memory; it
            shares none with `pixels`. None: a new one.
        threads: to work with at most; the reference has one.

    Returns:
        (h, w, 3) uint8: `out`, or the new one.

    Raises:
        TypeError, ValueError: an argument is not of that kind.
    """
    out = check_resize(pixels, size, out, threads)
    passes = [(1, size[1]), (0, size[0])]
    made = pixels
    for axis, length in reversed(passes) if down_first(pixels.shape[:2], size) else passes:
        made = _resize_axis(made, axis, length)
    out[:] = made
    return out


def down_first(before: tuple[int, ...], after: tuple[int, int]) -> bool:
    """Whether the installed Pillow resizes down the columns before it resizes along the rows, which rounds otherwise.

    Before 13 it never does. From 13 on it does where the height loses more than twice as many pixels as the width
    (python-pillow/Pillow, pull request 9549; the rule found by trying 6000 sizes, tests hold it to what is installed).

    Args:
        before, after: (height, width) in pixels.
    """
    import PIL

    lost = before[0] - after[0]
    return int(PIL.__version__.split(".")[0]) >= 13 and lost > 0 and lost > 2 * (before[1] - after[1])


def check_resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None, threads: int) -> UInt8:
    """Raise TypeError or ValueError unless these are arguments of `resize`; return `out`, or a new one."""
    check_array("pixels", pixels, np.uint8, 3)
    if pixels.shape[2] != 3:
        raise ValueError(f"pixels must have shape (H, W, 3), not {pixels.shape}")
    if len(size) != 2:
        raise ValueError(f"size must be (height, width), not {size!r}")
    for name, length in (("height", pixels.shape[0]), ("width", pixels.shape[1]), *zip(("h", "w"), size, strict=True)):
        check_range(f"{name} of {'pixels' if len(name) > 1 else 'size'}", length, 1, MAX_LENGTH)
    check_range("threads", threads, 1, 2**31 - 1)
    if out is None:
        return np.empty((*size, 3), np.uint8)
    check_array("out", out, np.uint8, 3)
    if out.shape != (*size, 3):
        raise ValueError(f"out must have shape {(*size, 3)}, not {out.shape}")
    if out.strides[1:] != (3, 1) or out.strides[0] < 3 * size[1]:
        raise ValueError(f"out must have its pixels side by side, strides (.., 3, 1), not {out.strides}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    return out


def _resize_axis(pixels: UInt8, axis: int, length: int) -> UInt8:
    """(H, W, 3) with that axis of `length`; as Resample.c: precompute_coeffs, normalize_coeffs_8bpc, clip8."""
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
