"""Arithmetic on boxes (x0 y0 x1 y1, float32, in pixels of the stored image) and on sizes (height, width)."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Float32, Size

FLOAT_NOISE = 1e-3
"""Pixels by which an edge may differ from a whole number and still be treated as one: 0.07 * 100 is
7.000000000000001."""


def clip_box(box: Float32, size: Size) -> Float32:
    """Clip boxes, (4,) or (N, 4), to an image; a box outside it has no area."""
    height, width = size
    inside: Float32 = np.clip(box, 0, np.array([width, height, width, height], np.float32))
    return inside


def box_area(boxes: Float32) -> NDArray[Any]:
    """Return areas in square pixels: (4,) -> scalar, (N, 4) -> (N,). Inverted boxes have none."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    area: NDArray[Any] = sides[..., 0] * sides[..., 1]
    return area


def iou(boxes_a: Float32, boxes_b: Float32) -> Float32:
    """Return the intersection over union of every pair: (N, 4), (M, 4) -> (N, M) float32; 0 for boxes without area."""
    corners = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    opposite = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    common = box_area(np.concatenate([corners, opposite], axis=-1))
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None, :] - common
    overlap: Float32 = np.divide(common, union, out=np.zeros(common.shape, np.float32), where=union > 0)
    return overlap


def mask_box(bits: Bool) -> Float32 | None:
    """Return the tight box, (4,) float32, around the subject pixels of (H, W) bool; None where there are none."""
    rows = np.flatnonzero(bits.any(axis=1))
    if not rows.size:
        return None
    top, bottom = rows[0], rows[-1] + 1
    columns = np.flatnonzero(bits[top:bottom].any(axis=0))
    return np.array([columns[0], top, columns[-1] + 1, bottom], np.float32)


def crop_window(
    box: Float32, size: Size, mode: Literal["box", "square"] = "box", pad: float = 0.0
) -> tuple[int, int, int, int]:
    """Return the window, in whole pixels, for a crop around a box; it contains the padded box and is never empty.

    Args:
        box: (4,) float32, pixels of the stored image.
        size: of the image, in pixels.
        mode: "box" stays inside the image. "square" is as wide and high as the padded box's longer side; it is centred
            on the box, then moved inside the image, and exceeds it only where the image is too small.
        pad: added on each side, as a fraction of the box's longer side.

    Returns:
        x0 y0 x1 y1; right and bottom are exclusive.
    """
    if mode not in ("box", "square"):
        raise ValueError(f"mode must be 'box' or 'square', not {mode!r}")
    if not (math.isfinite(pad) and pad >= 0):
        raise ValueError(f"pad must be a fraction of the box's longer side, 0 or more, not {pad}")
    if min(size) < 1:
        raise ValueError(f"size must be at least 1 x 1, not {size}")
    if not np.isfinite(box).all():
        raise ValueError(f"box must be finite, not {box.tolist()}")
    left, top, right, bottom = clip_box(box, size).tolist()
    margin = pad * max(right - left, bottom - top)
    height, width = size
    x0, x1 = _whole(left - margin, right + margin, width)
    y0, y1 = _whole(top - margin, bottom + margin, height)
    if mode == "box":
        return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    side = max(x1 - x0, y1 - y0)
    x0, y0 = _slide(x0 + x1, side, width), _slide(y0 + y1, side, height)
    return x0, y0, x0 + side, y0 + side


def _whole(low: float, high: float, length: int) -> tuple[int, int]:
    """Widen an interval that overlaps [0, length] to whole pixels: at least one, inside the image."""
    first = min(math.floor(low + FLOAT_NOISE), length - 1)
    return first, max(math.ceil(high - FLOAT_NOISE), first + 1, 1)


def _slide(twice_centre: int, side: int, length: int) -> int:
    """Return the start of an interval of `side` pixels: centred, then moved into [0, length], or around it."""
    room = length - side
    return min(max((twice_centre - side) // 2, min(room, 0)), max(room, 0))


def down_first(before: tuple[int, ...], after: tuple[int, int]) -> bool:
    """Return whether the installed Pillow resizes down the columns before along the rows, which rounds differently.

    Before version 13 it never does. Since 13 it does where the height shrinks by more than twice as many pixels as the
    width (python-pillow/Pillow, pull request 9549; the rule was found by trying 6000 sizes, and tests check it against
    the installed version).

    Args:
        before, after: (height, width) in pixels.
    """
    import PIL

    lost = before[0] - after[0]
    return int(PIL.__version__.split(".")[0]) >= 13 and lost > 0 and lost > 2 * (before[1] - after[1])
