"""A second look: the same segmenter with other boxes. A mask that depends on the last pixel of its box is doubtful.

The boxes and formulas are those of the trial in ../shared/review.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fgfast.ops.geometry import box_area, clip_box, mask_box
from fgfast.ops.geometry import iou as box_iou
from fgfast.ops.overlap import iou
from fgfast.records import Bool, Float32, Size

SLIGHT = ((1.12, 0.0, 0.0), (0.94, 0.03, -0.03), (1.0, -0.04, 0.04))
"""Scale, and shift along x and y in widths and heights of the scaled box: what annotators are off by."""
LARGER = 1.35
"""Scale of a box that a right mask does not grow with."""
OWN = 1.06
"""Scale of the mask's own box: with it a right mask comes again."""
FROM_BOX = len(SLIGHT) + 1
"""Number of boxes that depend on the box alone: those before the mask's own."""
NUMBERS = ("unstable box", "grows with the box", "unstable own box", "box gap, other boxes")
"""The numbers that may be weighed; "unstable box, worst" says the same as the mean, and less steadily."""


def boxes(box: Float32, size: Size, mask_box: Float32 | None) -> list[Float32]:
    """Return the other boxes, (4,) float32 in pixels, clipped to the image.

    Args:
        box: (4,) float32, the prompt.
        size: of the image.
        mask_box: the box around the mask; None where the mask is empty: then the prompt again.

    Returns:
        Slightly looser, slightly tighter, shifted, much looser, the mask's own.
    """
    other = [_scaled(box, *change, size) for change in SLIGHT]
    other.append(_scaled(box, LARGER, 0.0, 0.0, size))
    other.append(clip_box(box, size) if mask_box is None else _scaled(mask_box, OWN, 0.0, 0.0, size))
    return other


def disagreement(bits: Bool, others: Sequence[Bool]) -> dict[str, float]:
    """Compare a mask with those of the other boxes.

    Args:
        bits: (H, W) bool, the mask.
        others: the masks of `boxes`, in that order and of that size; the last one may be missing.

    Returns:
        "unstable box": 1 - mean IoU of mask and slightly changed ones. "unstable box, worst": the largest 1 - IoU.
        "grows with the box": of the much looser box. "unstable own box": of the mask's own box.

    Raises:
        ValueError: there are more or fewer masks, or they differ in size.
    """
    if len(others) not in (FROM_BOX, FROM_BOX + 1):
        raise ValueError(f"others must be the masks of {FROM_BOX} or {FROM_BOX + 1} boxes, not {len(others)}")
    first, second, third = others[: len(SLIGHT)]
    pairs = [(bits, first), (bits, second), (bits, third), (first, second), (second, third)]
    slight = [iou(a, b) for a, b in pairs]
    found = {
        "unstable box": 1 - math.fsum(slight) / len(slight),
        "unstable box, worst": 1 - min(slight),
        "grows with the box": 1 - iou(bits, others[FROM_BOX - 1]),
    }
    if len(others) > FROM_BOX:
        found["unstable own box"] = 1 - iou(bits, others[FROM_BOX])
    return {name: max(number, 0.0) for name, number in found.items()}


def other_gap(box: Float32, bits: Bool, others: Sequence[Bool], size: Size) -> float:
    """Return how far masks are from the sides of their boxes: the median of a mask and those of slightly other boxes.

    One box may be off by so much that a right mask does not fit it; its neighbours are off otherwise.

    Args:
        box: (4,) float32, the prompt, in pixels.
        bits: (H, W) bool, its mask.
        others: the masks of `boxes`, in that order; those after the slightly changed ones are not used.
        size: of the scene, as given to `boxes`.

    Returns:
        The median of 1 - IoU of each mask's box and its prompt, 0..1; 1 counts for an empty mask.
    """
    prompts = [clip_box(box, size), *boxes(box, size, None)[: len(SLIGHT)]]
    gaps = []
    for prompt, mask in zip(prompts, (bits, *others[: len(SLIGHT)]), strict=True):
        around = mask_box(mask)
        missing = around is None or not box_area(prompt[None])[0]
        gaps.append(1.0 if missing or around is None else 1 - float(box_iou(around[None], prompt[None])[0, 0]))
    return float(np.median(gaps))


def _scaled(box: Float32, scale: float, dx: float, dy: float, size: Size) -> Float32:
    """Return a box scaled around its centre, then shifted, clipped to the image."""
    x0, y0, x1, y1 = box.tolist()
    width, height = (x1 - x0) * scale, (y1 - y0) * scale
    x, y = (x0 + x1) / 2 + dx * width, (y0 + y1) / 2 + dy * height
    return clip_box(np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2], np.float32), size)
