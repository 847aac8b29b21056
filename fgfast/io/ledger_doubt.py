"""The results of a ledger by doubt: which are the most doubtful, and which of them count as flagged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fgfast.io.database import Database
from fgfast.io.ledger import Ledger, many, transaction
from fgfast.io.ledger_paths import LONGEST, is_below
from fgfast.io.ledger_rows import SHORT, check, check_types, numbers_in
from fgfast.records import STATUSES, Status

# Results that are read with one query, which takes a hundred values.
_AT_ONCE = 100


class Ranked(NamedTuple):
    """The results whose doubt was estimated, most doubtful first, equally doubtful ones in the data set's order.

    Attributes:
        ids: numbers in the ledger.
        doubts: 0..1.
        statuses: of each.
    """

    ids: list[int]
    doubts: list[float]
    statuses: list[Status]


def ranked(ledger: Ledger) -> Ranked:
    """Read the doubts of a ledger; they come from indices, not from the rows, which are a hundred times as long.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    database = ledger._database
    with database.reading():
        query = "SELECT id, doubt FROM outcomes INDEXED BY outcomes_doubt WHERE doubt IS NOT NULL"
        ids, doubts = _columns(database, query, (int, float))
        check(bool(((doubts >= 0) & (doubts <= 1)).all()), "a doubt is none")
        if not len(ids):
            return Ranked([], [], [])
        numbers, positions = _columns(
            database, "SELECT id, position FROM samples INDEXED BY samples_position", (int, int)
        )
        order = np.argsort(numbers)
        places = np.minimum(np.searchsorted(numbers, ids, sorter=order), len(numbers) - 1)
        check(bool((numbers[order[places]] == ids).all()), "a position is none")
        order = np.lexsort((ids, positions[order[places]], -doubts))
        chosen = ids[order].tolist()
        states = dict(database.rows("SELECT id, status FROM outcomes INDEXED BY outcomes_status"))
        check({states.get(n) for n in chosen} <= set(STATUSES), "a status is none")
    return Ranked(chosen, doubts[order].tolist(), [states[n] for n in chosen])


def _columns(database: Database, query: str, kinds: tuple[type, type]) -> tuple[Any, Any]:
    """Return the two columns of a query as arrays of int64 and of int64 or float64."""
    rows = list(database.rows(query))
    first, second = zip(*rows, strict=True) if rows else ((), ())
    check({*map(type, first)} <= {kinds[0]} and {*map(type, second)} <= {kinds[1]}, "a number is none")
    return np.array(first, np.int64), np.array(second, np.int64 if kinds[1] is int else np.float64)


class Doubtful(NamedTuple):
    """What a list says about one result.

    Attributes:
        id: number in the ledger.
        key, label, split: of its sample.
        status: of it.
        numbers: see `fgfast.records.Outcome`.
    """

    id: int
    key: str
    label: str
    split: str
    status: Status
    numbers: dict[str, float]


def doubtful(ledger: Ledger, ids: Sequence[int]) -> Iterator[Doubtful]:
    """Yield the results with these numbers in the ledger, in their order; those that are gone are left out.

    Only what a list shows is read: a row as a whole is five times as long, and takes ten times as long.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    database = ledger._database
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        query = (
            "SELECT id, key, label, split, status, numbers FROM outcomes JOIN samples USING (id) "
            f"WHERE outcomes.id IN ({', '.join('?' * len(some))})"
        )
        with database.reading():
            rows = {row[0]: row for row in database.rows(query, some)}
            for number in some:
                if (row := rows.get(number)) is not None:
                    yield _doubtful(row)


def _doubtful(row: tuple[Any, ...]) -> Doubtful:
    check_types(row, "ittttt")
    number, key, label, split, status, numbers = row
    check(is_below(key), "a key is no path below its folder")
    check(max(len(label), len(split)) <= LONGEST and len(numbers) <= SHORT, "a text is too long")
    check(status in STATUSES, "a status is none")
    return Doubtful(number, key, label, split, status, numbers_in(numbers))


def set_statuses(ledger: Ledger, rows: Iterable[tuple[int, Status, tuple[str, ...]]]) -> None:
    """Set the status and the reasons of results, all in one transaction.

    Args:
        ledger: an open ledger.
        rows: number in the ledger, "done" or "flagged", and the reasons.
    """
    values = [(status, json.dumps(reasons), n) for n, status, reasons in rows]
    if values:
        with transaction(ledger._database):
            many(ledger._database, "UPDATE outcomes SET status = ?, reasons = ? WHERE id = ?", values)
