"""The results of a run that a person should look at, most doubtful first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fgfast.io.decisions import decided_in
from fgfast.io.ledger_doubt import Doubtful, doubtful, ranked
from fgfast.ops.doubt import Flag, doubt
from fgfast.pipeline.flagging import weights_in
from fgfast.pipeline.twin import Twin
from fgfast.records import Status
from fgfast.review.outliers import unlike

WRITTEN: tuple[Status, ...] = ("done", "flagged")


@dataclass(frozen=True, slots=True)
class Item:
    """One result in the queue.

    Attributes:
        result: what the ledger says about it.
        doubt: how doubtful it is, 0..1.
        flags: what makes it so, strongest first; last, where it is, that it is unlike its class.
    """

    result: Doubtful
    doubt: float
    flags: tuple[Flag, ...]


def queue(
    twin: Twin,
    statuses: Collection[Status] = WRITTEN,
    limit: int | None = None,
) -> Iterator[Item]:
    """Yield the results of a run that nobody has decided, most doubtful first, equal ones in the data set's order.

    The order is that of the run, whose doubts are in its ledger. Numbers, doubts and statuses of all are in memory, and
    which are unlike their class; everything else is read as it is yielded.

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
    wanted = [
        (number, value)
        for number, value, status in zip(found.ids, found.doubts, found.statuses, strict=True)
        if status in statuses
    ]
    values = dict(wanted)
    del found
    for result in doubtful(ledger, [number for number, _ in wanted]):
        if left <= 0:
            return
        if result.key not in decided:
            own = doubt(result.numbers, weights).flags
            yield Item(result, values[result.id], (*own, *_of(others.get(result.id))))
            left -= 1


def _of(flag: Flag | None) -> tuple[Flag, ...]:
    return () if flag is None else (flag,)
