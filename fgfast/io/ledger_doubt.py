"""The results of a ledger by doubt: which are the most doubtful, and which of them count as flagged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fgfast.io.ledger import Ledger, many, transaction
from fgfast.io.ledger_rows import check
from fgfast.records import STATUSES, Status


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
        rows = list(database.rows("SELECT id, doubt FROM outcomes INDEXED BY outcomes_doubt WHERE doubt IS NOT NULL"))
        check(all(type(n) is int and type(doubt) is float and 0 <= doubt <= 1 for n, doubt in rows), "a doubt is none")
        if not rows:
            return Ranked([], [], [])
        places = dict(database.rows("SELECT id, position FROM samples INDEXED BY samples_position"))
        states = dict(database.rows("SELECT id, status FROM outcomes INDEXED BY outcomes_status"))
        check(all(type(places.get(n)) is int for n, _ in rows), "a position is none")
        check({states.get(n) for n, _ in rows} <= set(STATUSES), "a status is none")
    ids = np.array([n for n, _ in rows], np.int64)
    doubts = np.array([doubt for _, doubt in rows])
    order = np.lexsort((ids, np.array([places[n] for n in ids.tolist()], np.int64), -doubts))
    chosen = ids[order].tolist()
    return Ranked(chosen, doubts[order].tolist(), [states[n] for n in chosen])


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
