"""Results that are unlike those of their own class: a sign of an error that no single image shows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Outcome

LEAST = 8
"""Images from which a class has a usual look: below it, a median and its spread are those of a few chance images."""
SPREAD = 1.4826
"""Median absolute deviations of a normal distribution in its standard deviation."""
FAR = 3.5
"""Robust standard deviations from which a value is an outlier (Iglewicz and Hoaglin, "How to Detect and Handle
Outliers", 1993)."""
MEASURES = ("share of the image", "fill of the box", "aspect", "parts")
"""What is compared: logarithm of the mask's area as a fraction of the image and of its box, logarithm of the box's
width over its height, number of parts."""
# Least robust deviation of each measure: where half a class is equal to the pixel, a pixel more is no outlier.
_FLOORS = (0.1, 0.05, 0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Outlier:
    """A result that is unlike those of its class.

    Attributes:
        key: the sample's key.
        label: its class.
        measure: the one of `MEASURES` by which it differs most.
        distance: from the class's median, in robust standard deviations; negative where it is below.
    """

    key: str
    label: str
    measure: str
    distance: float


def outliers(outcomes: Iterable[Outcome], labels: Mapping[str, str], far: float = FAR) -> list[Outlier]:
    """Return the results that are unlike those of their class, the most unlike first.

    Classes are compared with themselves only; one of fewer than `LEAST` results has no outliers, and neither have
    samples without a class.

    Args:
        outcomes: written results of a run; others are passed over.
        labels: key -> class.
        far: see `FAR`.
    """
    members: dict[str, list[tuple[str, tuple[float, ...]]]] = defaultdict(list)
    for outcome in outcomes:
        label = labels.get(outcome.key, "")
        if label and (measured := _measures(outcome)) is not None:
            members[label].append((outcome.key, measured))
    found = []
    for label, rows in members.items():
        if len(rows) < LEAST:
            continue
        distances = robust_distances(np.array([values for _, values in rows]))
        for (key, _), own in zip(rows, distances, strict=True):
            worst = int(np.nanargmax(np.abs(np.nan_to_num(own))))
            if abs(own[worst]) >= far:
                found.append(Outlier(key, label, MEASURES[worst], float(own[worst])))
    return sorted(found, key=lambda one: (-abs(one.distance), one.key))


def robust_distances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of values, (N, measures), from each column's median in robust standard deviations.

    NaN stands for a value that is not known, and is returned as it is.
    """
    import warnings

    with warnings.catch_warnings():  # a column of nothing but NaN has no median
        warnings.simplefilter("ignore", RuntimeWarning)
        median = np.nanmedian(values, axis=0)
        spread = SPREAD * np.nanmedian(np.abs(values - median), axis=0)
    result: NDArray[np.float64] = (values - median) / np.maximum(spread, _FLOORS[: values.shape[1]])
    return result


def _measures(o: Outcome) -> tuple[float, ...] | None:
    if o.twin is None or o.size is None or o.box is None or not o.area:
        return None
    x0, y0, x1, y1 = o.box.tolist()
    width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    parts = o.numbers.get("parts", math.nan)
    shares = o.area / (o.size.height * o.size.width), o.area / (width * height)
    return math.log(shares[0]), math.log(shares[1]), math.log(width / height), parts
