"""Results that are unlike those of their own class: a sign of an error that no single image shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fgfast.io.ledger import Ledger
from fgfast.io.ledger_shapes import Shapes, shapes
from fgfast.ops.doubt import Flag

NAME = "unlike its class"
SENTENCE = "The mask's size or shape is unlike those of its class."
"""What is said of all of them together."""
LEAST = 8
"""Images from which a class has a usual look: below it, a median and its spread are those of a few chance images."""
SPREAD = 1.4826
"""Median absolute deviations of a normal distribution in its standard deviation."""
FAR = 3.5
"""Robust standard deviations from which a value is an outlier (Iglewicz and Hoaglin, "How to Detect and Handle
Outliers", 1993)."""
_MEASURES = (
    ("The mask takes up unusually {} of the image for its class.", "little", "much"),
    ("The mask fills unusually {} of its box for its class.", "little", "much"),
    ("The box is unusually {} for its class.", "tall", "wide"),
)
"""What is compared, each as a logarithm: the mask's area as a fraction of the image and of its box, the box's width
over its height. Sentence, and its words for a value below and above that of the class."""
# Least robust deviation of each measure: where half a class is equal to the pixel, a pixel more is no outlier.
_FLOORS = (0.1, 0.05, 0.05)


def unlike(ledger: Ledger, pause: Callable[[], bool] = lambda: False) -> dict[int, Flag]:
    """Return the results of a run that are unlike those of their class, number in the ledger -> flag.

    The flag's number is the distance from the class's median in robust standard deviations. It adds nothing to the
    doubt: no error was planted in classes to weigh it by.

    Args:
        ledger: of the run.
        pause: see `fgfast.io.ledger_shapes.shapes`.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    return outliers(shapes(ledger, pause))


def outliers(found: Shapes, far: float = FAR) -> dict[int, Flag]:
    """Return the outliers of results, number -> flag.

    Classes are compared with themselves only; one of fewer than `LEAST` results has none.

    Args:
        found: the results.
        far: see `FAR`.
    """
    order = np.argsort(found.labels, kind="stable")
    _, starts = np.unique(found.labels[order], return_index=True)
    flags: dict[int, Flag] = {}
    values = _measures(found)
    for members in np.split(order, starts[1:]):
        if len(members) < LEAST:
            continue
        distances = robust_distances(values[members])
        worst = np.abs(distances).argmax(axis=1)
        distance = distances[np.arange(len(members)), worst]
        for n in np.flatnonzero(np.abs(distance) >= far).tolist():
            sentence, below, above = _MEASURES[worst[n]]
            said = sentence.format(below if distance[n] < 0 else above)
            flags[int(found.ids[members[n]])] = Flag(NAME, abs(float(distance[n])), 0.0, said)
    return flags


def robust_distances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of values, (N, measures), from each column's median in robust standard deviations."""
    away = values - np.median(values, axis=0)
    spread = SPREAD * np.median(np.abs(away), axis=0)
    result: NDArray[np.float64] = away / np.maximum(spread, _FLOORS)
    return result


def _measures(found: Shapes) -> NDArray[np.float64]:
    sides = np.maximum(found.boxes[:, 2:] - found.boxes[:, :2], 1.0)
    image, box = found.sizes.prod(axis=1), sides.prod(axis=1)
    area = found.areas[:, 0]
    result: NDArray[np.float64] = np.log(np.stack([area / image, area / box, sides[:, 0] / sides[:, 1]], axis=1))
    return result
