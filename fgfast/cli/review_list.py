"""`fgfast review --list`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.terminal import line, say, say_json

if TYPE_CHECKING:
    from fgfast.review.queue import Item


def print_queue(out: Path, as_json: bool, limit: int | None) -> None:
    """Print the queue of a run."""
    import json
    from itertools import islice

    from fgfast.pipeline.twin import Twin
    from fgfast.review.queue import queue

    with Twin.open(out) as twin:
        labels, splits = twin.labels(), twin.splits()
        items = islice(queue(twin, limit=limit), limit)
        if as_json:
            rows = [_described(item, labels, splits) for item in items]
            say_json(json.dumps(rows, indent=1))
            return
        count = 0
        for item in items:
            count += 1
            reasons = "; ".join(f"{flag.name} {flag.number:.2f}" for flag in item.flags[:3])
            say(line(f"{item.doubt:.3f}  {item.outcome.status:<8} {item.outcome.key}  ({reasons or 'no flag'})"))
        if not count:
            say("nothing is left to look at: no result has a doubt, or a person has decided on all of them")


def _described(item: Item, labels: dict[str, str], splits: dict[str, str]) -> dict[str, Any]:
    """Return an item as JSON can hold it; the share of a sure flag, which is infinite, is null."""
    o = item.outcome
    flags = [
        {
            "name": flag.name,
            "number": flag.number,
            "share": flag.share if math.isfinite(flag.share) else None,
            "sentence": flag.sentence,
        }
        for flag in item.flags
    ]
    return {
        "id": o.id,
        "key": o.key,
        "class": labels.get(o.key, ""),
        "split": splits.get(o.key, ""),
        "status": o.status,
        "doubt": item.doubt,
        "flags": flags,
    }
