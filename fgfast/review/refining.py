"""Simple changes of a mask that a person asks for: grow, shrink, fill holes, keep the largest part."""

from __future__ import annotations

import numpy as np

from fgfast.errors import UnknownNameError, UsageError
from fgfast.ops.distances import distances
from fgfast.records import Bool

OPERATIONS = ("grow", "shrink", "holes", "largest")
MOST_PIXELS = 500
"""Pixels by which a mask grows or shrinks at once, at most."""


def refine(bits: Bool, operation: str, by: int = 1) -> Bool:
    """Return a changed mask.

    Args:
        bits: (H, W) bool.
        operation: "grow" or "shrink" by a distance; "holes" fills what the subject encloses; "largest" keeps its
            largest part (8-connected).
        by: the distance in pixels, 1 to 500.

    Returns:
        (H, W) bool.

    Raises:
        UsageError: there is no such operation, or the distance is out of bounds.
    """
    if operation not in OPERATIONS:
        raise UnknownNameError("operation", operation, OPERATIONS)
    if operation in ("grow", "shrink") and not 1 <= by <= MOST_PIXELS:
        raise UsageError(f"a mask grows or shrinks by 1 to {MOST_PIXELS} pixels, not {by}")
    if not bits.any():
        return np.array(bits)
    if operation == "grow":
        return np.asarray(distances(~bits) <= by, np.bool_)
    if operation == "shrink":
        return np.asarray(distances(bits) > by, np.bool_)
    return _without_holes(bits) if operation == "holes" else _largest(bits)


def _without_holes(bits: Bool) -> Bool:
    import cv2

    background = np.pad(~bits, 1, constant_values=True).view(np.uint8)
    # What is not subject and touches the border, in steps across edges only: a hole may touch outside at a corner.
    _, labels = cv2.connectedComponents(background, connectivity=4)
    return np.asarray(labels[1:-1, 1:-1] != labels[0, 0])


def _largest(bits: Bool) -> Bool:
    import cv2

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(bits.view(np.uint8), connectivity=8)
    return np.asarray(labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax()))
