"""`fgfast review --list`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.terminal import line, say, say_json

if TYPE_CHECKING:
    from fgfast.review.queue import Item

# Results that are printed at once: each print is flushed, and a million of them would take a minute.
_AT_ONCE = 1000
# Flags that a line names, the strongest.
_NAMED = 3


def print_queue(out: Path, as_json: bool, limit: int | None) -> None:
    """Print the queue of a run; the results are read, and printed, some at a time."""
    from fgfast.pipeline.twin import Twin
    from fgfast.review.queue import queue

    with Twin.open(out) as twin:
        items = queue(twin, limit=limit)
        if as_json:
            _print_json(items)
            return
        count = 0
        while lines := [_line(item) for item in islice(items, _AT_ONCE)]:
            count += len(lines)
            say("\n".join(lines))
        if not count:
            say("nothing is left to look at: no result has a doubt, or a person has decided on all of them")


def _line(item: Item) -> str:
    reasons = "; ".join(f"{flag.name} {flag.number:.2f}" for flag in item.flags[:_NAMED])
    return f"{item.doubt:.3f}  {item.result.status:<8} {line(item.result.key)}  ({reasons or 'no flag'})"


def _print_json(items: Iterator[Item]) -> None:
    """Print a list, a result per line."""
    start = "["
    while rows := [json.dumps(_described(item)) for item in islice(items, _AT_ONCE)]:
        say_json(start + ",\n".join(rows))
        start = ","
    say_json("]" if start == "," else "[]")


def _described(item: Item) -> dict[str, Any]:
    """Return an item as JSON can hold it; the share of a sure flag, which is infinite, is null."""
    flags = [
        {
            "name": flag.name,
            "number": flag.number,
            "share": flag.share if math.isfinite(flag.share) else None,
            "sentence": flag.sentence,
        }
        for flag in item.flags
    ]
    found = item.result
    about = {"id": found.id, "key": found.key, "class": found.label, "split": found.split, "status": found.status}
    return {**about, "doubt": item.doubt, "flags": flags}
