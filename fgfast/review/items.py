"""One entry as the page gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from fgfast.io.decisions import Decision
from fgfast.records import Outcome

MOST_SHARE = 20.0
"""What a flag adds to the doubt, at most, in nats of the odds: JSON has no infinity, which a sure flag adds."""


class Flag(Protocol):
    """A reason to doubt a mask; see `fgfast.ops.doubt.Flag`."""

    @property
    def name(self) -> str: ...
    @property
    def number(self) -> float: ...
    @property
    def share(self) -> float: ...
    @property
    def sentence(self) -> str: ...


def stamp(o: Outcome, revision: int) -> str:
    """Return a text that changes whenever an entry's image or mask does."""
    source = o.source.sha256 if o.source else b""
    said = f"{revision}\0{o.status}\0{o.twin}\0{o.offset}\0{o.twin_size}\0{o.box_reason}".encode(
        "utf-8", "surrogatepass"
    )
    return hashlib.sha256(said + b"\0" + (o.rle or b"") + b"\0" + source).hexdigest()[:16]


def item(
    o: Outcome,
    *,
    label: str,
    split: str,
    flags: Sequence[Flag],
    revision: int,
    decision: Decision | None,
    later: bool,
    problem: str,
) -> dict[str, Any]:
    """Return the fields of an entry.

    Args:
        o: its outcome.
        label: its class.
        split: its split.
        flags: what makes it doubtful, strongest first.
        revision: number of the last decision on it, 0 for none.
        decision: the decision in force on it.
        later: whether it was put off.
        problem: what is wrong with its files, for a person; empty for nothing.
    """
    shown = [
        {"name": f.name, "number": f.number, "share": min(f.share, MOST_SHARE), "sentence": f.sentence} for f in flags
    ]
    return {
        "id": o.id,
        "key": o.key,
        "class": label,
        "split": split,
        "status": o.status,
        "doubt": o.doubt,
        "flags": shown,
        "reasons": list(o.reasons),
        "size": list(o.size) if o.size else None,
        "twin_size": list(o.twin_size) if o.twin_size else None,
        "offset": list(o.offset),
        "box": None if o.box is None else [round(float(edge), 3) for edge in o.box],
        "box_reason": o.box_reason,
        "box_score": o.box_score,
        "box_name": o.box_name,
        "others": [list(other) for other in o.others],
        "revision": revision,
        "decision": None if decision is None else about(decision),
        "later": later,
        "detail": o.detail,
        "problem": problem,
        "stamp": stamp(o, revision),
    }


def about(decision: Decision) -> dict[str, Any]:
    """Return the fields of a decision, without its masks."""
    return {
        "number": decision.number,
        "verdict": decision.verdict,
        "how": decision.how,
        "cause": decision.cause,
        "note": decision.note,
        "who": decision.who,
        "when": decision.when,
        "seen": decision.seen,
        "undoes": decision.undoes,
    }


def problem_of(o: Outcome, twin: Any) -> str:
    """Return what is wrong with the files of an entry, in a sentence, or an empty text.

    Args:
        o: its outcome.
        twin: an open `fgfast.pipeline.twin.Twin`, of which only paths are used.
    """
    path = twin.path(o.key)
    try:
        found = path.stat()
        same = o.source is None or (found.st_size, found.st_mtime_ns) == o.source[:2]
        if not same and not twin.source_same(o):
            return "The source image has changed since the run, so masks of it may not fit any more."
    except OSError as error:
        why = getattr(error, "strerror", None) or error
        return (
            f"The source image {path} cannot be shown ({why}): put it back, or start this again with --root. The "
            "result and its mask are still shown."
        )
    if o.twin is not None and not twin.result(o).is_file():
        return "The written image is gone; the next fgfast convert makes it again."
    return ""
