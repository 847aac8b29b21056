"""Distances of pixels to the nearest pixel of the other side of a mask; the same bits whenever they are asked."""

from __future__ import annotations

import numpy as np

from fgfast.records import Bool, Float32

EXACT = 500
"""Pixels up to which distances are correctly rounded. A squared distance is a whole number, and OpenCV's, squared, is
nearer to it than to its neighbours up to there."""


def distances(bits: Bool) -> Float32:
    """Return each True pixel's Euclidean distance to the nearest False one, 0 for a False one.

    OpenCV's transform alone is not used: its last bit depends on where in memory the mask lies. Beyond `EXACT` pixels
    the last bit may still differ.

    Args:
        bits: (H, W) bool. Outside the image nothing is False.

    Returns:
        (H, W) float32 in pixels; infinite where nothing is False.
    """
    import cv2

    if bits.all():
        return np.full(bits.shape, np.inf, np.float32)
    image = np.ascontiguousarray(bits).view(np.uint8)
    found = np.asarray(cv2.distanceTransform(image, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float64)
    exact: Float32 = np.sqrt(np.rint(found * found)).astype(np.float32)
    return exact
