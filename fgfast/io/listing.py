"""flagged.csv and failed.csv: the images that a person should look at, complete and in the data set's order.

The files are UTF-8 with the columns of `COLUMNS`. Reasons are separated by "; ", and so are their numbers: the nth
number belongs to the nth reason, and is empty where a reason has none.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence

from fgfast.records import Outcome
from fgfast.writing import Target, replacing

FLAGGED, FAILED = "flagged.csv", "failed.csv"
COLUMNS = ("key", "twin", "reasons", "numbers", "detail", "x0", "y0", "x1", "y1")
"""x0 to y1 are the prompt, in pixels of the stored image; empty where there was none."""


@contextlib.contextmanager
def listings(folder: Target) -> Iterator[Callable[[Outcome], None]]:
    """Write both files of a run, from its outcomes as they are added; other outcomes are passed over.

    Args:
        folder: OUT/fgfast; the files exist, whole and durable, once the block ends without an error.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    with _table(folder / FLAGGED) as flagged, _table(folder / FAILED) as failed:
        tables = {"flagged": flagged, "failed": failed}

        def add(o: Outcome) -> None:
            if o.status in tables:
                tables[o.status](_row(o))

        yield add


@contextlib.contextmanager
def _table(target: Target) -> Iterator[Callable[[Sequence[str]], object]]:
    with replacing(target) as out, io.TextIOWrapper(out, encoding="utf-8", newline="") as text:
        add = csv.writer(text, lineterminator="\n").writerow
        add(COLUMNS)
        yield add


def _row(o: Outcome) -> list[str]:
    numbers = [f"{o.numbers[reason]:.4g}" if reason in o.numbers else "" for reason in o.reasons]
    numbered = "; ".join(numbers) if any(numbers) else ""
    box = [""] * 4 if o.box is None else [f"{edge:g}" for edge in o.box.tolist()]
    return [o.key, o.twin or "", "; ".join(o.reasons), numbered, o.detail, *box]
