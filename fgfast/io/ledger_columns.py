"""What a list of all samples shows, as columns: a million rows take seconds, where outcomes take a minute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast.io.ledger import Ledger
from fgfast.io.ledger_paths import LONGEST, is_below
from fgfast.io.ledger_rows import check
from fgfast.records import STATUSES, Float32, UInt8

Int32 = NDArray[np.int32]
UInt32 = NDArray[np.uint32]

_LARGEST_ID = 1 << 32


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The N samples that have an outcome, in the data set's order.

    Attributes:
        ids: (N,) uint32, numbers in the ledger.
        keys: N keys.
        classes: names of classes, sorted; empty text where samples have none.
        labels: (N,) int32, index into `classes`.
        splits: names of splits, sorted.
        parts: (N,) int32, index into `splits`.
        statuses: (N,) uint8, index into `fgfast.records.STATUSES`.
        doubts: (N,) float32, 0..1; NaN where it was not estimated.
    """

    ids: UInt32
    keys: list[str]
    classes: list[str]
    labels: Int32
    splits: list[str]
    parts: Int32
    statuses: UInt8
    doubts: Float32


def columns(ledger: Ledger) -> Columns:
    """Read the columns of a ledger.

    The statuses and doubts come from indices, not from the rows of outcomes, which are a hundred times as long.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    database = ledger._database
    with database.reading():
        statuses = dict(database.rows("SELECT id, status FROM outcomes INDEXED BY outcomes_status"))
        doubts = dict(database.rows("SELECT id, doubt FROM outcomes INDEXED BY outcomes_doubt WHERE doubt IS NOT NULL"))
        check(set(statuses.values()) <= set(STATUSES), "a status is none")
        check(all(type(value) is float and 0 <= value <= 1 for value in doubts.values()), "a doubt is none")
        # Without ORDER BY, whose sort would copy all keys.
        rows = [
            row for row in database.rows("SELECT id, position, key, label, split FROM samples") if row[0] in statuses
        ]
        ids = [row[0] for row in rows]
        positions = [row[1] for row in rows]
        check(set(map(type, ids)) | set(map(type, positions)) <= {int}, "a number is none")
        check(all(0 < number < _LARGEST_ID for number in ids), "a number is too large, or none")
        keys = [row[2] for row in rows]
        check(all(map(is_below, keys)), "a key is none")
        order = np.lexsort((ids, positions)).tolist()
        classes, labels = _coded([rows[n][3] for n in order])
        splits, parts = _coded([rows[n][4] for n in order])
        codes = {status: number for number, status in enumerate(STATUSES)}
        ordered = [ids[n] for n in order]
        nan = float("nan")
        return Columns(
            ids=np.array(ordered, np.uint32),
            keys=[keys[n] for n in order],
            classes=classes,
            labels=labels,
            splits=splits,
            parts=parts,
            statuses=np.array([codes[statuses[number]] for number in ordered], np.uint8),
            doubts=np.array([doubts.get(number, nan) for number in ordered], np.float32),
        )


def _coded(names: list[str]) -> tuple[list[str], Int32]:
    """Return the names that occur, sorted, and the index of each."""
    check(set(map(type, names)) <= {str}, "a label is none")
    found = sorted(set(names))
    check(max(map(len, found), default=0) <= LONGEST, "a label is none")
    numbers = {name: number for number, name in enumerate(found)}
    return found, np.array([numbers[name] for name in names], np.int32)
