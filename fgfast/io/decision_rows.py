"""What a person decided about one sample, and the table of decisions.

A file of decisions may come from anybody: every value is checked when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fgfast.io.database_kinds import Kind
from fgfast.io.ledger import to_row
from fgfast.io.ledger_paths import is_below
from fgfast.io.ledger_rows import COLUMNS, check, check_types, from_row
from fgfast.io.pixels import MAX_PIXELS
from fgfast.records import Float32, Outcome, Size

CAUSES = ("subject not recognised", "wrong subject", "background left in", "subject incomplete")
"""The errors that the paper's authors mended by hand."""
VERDICTS = ("accept", "reject", "mask", "undo")

# "fgde" in ASCII: marks a SQLite file as decisions of fgfast.
APPLICATION_ID = 0x66676465
SCHEMA_VERSION = 1

# Nothing is ever changed or deleted: a decision is undone by another one, and finished by a row in a second table.
SCHEMA = (
    """CREATE TABLE decisions (
    number INTEGER PRIMARY KEY,
    key    TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('accept', 'reject', 'mask', 'undo')),
    how    TEXT NOT NULL,          -- accept, reject, box, points, brush, ...
    who    TEXT NOT NULL,
    moment TEXT NOT NULL,          -- ISO 8601, UTC
    seen   INTEGER NOT NULL,       -- number of the key's last decision that the person saw
    cause  TEXT NOT NULL,
    note   TEXT NOT NULL,
    doubt  REAL,
    source BLOB NOT NULL,          -- SHA-256 of the image's file
    height INTEGER, width INTEGER, -- of the stored image
    x0 REAL, y0 REAL, x1 REAL, y1 REAL,  -- the mask's prompt
    before BLOB,                   -- COCO run-length string at the stored image's size
    after  BLOB,
    undoes INTEGER NOT NULL,
    was    TEXT                    -- JSON: the outcome before, as the ledger's columns, without its mask
)""",
    "CREATE INDEX decisions_key ON decisions (key)",
    "CREATE TABLE finished (number INTEGER PRIMARY KEY REFERENCES decisions)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

KIND = Kind(
    name="file of decisions",
    a="a file of decisions",
    application_id=APPLICATION_ID,
    version=SCHEMA_VERSION,
    schema=SCHEMA,
    way_out="give another file, or move this one away to go on without it",
    if_other_version="use the fgfast that wrote it, or move it away to go on without its decisions",
    if_damaged="restore it from a copy, or move it away to go on without its decisions",
    if_full="Earlier decisions are kept: free some space or repair the disk, then decide again",
)

DECISION_COLUMNS = (
    "number, key, verdict, how, who, moment, seen, cause, note, doubt, source, height, width, x0, y0, x1, y1, before, "
    "after, undoes, was"
)
# The types of these columns and of "done"; see ledger_rows.
_TYPES = "ittttti" + "ttFbII" + "FFFF" + "BBiTi"

# Most characters.
LONGEST_WHO, LONGEST_HOW, LONGEST_NOTE = 200, 100, 10_000
_LONGEST_WAS = 1 << 22
_LARGEST = 1e30
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|\+00:00)")
# Halves of characters, which SQLite does not store.
_HALVES = re.compile("[\ud800-\udfff]")
# Where in the ledger's columns the bytes are, which JSON has not.
_NAMES = COLUMNS.split(", ")
_RLE = _NAMES.index("rle")
_BYTES = tuple(_NAMES.index(name) for name in ("source_sha256", "annotation"))


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a person decided about one sample.

    Attributes:
        key: the sample's key.
        verdict: one of `VERDICTS`.
        how: what it was made with: "accept", "reject", "box", "points", "brush", "lasso", "import", ...
        who: who decided, a person or a tool.
        when: ISO 8601, in UTC.
        seen: number of the last decision on this key that the person saw; 0 for none.
        cause: one of `CAUSES`, or empty.
        note: what the person wrote.
        doubt: the sample's doubt at that time, 0..1.
        source: SHA-256 of the image's file at that time; empty where it was not known.
        size: of the stored image, in pixels.
        box: the prompt of the new mask, (4,) float32 x0 y0 x1 y1 in pixels of the stored image.
        before: the mask before, a COCO run-length string at the stored image's size; None where there was none.
        after: the mask that was drawn, or that an undo brings back; None for accept and reject.
        undoes: number of the decision that this one undoes; 0 for none.
        was: the outcome before, without its files; None where the sample had none.
        number: counts from 1 in the order of decisions; 0 before it is stored.
        done: whether image, mask and row are as this decision wants them.
    """

    key: str
    verdict: str
    how: str
    who: str
    when: str
    seen: int
    cause: str = ""
    note: str = ""
    doubt: float | None = None
    source: bytes = b""
    size: Size | None = None
    box: Float32 | None = None
    before: bytes | None = None
    after: bytes | None = None
    undoes: int = 0
    was: Outcome | None = None
    number: int = 0
    done: bool = False

    def __post_init__(self) -> None:
        check(is_below(self.key), "a key is no path below its folder")
        check(self.verdict in VERDICTS, f"a verdict is none of {', '.join(VERDICTS)}")
        check(self.cause in ("", *CAUSES), f"a cause is none of {', '.join(CAUSES)}")
        check(_MOMENT.fullmatch(self.when), "a time is none, or not in UTC")
        texts = ((self.who, LONGEST_WHO), (self.how, LONGEST_HOW), (self.note, LONGEST_NOTE))
        check(all(len(text) <= most for text, most in texts), "a text is too long")
        check(not any(_HALVES.search(text) for text in (self.key, self.who, self.how, self.note)), "a text is none")
        check(self.doubt is None or 0 <= self.doubt <= 1, "a doubt is not in 0..1")
        check(len(self.source) in (0, 32), "a SHA-256 is none")
        check(self.size is None or 0 < self.size.height * self.size.width <= MAX_PIXELS, "a size is none")
        check(self.size is None or min(self.size) > 0, "a size is none")
        check(self.box is None or np.abs(self.box).max() < _LARGEST, "a box is none")
        masks = [mask for mask in (self.before, self.after) if mask is not None]
        check(all(mask.isascii() for mask in masks), "a mask is none")
        check(not masks or self.size is not None, "a mask has no size")
        check((self.verdict == "undo") == (self.undoes > 0), "an undo undoes nothing, or something else does")
        check(
            self.verdict != "mask" or (self.after is not None and self.box is not None), "a mask or its box is absent"
        )
        check(not self.number or (self.undoes < self.number > self.seen >= 0), "a number is not of an earlier decision")

    @property
    def mask(self) -> bytes | None:
        """The mask that holds from this decision on, a COCO run-length string: the accepted or the new one."""
        return self.before if self.verdict == "accept" else self.after


def in_force(decisions: Iterable[Decision]) -> Decision | None:
    """Return which of a sample's decisions holds: the last that is not undone. An undo can be undone, too."""
    undone: set[int] = set()
    for decision in sorted(decisions, key=lambda d: d.number, reverse=True):
        if decision.number in undone:
            continue
        if decision.verdict != "undo":
            return decision
        undone.add(decision.undoes)
    return None


def undecided(decisions: Sequence[Decision]) -> Decision | None:
    """Return the last decision before which none was in force: its `was` is what the run itself made."""
    ordered = sorted(decisions, key=lambda d: d.number)
    return next((d for n, d in reversed([*enumerate(ordered)]) if in_force(ordered[:n]) is None), None)


def decision_row(d: Decision) -> tuple[Any, ...]:
    """Return the row of a decision: DECISION_COLUMNS."""
    height, width = d.size or (None, None)
    box = [None] * 4 if d.box is None else [float(edge) for edge in d.box]
    return (
        *(d.number, d.key, d.verdict, d.how, d.who, d.when, d.seen, d.cause, d.note, d.doubt, d.source),
        *(height, width, *box, d.before, d.after, d.undoes, None if d.was is None else _written(d.was)),
    )


def decision_of(row: tuple[Any, ...]) -> Decision:
    """Return the decision of a row: DECISION_COLUMNS, done.

    Raises:
        ValueError: a value is none that fgfast writes.
    """
    check_types(row, _TYPES)
    number, key, verdict, how, who, when, seen, cause, note, doubt, source, height, width = row[:13]
    *edges, before, after, undoes, was, done = row[13:]
    check(number > 0 and (height is None) == (width is None), "a number or a size is none")
    check(len({edge is None for edge in edges}) == 1, "a box is none")
    check(all(edge is None or abs(edge) < _LARGEST for edge in edges), "a box is none")
    return Decision(
        key=key,
        verdict=verdict,
        how=how,
        who=who,
        when=when,
        seen=seen,
        cause=cause,
        note=note,
        doubt=doubt,
        source=source,
        size=None if height is None else Size(height, width),
        box=None if edges[0] is None else np.array(edges, np.float32),
        before=before,
        after=after,
        undoes=undoes,
        was=None if was is None else _read(key, was, before),
        number=number,
        done=bool(done),
    )


def _written(outcome: Outcome) -> str:
    columns = list(to_row(outcome))
    for n in _BYTES:
        columns[n] = None if columns[n] is None else columns[n].hex()
    columns[_RLE] = None
    return json.dumps(columns)


def _read(key: str, text: str, rle: bytes | None) -> Outcome:
    check(len(text) <= _LONGEST_WAS, "an outcome is too long")
    columns = json.loads(text)
    check(isinstance(columns, list) and len(columns) == len(_NAMES), "an outcome is none")
    for n in _BYTES:
        check(columns[n] is None or isinstance(columns[n], str), "an outcome is none")
        columns[n] = None if columns[n] is None else bytes.fromhex(columns[n])
    columns[_RLE] = rle
    return replace(from_row((0, key, *columns)), id=None)
