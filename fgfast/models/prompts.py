"""What a person clicks and draws to have a mask made, checked before any model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgfast.errors import UsageError
from fgfast.records import Bool, Float32, Size

# More than a person clicks on one subject; every point is a token of SAM's decoder, whose time grows with their number.
MOST_POINTS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """A box, points and strokes in one image.

    Attributes:
        points: (N, 2) float32 x y, pixels of the stored image, within it.
        labels: (N,) bool, True on the subject, False on the background.
        box: (4,) float32 x0 y0 x1 y1, pixels of the stored image, clipped to it; None without.
        subject: (H, W) bool, strokes on the subject; None without.
        background: the same for the background.
    """

    points: Float32
    labels: Bool
    box: Float32 | None = None
    subject: Bool | None = None
    background: Bool | None = None

    @classmethod
    def of(
        cls,
        size: Size | tuple[int, int],
        box: Sequence[float] | Float32 | None = None,
        points: Sequence[Sequence[float]] = (),
        strokes: tuple[Bool | None, Bool | None] | None = None,
    ) -> Prompts:
        """Check what a person asked for.

        Args:
            size: height and width of the stored image, in pixels.
            box: x0 y0 x1 y1, its corners in any order.
            points: (x, y, label) each; the label is 1 on the subject and 0 on the background.
            strokes: on the subject and on the background.

        Raises:
            UsageError: a number is not finite, a point is outside the image, the box is empty there, a stroke has
                another size, there are too many points, or nothing at all is asked for.
        """
        places, labels = _points(size, points)
        drawn = [None if bits is None or not bits.any() else bits for bits in strokes or (None, None)]
        for bits in drawn:
            if bits is not None and (bits.dtype != np.bool_ or bits.shape != tuple(size)):
                raise UsageError(f"a stroke is {bits.dtype} {bits.shape}, but the image is {tuple(size)}")
        corners = None if box is None else _box(size, box)
        if corners is None and not len(places) and all(bits is None for bits in drawn):
            raise UsageError("there is neither box, nor point, nor stroke: give one of them")
        return cls(places, labels, corners, *drawn)


def _points(size: tuple[int, int], points: Sequence[Sequence[float]]) -> tuple[Float32, Bool]:
    if len(points) > MOST_POINTS:
        raise UsageError(f"{len(points):,} points are more than the {MOST_POINTS} that are taken: draw strokes instead")
    try:
        found = np.array(points, np.float64).reshape(len(points), 3)
    except (ValueError, TypeError, OverflowError):
        raise UsageError("a point is x, y and a label, 1 on the subject and 0 on the background") from None
    height, width = size
    for x, y, label in found:
        if not (0 <= x <= width and 0 <= y <= height):
            raise UsageError(f"the point ({x:g}, {y:g}) is not in the image of {width} x {height} pixels")
        if label not in (0, 1):
            raise UsageError(f"a point's label is {label:g}, but must be 1 on the subject or 0 on the background")
    return found[:, :2].astype(np.float32), found[:, 2] == 1


def _box(size: tuple[int, int], box: Sequence[float] | Float32) -> Float32:
    try:
        corners = np.array(box, np.float64).reshape(4)
    except (ValueError, TypeError, OverflowError):
        raise UsageError("a box is four numbers, x0 y0 x1 y1") from None
    if not np.isfinite(corners).all():
        raise UsageError(f"the box {corners.tolist()} has a number that is not finite")
    height, width = size
    x0, x1 = np.sort(np.clip(corners[0::2], 0, width))
    y0, y1 = np.sort(np.clip(corners[1::2], 0, height))
    if not (x1 > x0 and y1 > y0):
        raise UsageError(f"the box {corners.tolist()} has no area in the image of {width} x {height} pixels")
    return np.array([x0, y0, x1, y1], np.float32)
