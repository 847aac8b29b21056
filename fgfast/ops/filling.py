"""Filling the place of a subject, so that the rest of its image is a background. All images are uint8 RGB, (H, W, 3).

The whole box is filled, not the mask alone: a filled mask would still show the subject's outline.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fgfast.ops.geometry import mask_box
from fgfast.records import Bool, UInt8

Box = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the image; right and bottom are exclusive."""

MARGIN = 3
"""Pixels by which the box of a subject is widened before it is filled: on the outline, pixels are half subject."""

# Pixels around each that are looked at; the value of OpenCV's own example. Its other method, Telea's, leaves streaks of
# 9 levels on one colour.
_RADIUS = 3
# Longer side in pixels at which an image is inpainted: the time grows with the hole, which has no detail anyway.
_SIDE = 256


def widened(box: Box, margin: int, size: tuple[int, int]) -> Box:
    """Return a box with a margin in pixels on each side, clipped to an image of `size`, (height, width)."""
    x0, y0, x1, y1 = box
    return max(0, x0 - margin), max(0, y0 - margin), min(size[1], x1 + margin), min(size[0], y1 + margin)


def box_to_fill(bits: Bool) -> Box:
    """Return the box around a mask that is not empty, (H, W) bool, with its margin."""
    found = mask_box(bits)
    if found is None:
        raise ValueError("an empty mask has no box")
    x0, y0, x1, y1 = found.astype(int).tolist()
    return widened((x0, y0, x1, y1), MARGIN, (bits.shape[0], bits.shape[1]))


def share(box: Box, size: tuple[int, int]) -> float:
    """Return which part of an image of `size`, (height, width), a box inside it covers: 0 to 1."""
    x0, y0, x1, y1 = box
    return max(0, x1 - x0) * max(0, y1 - y0) / (size[0] * size[1])


def largest_beside(box: Box, size: tuple[int, int]) -> Box:
    """Return the largest rectangle of an image of `size`, (height, width), that does not meet a box in it.

    It is what lies above, below, left or right of the box; of equals the first of these. Its area is 0 where the box
    covers the image.
    """
    height, width = size
    x0, y0, x1, y1 = box
    beside = ((0, 0, width, y0), (0, y1, width, height), (0, 0, x0, height), (x1, 0, width, height))
    return max(beside, key=lambda r: (r[2] - r[0]) * (r[3] - r[1]))


def blackened(pixels: UInt8, box: Box) -> UInt8:
    """Return an image with a black box, as ImageNet-9's Only-BG-B (Xiao et al., arXiv 2006.09994)."""
    filled: UInt8 = pixels.copy()
    x0, y0, x1, y1 = box
    filled[y0:y1, x0:x1] = 0
    return filled


def tiled(pixels: UInt8, box: Box) -> UInt8:
    """Return an image with its background tiled over a box, as ImageNet-9's Only-BG-T (arXiv 2006.09994).

    The largest rectangle beside the box is repeated, beginning at the box's top-left corner.

    Raises:
        ValueError: the box covers the image.
    """
    left, top, right, bottom = largest_beside(box, _size(pixels))
    if right <= left or bottom <= top:
        raise ValueError(f"the box {box} leaves no background of an image of {pixels.shape[1]} x {pixels.shape[0]}")
    x0, y0, x1, y1 = box
    rows = top + np.arange(max(0, y1 - y0)) % (bottom - top)
    columns = left + np.arange(max(0, x1 - x0)) % (right - left)
    filled: UInt8 = pixels.copy()
    filled[y0:y1, x0:x1] = pixels[rows[:, None], columns]
    return filled


def inpainted(pixels: UInt8, box: Box) -> UInt8:
    """Return an image whose box is continued from its surroundings.

    The method is that of Bertalmio, Bertozzi and Sapiro (Navier-Stokes, CVPR 2001), of OpenCV. It is computed at no
    more than 256 pixels a side and enlarged: there is no finer detail in it.

    Raises:
        ValueError: the box covers the image.
    """
    import cv2

    height, width = _size(pixels)
    if share(box, (height, width)) >= 1:
        raise ValueError(f"the box {box} leaves no background of an image of {width} x {height}")
    x0, y0, x1, y1 = box
    filled: UInt8 = pixels.copy()
    if x1 <= x0 or y1 <= y0:
        return filled
    hole = np.zeros((height, width), np.uint8)
    hole[y0:y1, x0:x1] = 255
    filled[y0:y1, x0:x1] = 0  # so that nothing of it can come through when the image is made smaller
    scale = min(1.0, _SIDE / max(height, width))
    if scale == 1:
        return np.asarray(cv2.inpaint(filled, hole, _RADIUS, cv2.INPAINT_NS))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small_hole: Any = cv2.resize(hole, size, interpolation=cv2.INTER_AREA)
    small: Any = cv2.resize(filled, size, interpolation=cv2.INTER_AREA)
    known = small_hole == 0
    if not known.any():
        return _mean_filled(filled, hole == 0, box)
    small = cv2.inpaint(small, (~known).astype(np.uint8) * 255, _RADIUS, cv2.INPAINT_NS)
    large: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    filled[y0:y1, x0:x1] = large[y0:y1, x0:x1]
    return filled


def _mean_filled(pixels: UInt8, known: Bool, box: Box) -> UInt8:
    """Fill a box, in place, with the mean of the known pixels: too little is known to continue it."""
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = np.rint(pixels[known].mean(axis=0)).astype(np.uint8)
    return pixels


def _size(pixels: UInt8) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
