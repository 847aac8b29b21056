"""Numbers that speak for or against one mask, computed without any truth; `fgfast.ops.doubt` weighs them.

They are computed on the image shrunk to `SIDE` px, which lost nothing in the trial (../shared/review); its formulas are
used here, with colours in `fgfast.ops.contrast`. OpenCV's global state is neither read nor changed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fgfast import ops
from fgfast.ops.contrast import contrast
from fgfast.ops.geometry import box_area, clip_box, mask_box
from fgfast.ops.geometry import iou as box_iou
from fgfast.records import Bool, Float32, Size, UInt8

SIDE = 256
"""Pixels of the longer side of the shrunk image, in which all lengths below are."""
LEAST = 20
"""Pixels of a mask that has an outline and colours worth speaking of, as in the trial."""
PART_FROM = 0.02
"""A part of the mask counts from this fraction of it on: less is a speck."""
CUT_WITHIN = 2
"""Pixels of a box's side within which the outline lies on it: one for rounding, one for shrinking."""
TOUCHES = 1
"""Pixels from the image's border within which a box touches it."""
BLUR = 1.2
"""Pixels, standard deviation: noise goes, the edges of subjects stay."""
DIGITS = 6
"""Decimals of the numbers: the last digits of logarithms differ between processors."""

NAMES = (
    "box gap",
    "fill",
    "outside the box",
    "straight cut",
    "border contact",
    "parts",
    "holes",
    "weak outline",
    "missing outline",
    "alike colours",
    "alike surroundings",
    "colour leaks out",
    "colour leaks in",
)
"""Names of the numbers; see `evidence`."""


class Box(NamedTuple):
    """A box in pixels of the shrunk image, clipped to it."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return max(self.x1 - self.x0, 1.0)

    @property
    def height(self) -> float:
        return max(self.y1 - self.y0, 1.0)


def evidence(pixels: UInt8, bits: Bool, box: Float32, banner_rows: int = 0, guess: bool = False) -> dict[str, float]:
    """Compute the numbers of one mask.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        box: (4,) float32 x0 y0 x1 y1, the prompt, in pixels; it may exceed the image.
        banner_rows: rows at the bottom that are not part of the scene.
        guess: whether the box does not bound the subject; then "box gap" and "fill" are left out.

    Returns:
        Name -> number, of `NAMES`; those that cannot be computed are absent. All are in 0..1 but "parts" and "holes".

        "box gap": 1 - IoU of the mask's box and the prompt. "fill": part of the box that is subject. "outside the
        box": part of the mask. "straight cut": the outline along the longest cut side of the box, as a part of it.
        "border contact": part of the outline at the image's border, on sides that the box does not touch. "parts":
        their number. "holes": their area as a part of the mask. "weak outline": mean rank of the edges under the
        outline among those nearby, 1 the weakest. "missing outline": part of the outline with less than the median.
        The others are in `fgfast.ops.contrast`.

    Raises:
        ValueError: the image and the mask differ in size.
    """
    if pixels.shape != (*bits.shape, 3):
        raise ValueError(f"pixels must be (H, W, 3) and bits (H, W), not {pixels.shape} and {bits.shape}")
    rows = len(bits) - min(max(banner_rows, 0), len(bits))
    if not rows or not bits.shape[1]:
        return {}
    small, mask, within = shrunk(pixels[:rows], bits[:rows], box)
    found = _of_the_box(mask, within, guess) if np.isfinite(box).all() else {}
    if int(np.count_nonzero(mask)) >= LEAST:
        found |= _of_the_shape(mask)
        found |= _of_the_outline(small, mask, within)
        found |= contrast(small, mask)
    return {name: round(found[name], DIGITS) for name in NAMES if name in found}


def shrunk(pixels: UInt8, bits: Bool, box: Float32) -> tuple[UInt8, Bool, Box]:
    """Return image (h, w, 3), mask (h, w) and box with a longer side of at most `SIDE` px."""
    height, width = bits.shape
    longer = max(height, width)
    inside = clip_box(np.nan_to_num(box), Size(height, width))
    if longer <= SIDE:
        return np.ascontiguousarray(pixels), np.ascontiguousarray(bits), Box(*inside.tolist())
    size = max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer))
    small, share = ops.area_average(pixels, size), ops.area_coverage(bits, size)
    scale = np.array([size[1] / width, size[0] / height] * 2)
    return small, np.asarray(share >= 128, np.bool_), Box(*(inside * scale).tolist())


def _of_the_box(mask: Bool, box: Box, guess: bool) -> dict[str, float]:
    """Compare the mask with the box."""
    area = int(np.count_nonzero(mask))
    x0, y0, x1, y1 = (round(edge) for edge in box)
    inside = int(np.count_nonzero(mask[y0:y1, x0:x1]))
    found: dict[str, float] = {}
    if not guess:
        prompt, around = np.array([box], np.float32), mask_box(mask)
        gap = 1.0 if around is None or not box_area(prompt)[0] else 1 - float(box_iou(around[None], prompt)[0, 0])
        found |= {"box gap": gap, "fill": min(inside / (box.width * box.height), 1.0)}
    if area:
        found["outside the box"] = (area - inside) / area
    return found


def _of_the_shape(mask: Bool) -> dict[str, float]:
    """Count parts, and measure holes."""
    areas, enclosed = ops.mask_parts(mask)
    area = int(areas.sum())
    return {"parts": float(np.count_nonzero(areas >= PART_FROM * area)), "holes": enclosed / area}


def _of_the_outline(pixels: UInt8, mask: Bool, box: Box) -> dict[str, float]:
    """Look where the outline runs, and whether the image has edges under it."""
    import cv2

    height, width = mask.shape
    inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outline = mask & (inner == 0)
    ys, xs = np.nonzero(outline)
    # Along, the side's place in it, whether the box touches the border there, and which pixels do.
    sides = (
        (xs, box.x0, box.x0 <= TOUCHES, 0, box.height),
        (ys, box.y0, box.y0 <= TOUCHES, 0, box.width),
        (xs, box.x1 - 1, box.x1 >= width - TOUCHES, width - 1, box.height),
        (ys, box.y1 - 1, box.y1 >= height - TOUCHES, height - 1, box.width),
    )
    cut, touching = 0.0, np.zeros(xs.shape, np.bool_)
    for along, place, touches, border, length in sides:
        if not touches:
            cut = max(cut, int(np.count_nonzero(np.abs(along - place) <= CUT_WITHIN)) / length)
            touching |= along == border
    found = {"straight cut": min(cut, 1.0), "border contact": int(np.count_nonzero(touching)) / len(xs)}
    outline[[0, -1]] = False  # of an outline that is the image's border nothing can be said
    outline[:, [0, -1]] = False
    if int(np.count_nonzero(outline)) >= LEAST:
        found |= _edges(pixels, mask, outline)
    return found


def _edges(pixels: UInt8, mask: Bool, outline: Bool) -> dict[str, float]:
    """Rank the edges under the outline among those near the mask."""
    import cv2

    smooth = cv2.cvtColor(cv2.GaussianBlur(pixels, (0, 0), BLUR), cv2.COLOR_RGB2LAB)
    weaker, upto, near = ops.outline_edges(smooth, mask, outline)
    return {"weak outline": 1 - float((weaker / near).mean()), "missing outline": float((upto <= near / 2).mean())}
