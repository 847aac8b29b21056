"""The image operations in C++: a thin face over fgfast._native. The contracts: fgfast.ops.reference."""

from __future__ import annotations

import numpy as np

from fgfast import _native
from fgfast.ops.reference import Window, check_bits, check_composite, check_counts
from fgfast.records import Bool, UInt8


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """As fgfast.ops.reference.composite."""
    x0, y0, x1, y1 = check_composite(pixels, bits, background, window, alpha)
    pixels, bits = np.ascontiguousarray(pixels), np.ascontiguousarray(bits)
    out = np.empty((y1 - y0, x1 - x0, 4 if alpha else 3), np.uint8)
    if alpha or background is None:
        _native.composite_alpha(pixels, bits, x0, y0, out)
        return out
    if background.ndim == 1:
        background = np.broadcast_to(background, (1, x1 - x0, 3))
    _native.composite(pixels, bits, np.ascontiguousarray(background), x0, y0, out)
    return out


def rle_encode(bits: Bool) -> bytes:
    """As fgfast.ops.reference.rle_encode."""
    check_bits(bits)
    return _native.rle_encode(np.ascontiguousarray(bits))


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """As fgfast.ops.reference.rle_decode."""
    check_counts(counts, height, width)
    return _native.rle_decode(counts, height, width)
