"""The ledger's tables, and the rows of outcomes.

SQLite checks no types, and a ledger may come from anybody: every value is checked when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fgfast.files import FileStamp
from fgfast.io.ledger_paths import is_below
from fgfast.io.pixels import MAX_PIXELS
from fgfast.records import OtherBox, Outcome, Size

# "fgfa" in ASCII: marks a SQLite file as a ledger of fgfast.
APPLICATION_ID = 0x66676661
SCHEMA_VERSION = 3

SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE samples (
    id       INTEGER PRIMARY KEY,   -- given once per key and kept; the image's number in COCO files
    key      TEXT NOT NULL UNIQUE,
    position INTEGER NOT NULL,      -- in the data set's order, as last seen
    label    TEXT NOT NULL,
    split    TEXT NOT NULL
)""",
    "CREATE INDEX samples_position ON samples (position)",
    """CREATE TABLE outcomes (
    id          INTEGER PRIMARY KEY REFERENCES samples,
    status      TEXT NOT NULL CHECK (status IN ('done', 'flagged', 'skipped', 'failed')),
    stage       TEXT NOT NULL,
    reasons     TEXT NOT NULL,        -- JSON list
    numbers     TEXT NOT NULL,        -- JSON: flag -> the number that it was judged by
    doubt       REAL,
    detail      TEXT NOT NULL,
    warnings    TEXT NOT NULL,        -- JSON list
    twin        TEXT,                 -- key of the written image
    width       INTEGER, height      INTEGER,  -- of the stored image
    twin_width  INTEGER, twin_height INTEGER,  -- of the written image
    offset_x    INTEGER NOT NULL, offset_y INTEGER NOT NULL,
    x0 REAL, y0 REAL, x1 REAL, y1 REAL,        -- the prompt
    box_reason  TEXT NOT NULL,
    box_score   REAL,
    box_name    TEXT NOT NULL,
    others      TEXT NOT NULL,        -- JSON: boxes not chosen, each [x0, y0, x1, y1, score, name]
    area        INTEGER,
    rle         BLOB,                 -- COCO run-length string at the stored image's size
    quality     REAL,
    stability   REAL,
    source_size INTEGER, source_mtime_ns INTEGER, source_sha256 BLOB,
    annotation  BLOB NOT NULL,        -- digest of what the data set said about the sample
    seconds     TEXT NOT NULL         -- JSON: stage -> seconds
)""",
    "CREATE INDEX outcomes_status ON outcomes (status)",
    "CREATE INDEX outcomes_doubt ON outcomes (doubt)",
    """CREATE TABLE files (
    path     TEXT PRIMARY KEY,        -- relative to the output folder, POSIX
    id       INTEGER NOT NULL REFERENCES samples,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256   BLOB NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX files_id ON files (id)",
    """CREATE TABLE data (             -- products of a sample that are not files
    id    INTEGER NOT NULL REFERENCES samples,
    name  TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (id, name)
) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

COLUMNS = (
    "status, stage, reasons, numbers, doubt, detail, warnings, twin, width, height, twin_width, twin_height, offset_x, "
    "offset_y, x0, y0, x1, y1, box_reason, box_score, box_name, others, area, rle, quality, stability, source_size, "
    "source_mtime_ns, source_sha256, annotation, seconds"
)
MARKS = ", ".join("?" * len(COLUMNS.split(",")))
ID = "(SELECT id FROM samples WHERE key = ?)"


_KINDS = {"i": int, "f": float, "t": str, "b": bytes}
# The types of id, key and COLUMNS, and of the columns that a ledger reads of finished samples and of files, a letter
# per column: integer, real, text, bytes; in upper case where None is allowed.
_OUTCOME = "itttttFttTIIIIiiFFFFtFttIBFFIIBbt"
FINISHED, FILE = "ittTIIBb", "itiib"

SHORT = 1 << 16
"""Most characters of a name or a short JSON text."""
# Of a sentence, or the list of boxes that were not chosen.
_LONG = 1 << 20
_LARGEST_OFFSET, _LARGEST = 1 << 31, 1e30


def check_types(row: Sequence[Any], kinds: str) -> None:
    """Raise ValueError unless each value of a row has its column's type."""
    if not fits(row, kinds):
        raise ValueError("a value has another type than its column")


def fits(row: Sequence[Any], kinds: str) -> bool:
    """Whether each value of a row has its column's type."""
    return _fit(tuple(map(type, row)), kinds)


@lru_cache(maxsize=1024)
def _fit(found: tuple[type, ...], kinds: str) -> bool:
    """Whether types are those of their columns. Few combinations differ."""
    return len(found) == len(kinds) and all(
        one is _KINDS[kind.lower()] or (one is type(None) and kind.isupper())
        for one, kind in zip(found, kinds, strict=True)
    )


def check(true: object, what: str) -> None:
    """Raise ValueError unless something is true."""
    if not true:
        raise ValueError(what)


def stamp(size: Any, mtime_ns: Any, sha256: Any) -> FileStamp | None:
    """Return the stamp of a file, whose types have been checked; None where all of it is None."""
    if size is None and mtime_ns is None and sha256 is None:
        return None
    check(None not in (size, mtime_ns, sha256) and size >= 0 and len(sha256) == 32, "a file's stamp is none")
    return FileStamp(size, mtime_ns, sha256)


def _size(height: int | None, width: int | None) -> Size | None:
    if height is None or width is None:
        check(height is width, "a size is none")
        return None
    check(height > 0 and width > 0 and height * width <= MAX_PIXELS, "a size is none")
    return Size(height, width)


def from_row(row: tuple[Any, ...]) -> Outcome:
    """Return the outcome of a row: id, key, COLUMNS.

    Raises:
        ValueError: a value is none that a run of fgfast writes.
    """
    check_types(row, _OUTCOME)
    number, key, status, stage, reasons, numbers, doubt, detail, warnings, twin, width, height = row[:12]
    twin_width, twin_height, offset_x, offset_y, x0, y0, x1, y1, box_reason, box_score, box_name, others = row[12:24]
    area, rle, quality, stability, source_size, source_mtime, source_sha256, annotation, seconds = row[24:]
    _check_row(key, twin, rle, row)
    check(max(abs(offset_x), abs(offset_y)) < _LARGEST_OFFSET, "an offset is none")
    check(len({edge is None for edge in (x0, y0, x1, y1)}) == 1, "a box is none")
    return Outcome(
        key=key,
        status=status,
        stage=stage,
        reasons=_texts(reasons),
        detail=detail,
        twin=twin,
        size=_size(height, width),
        twin_size=_size(twin_height, twin_width),
        offset=(offset_x, offset_y),
        box=None if x0 is None else np.array([x0, y0, x1, y1], np.float32),
        box_reason=box_reason,
        box_score=box_score,
        box_name=box_name,
        others=() if others == "[]" else _others(others),
        area=area,
        rle=rle,
        quality=quality,
        stability=stability,
        numbers={} if numbers == "{}" else numbers_in(numbers),
        doubt=doubt,
        warnings=_texts(warnings),
        source=stamp(source_size, source_mtime, source_sha256),
        annotation=annotation,
        seconds=numbers_in(seconds),
        id=number,
    )


@lru_cache(maxsize=256)
def _texts(text: str) -> tuple[str, ...]:
    """Parse a JSON list of texts. Few lists differ, and parsing JSON is half the cost of reading a row."""
    found = json.loads(text)
    check(isinstance(found, list) and all(isinstance(one, str) for one in found), "a list of texts is none")
    return tuple(found)


def numbers_in(text: str) -> dict[str, float]:
    """Parse a JSON object of numbers.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(text)
    check(isinstance(found, dict), "an object of numbers is none")
    if set(map(type, found.values())) <= {float} and sum(map(abs, found.values())) < _LARGEST:  # false for NaN
        return found  # type: ignore[no-any-return]
    return {name: _finite(value) for name, value in found.items()}


def _others(text: str) -> tuple[OtherBox, ...]:
    """Parse the JSON list of the boxes that were not chosen."""
    boxes = json.loads(text)
    check(isinstance(boxes, list), "a list of boxes is none")
    for box in boxes:
        check(isinstance(box, list) and len(box) == 6 and isinstance(box[5], str), "a box is none")
    return tuple((*(_finite(value) for value in box[:5]), box[5]) for box in boxes)


def _finite(value: Any) -> float:
    check(isinstance(value, (int, float)), "a number is none")
    number = float(value)
    check(abs(number) < _LARGEST, "a number is too large, or none")
    return number


def _check_row(key: str, twin: str | None, rle: bytes | None, row: tuple[Any, ...]) -> None:
    """Check paths, lengths and numbers of a row whose types have been checked."""
    check(is_below(key) and (twin is None or is_below(twin)), "a key or a twin is no path below its folder")
    check(rle is None or rle.isascii(), "a mask is none")
    short = (row[3], row[4], row[5], row[8], row[20], row[22], row[32])
    check(max(map(len, short)) <= SHORT and max(len(row[7]), len(row[23])) <= _LONG, "a text is too long")
    for value in (row[6], *row[16:20], row[21], row[26], row[27]):
        check(value is None or -_LARGEST < value < _LARGEST, "a number is too large, or none")
    if twin is not None:
        check(rle is not None and row[10] is not None and row[12] is not None, "an image has no mask or no size")
