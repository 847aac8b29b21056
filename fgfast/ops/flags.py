"""Reasons to doubt a mask. A flagged image is still written, and a person should look at it."""

from __future__ import annotations

import numpy as np

from fgfast.ops.geometry import box_area, clip_box, mask_box
from fgfast.records import Bool, Float32, Size

# The thresholds follow from the geometry described with each, not from measurements on data sets.

EMPTY_BELOW = 0.01
"""Subject pixels as a fraction of the box: those of a line across it with a hundredth of its width."""
FULL_FROM = 0.95
"""Subject pixels as a fraction of the image: there is no background left."""
FULL_BOX_BELOW = 0.9
"""Box as a fraction of the image. A larger box itself indicates that the subject fills the image."""
HUGS_FROM = 0.95
"""Subject pixels inside the box, as a fraction of it. An ellipse covers pi/4; only rectangles reach 0.95."""
CORNER_SIDE = 0.05
"""Side of the four square corners that are checked, as a fraction of the box's shorter side. Rectangular subjects are
rounded: with a radius of a tenth of that side these corners are two thirds empty."""
CORNER_FROM = 0.5
"""Fraction from which a corner is filled; all four must be. Upsampling rounds real corners a little."""
FRAGMENTS_BELOW = 0.5
"""Largest piece as a fraction of the mask: below a half, no piece is the subject."""
LEAVES_FROM = 0.25
"""Fraction of the mask outside the box: more than a wing tip or tail beyond an inaccurate box."""

AGREEMENT = ("empty", "full", "leaves the box")
"""The flags that mean that mask and box disagree; the others are about a mask that a segmenter made."""


def flags(bits: Bool, box: Float32, banner_rows: int = 0) -> tuple[str, ...]:
    """Return the reasons to doubt a mask; empty where there are none.

    Args:
        bits: (H, W) bool at the size of the stored image; True is subject.
        box: (4,) float32, the prompt, in pixels of the stored image.
        banner_rows: rows at the bottom that are never subject; they are ignored.

    Returns:
        Any of "empty" (then nothing else), "full" or "leaves the box", "hugs the box", "fragments".
    """
    bits = bits[: max(bits.shape[0] - banner_rows, 0)]
    height, width = bits.shape
    box = clip_box(box, Size(height, width))
    x0, y0, x1, y1 = (round(edge) for edge in box.tolist())
    area, box_pixels = int(np.count_nonzero(bits)), float(box_area(box))
    if area == 0 or area < EMPTY_BELOW * box_pixels:
        return ("empty",)
    inside = bits[y0:y1, x0:x1]
    area_inside = int(np.count_nonzero(inside))
    found: list[str] = []
    if area >= FULL_FROM * bits.size and box_pixels < FULL_BOX_BELOW * bits.size:
        found.append("full")
    elif area - area_inside > LEAVES_FROM * area:
        found.append("leaves the box")
    if inside.size and area_inside >= HUGS_FROM * inside.size and _fills_corners(inside):
        found.append("hugs the box")
    if _largest_piece(bits) < FRAGMENTS_BELOW * area:
        found.append("fragments")
    return tuple(found)


def _fills_corners(inside: Bool) -> bool:
    """Return whether all four corners of the box are filled."""
    side = max(1, round(CORNER_SIDE * min(inside.shape)))
    ends = (slice(None, side), slice(-side, None))
    corners = (inside[vertical, horizontal] for vertical in ends for horizontal in ends)
    return all(float(corner.mean()) >= CORNER_FROM for corner in corners)


def _largest_piece(bits: Bool) -> int:
    """Return the number of pixels of the largest 8-connected piece of the mask."""
    import cv2

    tight = mask_box(bits)
    if tight is None:
        return 0
    x0, y0, x1, y1 = (int(edge) for edge in tight)
    image = np.ascontiguousarray(bits[y0:y1, x0:x1]).view(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    return int(statistics[1:, cv2.CC_STAT_AREA].max())
