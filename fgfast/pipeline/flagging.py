"""The end of a run: which of its results are flagged, by their doubt among all.

While a run goes on, rows are flagged by rules. Which results are the most doubtful is known when all are there; it
depends on the numbers of the rows and on nothing else, so that a run that was killed and resumed ends with the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fgfast.config import Settings
from fgfast.errors import OutputRefusedError
from fgfast.files import read_regular
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_doubt import ranked, set_statuses
from fgfast.io.pack_rows import PACKED
from fgfast.ops.doubt import BUILT_IN, SURE, Weights, doubt
from fgfast.records import Status

MOST_REASONS = 3
"""Flags that are named as reasons, the strongest; the numbers of the others are in the ledger, too."""
NO_FLAG = "most doubtful"
"""The reason of a result that no flag was raised for, and that is among the most doubtful ones nevertheless."""


def flagging_of(settings: Settings) -> dict[str, Any]:
    """Return how the results of a run are flagged, as its ledger keeps it: an output suffices to do it again."""
    file = BUILT_IN if settings.doubt_weights is None else Path(settings.doubt_weights).expanduser()
    share = {"share": settings.flag_share, "least": settings.flag_least}
    return {"flags": settings.flags, **share, "weights": json.loads(read_regular(file))}


def weights_in(ledger: Ledger) -> Weights | None:
    """Return the weights that a run was judged with; None where its ledger has none.

    Raises:
        OutputRefusedError: what it has are no weights.
    """
    found = ledger.meta("flagging")
    if not isinstance(found, dict) or not found.get("weights"):
        return None
    try:
        return Weights.parse(json.dumps(found["weights"]).encode())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputRefusedError(f"{ledger.path} is damaged: its weights of the doubt are none ({error})") from error


def flag_doubtful(ledger: Ledger, decided: Collection[str] = ()) -> None:
    """Flag the most doubtful results of a run, and those that are surely wrong; the others are done.

    Results without a doubt keep their status, and so do those that a person decided and those of a pack; they count in
    the share.

    Args:
        ledger: of the run; where it was begun with flags "rules", nothing is changed.
        decided: keys of the samples that a person decided.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    how = ledger.meta("flagging")
    if not isinstance(how, dict) or how.get("flags") != "doubt" or type(how.get("share")) is not float:
        return
    found, weights = ranked(ledger), weights_in(ledger)
    count = _count(how, len(found.ids))
    rows: list[tuple[int, Status, tuple[str, ...]]] = []
    for place, (n, value, status) in enumerate(zip(found.ids, found.doubts, found.statuses, strict=True)):
        chosen = place < count or value >= SURE
        if status not in ("done", "flagged") or (status == "done" and not chosen):
            continue
        outcome = ledger.outcome(n)
        if outcome is None or outcome.stage == PACKED or outcome.key in decided:
            continue
        reasons = reasons_for(outcome.numbers, weights) if chosen else ()
        wanted: Status = "flagged" if chosen else "done"
        if (outcome.status, outcome.reasons) != (wanted, reasons):
            rows.append((n, wanted, reasons))
    set_statuses(ledger, rows)


def _count(how: Mapping[str, Any], results: int) -> int:
    """Return how many results are flagged: a share of all, but at least so many, unless the share is 0."""
    share, least = float(how["share"]), how.get("least")
    known = least if type(least) is int and share else 0  # an older run has no least number
    return max(math.floor(share * results + 0.5), min(known, results))


def reasons_for(numbers: Mapping[str, float], weights: Weights | None) -> tuple[str, ...]:
    """Return the names of the strongest flags that numbers raise; beside a sure one, the others say no more."""
    raised = doubt(numbers, weights).flags
    sure = [flag for flag in raised if math.isinf(flag.share)]
    return tuple(flag.name for flag in (sure or raised)[:MOST_REASONS]) or (NO_FLAG,)
