"""The results of a run that a person should look at, most doubtful first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fgfast.io.decisions import decided_in
from fgfast.io.ledger_doubt import ranked
from fgfast.ops.doubt import Flag, doubt
from fgfast.pipeline.flagging import weights_in
from fgfast.pipeline.twin import Twin
from fgfast.records import Outcome, Status
from fgfast.review.outliers import unlike

WRITTEN: tuple[Status, ...] = ("done", "flagged")


@dataclass(frozen=True, slots=True)
class Item:
    """One result in the queue.

    Attributes:
        outcome: its row.
        doubt: how doubtful it is, 0..1.
        flags: what makes it so, strongest first; last, where it is, that it is unlike its class.
    """

    outcome: Outcome
    doubt: float
    flags: tuple[Flag, ...]


def queue(
    twin: Twin,
    statuses: Collection[Status] = WRITTEN,
    limit: int | None = None,
) -> Iterator[Item]:
    """Yield the results of a run that nobody has decided, most doubtful first, equal ones in the data set's order.

    The order is that of the run, whose doubts are in its ledger; only the rows that are yielded are read whole.

    Args:
        twin: the run.
        statuses: the statuses to yield; results without a doubt are in no queue.
        limit: the most results to yield; None yields all.

    Raises:
        OutputRefusedError: the ledger or the decisions are damaged.
    """
    ledger = twin.output.ledger
    found, decided, weights = ranked(ledger), decided_in(twin.output.ours), weights_in(ledger)
    others = unlike(ledger) if found.ids else {}
    left = len(found.ids) if limit is None else limit
    for number, value, status in zip(found.ids, found.doubts, found.statuses, strict=True):
        if left <= 0:
            return
        if status not in statuses:
            continue
        outcome = twin.outcome(number)
        if outcome is not None and outcome.key not in decided:
            yield Item(outcome, value, (*doubt(outcome.numbers, weights).flags, *_of(others.get(number))))
            left -= 1


def _of(flag: Flag | None) -> tuple[Flag, ...]:
    return () if flag is None else (flag,)
