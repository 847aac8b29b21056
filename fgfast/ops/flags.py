"""Reasons to doubt a mask. A flagged image is still written, and a person should look at it."""

from __future__ import annotations

import numpy as np

from fgfast import ops
from fgfast.ops.geometry import box_area, clip_box, mask_box
from fgfast.records import Bool, Float32, Size

# These thresholds follow from the geometry described with each, not from measurements on data sets.

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
SHORT_FROM = 0.06
"""Largest gap between a side of the box and the mask, as a fraction of the box's width or height; fitted to photographs
with ground truth (bench/quality.py, docs/failures.md)."""
SHORT_PIXELS = 5
"""A gap of fewer pixels counts as none: boxes are drawn no better, however small."""
CUT_FROM = 0.3
"""Longest straight edge along a side of the box, as a fraction of that side. That of a circle which exceeds its box is
0.28; the fit to photographs would choose less."""
EDGE_BEYOND, EDGE_WITHIN = 0.05, 0.01
"""How far outside and inside the box's side a straight edge may be, as fractions of the box's width or height. Masks
may exceed a box a little (GrabCut's by 0.04), and then end there."""
EDGE_STRAIGHT = 0.02
"""How far an edge may stray and still be straight, as a fraction of the box's width or height."""


def flags(bits: Bool, box: Float32, banner_rows: int = 0, guess: bool = False) -> dict[str, float]:
    """Return the reasons to doubt a mask, each with the number that it was judged by; empty where there are none.

    Args:
        bits: (H, W) bool at the size of the stored image; True is subject.
        box: (4,) float32, the prompt, in pixels of the stored image.
        banner_rows: rows at the bottom that are never subject; they are ignored.
        guess: whether the box does not bound the subject; then no mask is "short of the box".

    Returns:
        Any of these, with a number in 0..1; "empty" comes alone, and at most one of "full" and "leaves the box" and
        one of "hugs the box" and "cut off by the box" is raised:

        "empty": subject pixels as a fraction of the box.
        "full": subject pixels as a fraction of the image.
        "leaves the box": the fraction of the subject's pixels outside the box.
        "hugs the box": subject pixels inside the box, as a fraction of it.
        "cut off by the box": see `straight_edge`.
        "short of the box": see `side_gap`.
        "fragments": the largest piece, as a fraction of the subject's pixels.
    """
    bits = bits[: max(bits.shape[0] - banner_rows, 0)]
    x0, y0, x1, y1 = _whole(bits, box)
    area, box_pixels = int(np.count_nonzero(bits)), float(box_area(clip_box(box, Size(*bits.shape))))
    if area == 0 or area < EMPTY_BELOW * box_pixels:
        return {"empty": area / box_pixels if box_pixels else 0.0}
    inside = bits[y0:y1, x0:x1]
    area_inside = int(np.count_nonzero(inside))
    found: dict[str, float] = {}
    if area >= FULL_FROM * bits.size and box_pixels < FULL_BOX_BELOW * bits.size:
        found["full"] = area / bits.size
    elif area - area_inside > LEAVES_FROM * area:
        found["leaves the box"] = (area - area_inside) / area
    if inside.size and area_inside >= HUGS_FROM * inside.size and _fills_corners(inside):
        found["hugs the box"] = area_inside / inside.size
    elif (edge := straight_edge(bits, box)) >= CUT_FROM:
        found["cut off by the box"] = edge
    if not guess and (gap := side_gap(bits, box)) >= SHORT_FROM:
        found["short of the box"] = gap
    if (largest := int(ops.mask_parts(bits)[0][0])) < FRAGMENTS_BELOW * area:
        found["fragments"] = largest / area
    return found


def side_gap(bits: Bool, box: Float32) -> float:
    """Return the largest gap between a side of the box and the mask inside it, as a fraction of the width or height.

    Args:
        bits: (H, W) bool; True is subject.
        box: (4,) float32, in pixels.

    Returns:
        0 where the mask reaches all four sides within `SHORT_PIXELS`, 1 where nothing of it is inside the box.
    """
    x0, y0, x1, y1 = _whole(bits, box)
    inside = bits[y0:y1, x0:x1]
    if not inside.size:
        return 0.0
    if (tight := mask_box(inside)) is None:
        return 1.0
    (height, width), (left, top, right, bottom) = inside.shape, tight.tolist()
    gaps = ((left, width), (top, height), (width - right, width), (height - bottom, height))
    return max((float(pixels / side) for pixels, side in gaps if pixels >= SHORT_PIXELS), default=0.0)


def straight_edge(bits: Bool, box: Float32) -> float:
    """Return the mask's longest straight edge along a side of the box, as a fraction of that side, in 0..1.

    It counts the rows (columns) of the box whose outermost subject pixel is near the side, as `EDGE_BEYOND` and
    `EDGE_WITHIN` say, and on one line. Sides so near the image's border that the image ends the subject do not count.

    Args:
        bits: (H, W) bool; True is subject.
        box: (4,) float32, in pixels.
    """
    view, (x0, y0, x1, y1) = bits, _whole(bits, box)
    longest = 0.0
    for _ in range(4):  # each side in turn is the left one
        longest = max(longest, _left_edge(view, x0, y0, x1, y1))
        width = view.shape[1]
        view, (x0, y0, x1, y1) = np.rot90(view), (y0, width - x1, y1, width - x0)
    return longest


def _left_edge(bits: Bool, x0: int, y0: int, x1: int, y1: int) -> float:
    """Return the straight edge along the left side of a box in whole pixels, as a fraction of that side."""
    width = x1 - x0
    first = x0 - max(1, round(EDGE_BEYOND * width))
    if first < 0 or width < 1 or y1 <= y0:
        return 0.0
    band = np.ascontiguousarray(bits[y0:y1, first : x0 + max(1, round(EDGE_WITHIN * width))])
    outermost = band.argmax(axis=1)
    ending = outermost[outermost > 0]  # in the other rows the mask goes on, or does not come near
    if not ending.size:
        return 0.0
    on_line = np.convolve(np.bincount(ending), np.ones(max(1, round(EDGE_STRAIGHT * width)), np.intp))
    return float(on_line.max()) / (y1 - y0)


def _whole(bits: Bool, box: Float32) -> tuple[int, int, int, int]:
    """Return a box clipped to the image, in whole pixels."""
    x0, y0, x1, y1 = (round(edge) for edge in clip_box(box, Size(*bits.shape)).tolist())
    return x0, y0, x1, y1


def _fills_corners(inside: Bool) -> bool:
    """Return whether all four corners of the box are filled."""
    side = max(1, round(CORNER_SIDE * min(inside.shape)))
    ends = (slice(None, side), slice(-side, None))
    corners = (inside[vertical, horizontal] for vertical in ends for horizontal in ends)
    return all(float(corner.mean()) >= CORNER_FROM for corner in corners)
