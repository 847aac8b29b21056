"""What can be seen inside a mask, whatever lies around it: colours carried outwards, and edges."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

Method = Literal["canny", "gradient"]

# Rows and columns around the subject's box that are looked at: Canny and Sobel see the neighbouring pixel, and Canny
# joins edges over one more.
_AROUND = 2


def nearest_inside(bits: Bool) -> NDArray[np.int64]:
    """Return for every pixel the number, in rows, of the nearest pixel inside a mask: (H, W) int64.

    Distances are those of OpenCV's mask of 5 x 5, which are right to 2 % (Borgefors, 1986).

    Args:
        bits: (H, W) bool; not empty.
    """
    import cv2

    outside = np.ascontiguousarray(~bits).view(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros(int(labels.max()) + 1, np.int64)
    nearest[labels[bits]] = np.flatnonzero(bits)
    result: NDArray[np.int64] = nearest[labels]
    return result


def carried_out(pixels: UInt8, bits: Bool) -> UInt8:
    """Return an image in which every pixel outside a mask has the colour of the nearest one inside.

    Args:
        pixels: (H, W, 3) uint8.
        bits: (H, W) bool; not empty.

    Returns:
        (H, W, 3) uint8; inside, as it was.
    """
    result: UInt8 = pixels.reshape(-1, 3)[nearest_inside(bits)]
    return result


def window(bits: Bool, around: int = 0) -> tuple[slice, slice]:
    """Return rows and columns of the box around a mask that is not empty, and of `around` pixels more, in the image."""
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    top, left = max(int(rows[0]) - around, 0), max(int(columns[0]) - around, 0)
    return slice(top, int(rows[-1]) + 1 + around), slice(left, int(columns[-1]) + 1 + around)


def edges(pixels: UInt8, bits: Bool, method: Method, low: float, high: float, outline: bool) -> UInt8:
    """Return the edges inside a mask. No pixel outside it has any influence: the nearest one inside takes its place.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool.
        method: "canny" finds thin edges, 255; "gradient" gives how much the grey value changes from pixel to pixel.
        low, high: Canny's thresholds of Sobel's gradient, of which a grey value's step of 1 has 4.
        outline: whether the mask's own outermost pixels are 255, too.

    Returns:
        (H, W) uint8, 0 outside the mask.
    """
    import cv2

    result = np.zeros(bits.shape, np.uint8)
    if not bits.any():
        return result
    rows, columns = window(bits, _AROUND)
    inside = bits[rows, columns]
    grey = cv2.cvtColor(carried_out(pixels[rows, columns], inside), cv2.COLOR_RGB2GRAY)
    if method == "canny":
        found = cv2.Canny(grey, low, high, L2gradient=True)
    else:
        dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
        found = np.clip(np.rint(np.hypot(dx, dy) / 4), 0, 255).astype(np.uint8)
    found = np.where(inside, found, 0).astype(np.uint8)
    if outline:
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        kept = cv2.erode(inside.view(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        found[inside & (kept == 0)] = 255
    result[rows, columns] = found
    return result
