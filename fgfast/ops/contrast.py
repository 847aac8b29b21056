"""How well the colours of a mask's subject and of its surroundings are told apart."""

from __future__ import annotations

import math

from fgfast import ops
from fgfast.records import Bool, UInt8

NAMES = ("alike colours", "alike surroundings", "colour leaks out", "colour leaks in")
"""Names of what `fgfast.ops.colour_contrast` returns."""


def contrast(pixels: UInt8, bits: Bool) -> dict[str, float]:
    """Compute the numbers of colour; see `fgfast.ops.evidence`.

    Args:
        pixels: (h, w, 3) uint8 RGB, shrunk.
        bits: (h, w) bool; True is subject.

    Returns:
        Name -> number, of `NAMES`, as `fgfast.ops.colour_contrast` describes them. Those without enough pixels are
        absent.
    """
    import cv2

    found = ops.colour_contrast(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB), bits)
    return {name: number for name, number in zip(NAMES, found.tolist(), strict=True) if not math.isnan(number)}
