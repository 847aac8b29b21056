"""Numbers of a silhouette: perimeter, solidity, the ellipse of equal moments, Hu's moments."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool


class Ellipse(NamedTuple):
    """The ellipse with the second moments of a mask.

    Attributes:
        x, y: centre, in continuous pixels.
        major, minor: axes, from end to end, in pixels.
        orientation: of the major axis, in radians from the x axis towards y (down), from -pi/2 to pi/2.
        eccentricity: 0 of a circle, towards 1 of a line.
    """

    x: float
    y: float
    major: float
    minor: float
    orientation: float
    eccentricity: float


def perimeter(bits: Bool) -> float:
    """Return the perimeter of a mask, (H, W) bool, in pixels, holes included, as Crofton's formula has it.

    How often lines in four directions enter the mask, times their distance, gives its mean projection; times pi, that
    is the perimeter. It hardly depends on how the subject is turned; the length of the pixels' edges does. Equal to
    skimage.measure.perimeter_crofton(directions=4).
    """
    inside = np.pad(bits, 1)
    straight = np.count_nonzero(~inside[:, :-1] & inside[:, 1:]) + np.count_nonzero(~inside[:-1] & inside[1:])
    falling = np.count_nonzero(~inside[:-1, :-1] & inside[1:, 1:])
    rising = np.count_nonzero(~inside[:-1, 1:] & inside[1:, :-1])
    return float(math.pi / 4 * (straight + (falling + rising) / math.sqrt(2)))


def hull_area(corners: NDArray[np.int64]) -> float:
    """Return the area of the convex hull of (N, 2) corners, x y, in square pixels."""
    import cv2

    return float(cv2.contourArea(cv2.convexHull(corners.astype(np.int32))))


def ellipse(bits: Bool) -> Ellipse:
    """Return the ellipse with the second moments of a mask, (H, W) bool, that is not empty.

    A pixel counts as a square of side 1, whose own second moment is 1/12 (MATLAB's regionprops).
    """
    ys, xs = np.nonzero(bits)
    x, y = float(xs.mean()), float(ys.mean())
    away_x, away_y = xs - x, ys - y
    xx, yy = float((away_x**2).mean()) + 1 / 12, float((away_y**2).mean()) + 1 / 12
    xy = float((away_x * away_y).mean())
    middle, apart = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    major, minor = middle + apart, max(middle - apart, 0.0)
    turn = 0.5 * math.atan2(2 * xy, xx - yy)
    return Ellipse(
        x + 0.5, y + 0.5, 4 * math.sqrt(major), 4 * math.sqrt(minor), turn, math.sqrt(max(1 - minor / major, 0.0))
    )


def hu_moments(bits: Bool) -> NDArray[np.float64]:
    """Return Hu's seven moments of a mask, (H, W) bool, as cv2.HuMoments has them: (7,) float64, no logarithms.

    They do not change where the subject is shifted, scaled or turned; the seventh changes its sign in a mirror.
    """
    import cv2

    moments = cv2.moments(np.ascontiguousarray(bits).view(np.uint8), binaryImage=True)
    return np.asarray(cv2.HuMoments(moments), np.float64).reshape(7)
