"""The sizes and shapes of a ledger's masks, as columns: what results are compared by with those of their class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.io.ledger import Ledger
from fgfast.io.ledger_rows import check

# Rows that are read at once, some 50 ms: whoever else reads waits for so long.
_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """The N written results that have a class and a mask.

    Attributes:
        ids: (N,) int64, numbers in the ledger.
        labels: (N,) int64, the number of each one's class.
        areas: (N, 1) float64, pixels of the mask.
        sizes: (N, 2) float64, width and height of the stored image.
        boxes: (N, 4) float64, the prompt in pixels.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    sizes: NDArray[np.float64]
    boxes: NDArray[np.float64]


def shapes(ledger: Ledger, pause: Callable[[], bool] = lambda: False) -> Shapes:
    """Read the shapes of a ledger's masks.

    Args:
        ledger: an open ledger.
        pause: called before every 10,000 rows; where it returns True, what was read so far is all.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    database = ledger._database
    query = (  # without an index, which would be sorted for each chunk again
        "SELECT id, label, area, width, height, x0, y0, x1, y1 FROM outcomes NOT INDEXED JOIN samples USING (id) "
        "WHERE outcomes.id > ? AND twin IS NOT NULL AND label != '' AND area > 0 AND width > 0 AND height > 0 "
        "AND x0 IS NOT NULL AND status IN ('done', 'flagged') ORDER BY outcomes.id LIMIT ?"
    )
    classes: dict[str, int] = {}
    ids, labels, numbers = [], [], []
    last = 0
    while not pause():
        with database.reading():
            rows: list[tuple[Any, ...]] = list(database.rows(query, (last, _AT_ONCE)))
            if not rows:
                break
            found, names, *columns = zip(*rows, strict=True)
            check(set(map(type, found)) == {int} and set(map(type, names)) == {str}, "a number is none")
            check({kind for column in columns for kind in set(map(type, column))} <= {int, float}, "a box is none")
            ids.append(np.array(found, np.int64))
            labels.append(np.array([classes.setdefault(name, len(classes)) for name in names], np.int64))
            numbers.append(np.array(columns, np.float64).T)
        last = int(found[-1])
    if not ids:
        none = np.zeros(0, np.int64)
        return Shapes(none, none, *(np.zeros((0, width)) for width in (1, 2, 4)))
    areas, sizes, boxes = np.split(np.concatenate(numbers), [1, 3], axis=1)
    return Shapes(np.concatenate(ids), np.concatenate(labels), areas, sizes, boxes)
