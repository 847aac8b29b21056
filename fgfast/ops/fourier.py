"""Elliptic Fourier descriptors of an outline (Kuhl and Giardina, 1982), computed by pyefd."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import MissingExtraError
from fgfast.ops.polygons import polygon_mask
from fgfast.records import Size

Floats = NDArray[np.float64]

# Points of the rebuilt outline for each harmonic: the fastest one then has twenty a period, and the polygon between
# them stays within 1 - cos(pi / 20), 1.2 % of its amplitude.
_POINTS = 20


class Descriptors(NamedTuple):
    """The descriptors of one outline.

    Attributes:
        harmonics: (order, 4) float64: a b c d of each harmonic, in pixels; x is the sum of a cos + b sin, y that of
            c cos + d sin, from the outline's first point on, clockwise as it is seen.
        centre: (x, y) of the outline, the series' constant, in continuous pixels.
        normalised: (order, 4) float64, without unit; see `normalised`.
        roundness: minor axis of the first harmonic's ellipse as a share of its major one, 0..1. Near 1 noise chooses
            the major axis, from which the normalised ones are counted.
    """

    harmonics: Floats
    centre: tuple[float, float]
    normalised: Floats
    roundness: float


def check_pyefd() -> None:
    """Raise MissingExtraError unless pyefd is installed."""
    try:
        import pyefd  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyefd", "expand", "computing elliptic Fourier descriptors") from None


def middles(ring: NDArray[np.int64]) -> Floats:
    """Return the middles of all pixel edges along an outline, (N, 2) float64, from its (M, 2) int64 corners.

    Joined, they cut the corners of the stairs, as marching squares does at the level of one half. Along the pixels'
    edges themselves, an outline at 45 degrees would be 1.41 times as long as it is.
    """
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(axis=1)
    first = np.repeat(np.arange(len(ring)), lengths)
    along = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    result: Floats = ring[first] + np.sign(steps)[first] * (along + 0.5)[:, None]
    return result


def descriptors(points: Floats, order: int) -> Descriptors:
    """Return the descriptors of a closed outline.

    Args:
        points: (N, 2) float64, x y in continuous pixels, N at least 3, clockwise as it is seen; the last point is
            joined to the first.
        order: the number of harmonics, at least 1.

    Raises:
        MissingExtraError: pyefd is not installed.
    """
    check_pyefd()
    import pyefd

    harmonics = np.asarray(pyefd.elliptic_fourier_descriptors(points, order=order), np.float64)
    x, y = pyefd.calculate_dc_coefficients(points)
    _, axes, _ = np.linalg.svd(harmonics[0].reshape(2, 2))
    return Descriptors(harmonics, (float(x), float(y)), normalised(harmonics), float(axes[1] / axes[0]))


def normalised(harmonics: Floats) -> Floats:
    """Return descriptors that do not depend on place, size, turn and starting point, (order, 4) float64.

    pyefd starts at an end of the first harmonic's major axis, turns that axis into x and divides by half of it. Which
    of the two ends it takes depends on how the subject is turned, and with it the sign of every even harmonic: here
    the largest number among the even harmonics is positive.

    Args:
        harmonics: (order, 4) float64.
    """
    import pyefd

    result = np.asarray(pyefd.normalize_efd(harmonics.copy()), np.float64)
    result *= np.copysign(1.0, result[0, 0])
    even = result[1::2]
    if even.size and even.flat[np.abs(even).argmax()] < 0:
        result[1::2] *= -1
    return result


def rebuilt(found: Descriptors, order: int | None = None) -> Floats:
    """Return the outline that descriptors describe, up to an order or all of it, (N, 2) float64, x y in pixels."""
    import pyefd

    harmonics = found.harmonics[:order]
    points = _POINTS * len(harmonics) + 1
    result = np.asarray(pyefd.reconstruct_contour(harmonics, found.centre, points), np.float64)
    return result[:-1]


def rebuilt_iou(ring: NDArray[np.int64], found: Descriptors, order: int | None = None) -> float:
    """Return the IoU of what an outline encloses and what its rebuilt one does, 0..1.

    Args:
        ring: (N, 2) int64, x y, the corners of the outline along pixel edges.
        found: its descriptors.
        order: the number of harmonics used; None uses all.
    """
    again = rebuilt(found, order)
    # Both are drawn in the box around them, with a pixel to spare.
    corner = np.floor(np.minimum(ring.min(axis=0), again.min(axis=0))) - 1
    wide, high = (np.ceil(np.maximum(ring.max(axis=0), again.max(axis=0))) + 1 - corner).astype(int).tolist()
    one, other = (polygon_mask(points - corner, Size(high, wide)) for points in (ring.astype(np.float64), again))
    return int(np.count_nonzero(one & other)) / max(int(np.count_nonzero(one | other)), 1)
