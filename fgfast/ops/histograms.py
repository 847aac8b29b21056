"""Histograms of colours inside a mask, in the 8-bit colour spaces of OpenCV."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

SPACES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"rgb": ("r", "g", "b"), "hsv": ("h", "s", "v"), "lab": ("l", "a", "b")}
)
"""Colour space -> its channels, in the order of `converted`."""
HUES = 180
"""Hues of OpenCV's 8-bit HSV are whole numbers below this, 2 degrees each; all other channels have 256 values."""


def converted(pixels: UInt8, space: str) -> UInt8:
    """Convert (H, W, 3) uint8 RGB to a space of `SPACES`, as OpenCV does with 8 bits: (H, W, 3) uint8.

    hsv: hue / 2 in degrees (0 where a pixel has no colour), saturation and value * 255.
    lab: CIE 1976 for D65 from sRGB: L* * 255 / 100, a* + 128, b* + 128.
    """
    import cv2

    if space == "rgb":
        return pixels
    code = {"hsv": cv2.COLOR_RGB2HSV, "lab": cv2.COLOR_RGB2LAB}[space]
    result: UInt8 = cv2.cvtColor(pixels, code)
    return result


def values_of(space: str, channel: str) -> int:
    """Return how many values a channel has: 180 or 256."""
    return HUES if (space, channel) == ("hsv", "h") else 256


def histogram(values: UInt8, bins: int, most: int = 256) -> NDArray[np.int64]:
    """Count values in bins of equal width: the value v lies in bin floor(v * bins / most).

    Args:
        values: (N,) uint8, each below `most`.
        bins: number of bins, 1 .. 256.
        most: the number of values that there are.

    Returns:
        (bins,) int64, which sums up to N.
    """
    counts = np.bincount(values, minlength=most)
    result = np.zeros(bins, np.int64)
    np.add.at(result, np.arange(most) * bins // most, counts[:most])
    return result


def moments(values: UInt8) -> tuple[float, float]:
    """Return the mean and the standard deviation (of all, not of a sample) of (N,) uint8, N >= 1, by whole numbers."""
    counts = np.bincount(values, minlength=256)
    levels = np.arange(256, dtype=np.int64)
    number, total, squares = len(values), int(counts @ levels), int(counts @ (levels * levels))
    # Whole numbers throughout, so that the variance is never negative and no order of summation matters.
    return total / number, ((number * squares - total * total) ** 0.5) / number


def inside(pixels: UInt8, bits: Bool) -> UInt8:
    """Return the subject's pixels, (N, 3), of (H, W, 3) uint8, with (H, W) bool; row by row."""
    chosen: UInt8 = pixels[bits]
    return chosen
