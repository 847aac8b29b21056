"""The ledger's tables, and the rows of outcomes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from fgfast.files import FileStamp
from fgfast.records import Outcome, Size

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


def from_row(row: tuple[Any, ...]) -> Outcome:
    number, key, status, stage, reasons, numbers, doubt, detail, warnings, twin, width, height = row[:12]
    twin_width, twin_height, offset_x, offset_y, x0, y0, x1, y1, box_reason, box_score, box_name, others = row[12:24]
    area, rle, quality, stability, source_size, source_mtime, source_sha256, annotation, seconds = row[24:]
    return Outcome(
        key=key,
        status=status,
        stage=stage,
        reasons=_texts(reasons),
        detail=detail,
        twin=twin,
        size=None if width is None else Size(height, width),
        twin_size=None if twin_width is None else Size(twin_height, twin_width),
        offset=(offset_x, offset_y),
        box=None if x0 is None else np.array([x0, y0, x1, y1], np.float32),
        box_reason=box_reason,
        box_score=box_score,
        box_name=box_name,
        others=() if others == "[]" else tuple(map(tuple, json.loads(others))),
        area=area,
        rle=rle,
        quality=quality,
        stability=stability,
        numbers={} if numbers == "{}" else json.loads(numbers),
        doubt=doubt,
        warnings=_texts(warnings),
        source=None if source_size is None else FileStamp(source_size, source_mtime, source_sha256),
        annotation=annotation,
        seconds=json.loads(seconds),
        id=number,
    )


@lru_cache(maxsize=256)
def _texts(text: str) -> tuple[str, ...]:
    """Parse a JSON list of texts. Few lists differ, and parsing JSON is half the cost of reading a row."""
    return tuple(json.loads(text))
