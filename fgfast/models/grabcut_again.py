"""GrabCut's second look at a mask: the masks of other boxes, and one more cut without any box.

A box is where a mask of half a subject ends. So the mask's colours alone cut the whole image once more: the mask of a
whole subject comes again, that of a half grows into the other half, and that of nothing in particular floods the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgfast.models.grabcut import SURE, colour_bins, colour_odds, minimum_cut, principal
from fgfast.ops.evidence import DIGITS, LEAST, TOUCHES, Box, shrunk
from fgfast.ops.overlap import iou
from fgfast.ops.second_look import NUMBERS, disagreement, other_gap
from fgfast.records import Bool, Float32, Size, UInt8

ALONE = ("unstable without a box", "cut by the box")
"""The numbers of the cut without a box."""
WEIGHED = (*NUMBERS, *ALONE)
"""All numbers of a second look that may be weighed."""
OTHER = 0.5
"""1 - IoU from which two masks are not of one object, and more says no more: PASCAL VOC's usual half. Where several
subjects of one kind touch, the cut without a box is of all of them, and must not outweigh everything else."""
AT_SIDE, AT_SIDE_PIXELS = 0.06, 2
"""Of the box's width or height, and at least in pixels: so near to its side a mask ends there. It may exceed the box a
little (`fgfast.models.grabcut.SLACK`)."""
BEYOND = (4, 6, 8)
"""Pixels beyond the outline in which the colours must go on: the outline itself is blurred."""


def look_again(
    pixels: UInt8, box: Float32, bits: Bool, others: Sequence[Bool], banner_rows: int = 0, guess: bool = False
) -> dict[str, float]:
    """Return what a second look says of a mask.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        box: (4,) float32 x0 y0 x1 y1, the prompt, in pixels.
        bits: (H, W) bool, the mask.
        others: the masks of the five boxes of `fgfast.ops.second_look.boxes`, (H, W) bool each.
        banner_rows: rows at the bottom that are not part of the scene.
        guess: whether the box does not bound the subject; then "box gap, other boxes" is left out.

    Returns:
        Name -> number: those of `fgfast.ops.second_look` and of `without_box`.
    """
    height, width = bits.shape
    rows = max(0, height - max(0, banner_rows))
    found = disagreement(bits, others)
    if not guess:
        found["box gap, other boxes"] = other_gap(box, bits, others, Size(max(1, rows), width))
    return found | (without_box(pixels[:rows], bits[:rows], box) if rows and width else {})


def without_box(pixels: UInt8, bits: Bool, box: Float32) -> dict[str, float]:
    """Cut an image by the colours of a mask alone, at the size of `fgfast.ops.evidence`.

    Args:
        pixels: (H, W, 3) uint8 RGB, the scene.
        bits: (H, W) bool, the mask.
        box: (4,) float32, the prompt, in pixels.

    Returns:
        "unstable without a box": 1 - IoU of the mask and that cut, at most `OTHER`. "cut by the box": part of the
        outline that lies at sides of the box, and beyond which the cut goes on; sides at the image's border do not
        count. Empty for a mask that is nearly empty, or the whole image.
    """
    import cv2

    small, mask, within = shrunk(pixels, bits, box)
    if int(np.count_nonzero(mask)) < LEAST or mask.all():
        return {}
    bins = colour_bins(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), np.uint8))
    odds = colour_odds(bins, np.where(mask, SURE, 1 - SURE).astype(np.float32))
    cut = minimum_cut(odds, principal(small), np.zeros_like(mask))
    numbers = min(1 - iou(cut, mask), OTHER), _cut_by(mask, cut, within)
    return {name: round(max(number, 0.0), DIGITS) for name, number in zip(ALONE, numbers, strict=True)}


def _cut_by(mask: Bool, cut: Bool, box: Box) -> float:
    """Return the part of the outline at sides of the box beyond which a cut goes on."""
    import cv2

    height, width = mask.shape
    inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    ys, xs = np.nonzero(mask & (inner == 0))
    more = cut & ~mask
    # Places across and along the side, the side itself, whether it is the image's border, length, one pixel outwards.
    sides = (
        (xs, ys, box.x0, box.x0 <= TOUCHES, box.width, (0, -1)),
        (ys, xs, box.y0, box.y0 <= TOUCHES, box.height, (-1, 0)),
        (xs, ys, box.x1 - 1, box.x1 >= width - TOUCHES, box.width, (0, 1)),
        (ys, xs, box.y1 - 1, box.y1 >= height - TOUCHES, box.height, (1, 0)),
    )
    count = 0
    for across, along, side, border, length, (dy, dx) in sides:
        if border:
            continue
        goes_on = np.abs(across - side) <= max(AT_SIDE_PIXELS, AT_SIDE * length)
        for step in BEYOND:
            y, x = ys + step * dy, xs + step * dx
            goes_on &= more[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        count += len(np.unique(along[goes_on]))
    return min(count / len(ys), 1.0)
