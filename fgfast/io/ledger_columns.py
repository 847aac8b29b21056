"""What a list of all samples shows, as columns: a million rows take seconds, where outcomes take a minute."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.io.database import Database
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_paths import LONGEST, is_below
from fgfast.io.ledger_rows import check
from fgfast.records import STATUSES, Float32, UInt8

Int32 = NDArray[np.int32]
UInt32 = NDArray[np.uint32]

_LARGEST_ID = 1 << 32
_NONE = 255  # of a sample that has no outcome yet


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
    with database.reading(), _without_collector():
        rows = _fetched(database, "SELECT id, position, key, label, split FROM samples ORDER BY id")
        if not rows:
            return _none()
        numbers, positions, keys, labels, splits = zip(*rows, strict=True)
        del rows
        check(set(map(type, numbers)) | set(map(type, positions)) == {int}, "a number is none")
        ids = np.array(numbers, np.int64)
        check(ids[0] > 0 and ids[-1] < _LARGEST_ID, "a number is too large, or none")
        _check_keys(keys)
        statuses = np.full(len(ids), _NONE, np.uint8)
        for code, status in enumerate(STATUSES):
            query = "SELECT id FROM outcomes INDEXED BY outcomes_status WHERE status = ?"
            found = np.array(_fetched(database, query, (status,)), np.int64).reshape(-1)
            statuses[_places(found, ids)] = code
        query = "SELECT id, doubt FROM outcomes INDEXED BY outcomes_doubt WHERE doubt IS NOT NULL"
        pairs = np.fromiter(_fetched(database, query), np.dtype([("id", np.int64), ("doubt", np.float64)]))
        check(bool(((pairs["doubt"] >= 0) & (pairs["doubt"] <= 1)).all()), "a doubt is none")
        doubts = np.full(len(ids), np.nan, np.float32)
        doubts[_places(pairs["id"], ids)] = pairs["doubt"]
        order = np.lexsort((ids, np.array(positions, np.int64)))
        order = order[statuses[order] != _NONE]
        in_order = order.tolist()
        classes, class_codes = _coded(labels)
        split_names, split_codes = _coded(splits)
        return Columns(
            ids=ids[order].astype(np.uint32),
            keys=[keys[n] for n in in_order],
            classes=classes,
            labels=class_codes[order],
            splits=split_names,
            parts=split_codes[order],
            statuses=statuses[order],
            doubts=doubts[order],
        )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Let Python's collector of circles rest: of ten million new objects it would find none, again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _fetched(database: Database, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a query at once, which takes two thirds of the time of one after the other."""
    database.renew()
    try:
        return database.connection.execute(query, values).fetchall()
    except sqlite3.DatabaseError as error:
        raise database.refused(error) from error


def _places(numbers: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where numbers are among ids, which are sorted."""
    places = np.searchsorted(ids, numbers)
    check(bool((places < len(ids)).all()) and bool((ids[places] == numbers).all()), "an outcome has no sample")
    return places


def _none() -> Columns:
    empty = np.zeros(0, np.int32)
    return Columns(empty.astype(np.uint32), [], [], empty, [], empty, empty.astype(np.uint8), empty.astype(np.float32))


def _check_keys(keys: Sequence[Any]) -> None:
    """Raise ValueError unless each key is a path below its folder. Ordinary ones are checked all at once."""
    check(set(map(type, keys)) == {str}, "a key is none")
    joined = "\n".join(keys)
    ordinary = joined.isascii() and not joined.startswith("/") and min(map(len, keys)) > 0
    odd = ("\\", "..", "\0", "\n/", ":")
    if not (ordinary and max(map(len, keys)) <= LONGEST and not any(text in joined for text in odd)):
        check(all(map(is_below, keys)), "a key is none")


def _coded(names: Sequence[Any]) -> tuple[list[str], Int32]:
    """Return the names that occur, sorted, and the index of each."""
    check(set(map(type, names)) <= {str}, "a label is none")
    found = sorted(set(names))
    check(max(map(len, found), default=0) <= LONGEST, "a label is none")
    numbers = {name: number for number, name in enumerate(found)}
    return found, np.fromiter(map(numbers.__getitem__, names), np.int32, len(names))
