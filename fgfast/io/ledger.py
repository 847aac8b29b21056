"""The ledger: one SQLite file per output folder, one row per sample, one writer.

An image is synced and renamed before its row is recorded. A row therefore proves that its image is whole; an image
without a row is made again. The ledger uses SQLite's rollback journal, not the write-ahead log, because that also works
on the network file systems of clusters.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import OutputFailedError, OutputLockedError, OutputRefusedError
from fgfast.records import STATUSES, Outcome, Size, Status

# "fgfa" in ASCII: marks a SQLite file as a ledger of fgfast.
_APPLICATION_ID = 0x66676661
_SCHEMA_VERSION = 2

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE outcomes (
    position    INTEGER PRIMARY KEY,  -- of the sample, in the data set's order
    key         TEXT NOT NULL UNIQUE,
    status      TEXT NOT NULL CHECK (status IN ('done', 'flagged', 'skipped', 'failed')),
    stage       TEXT NOT NULL,
    reasons     TEXT NOT NULL,        -- JSON list
    detail      TEXT NOT NULL,
    twin        TEXT,                 -- key of the written image
    width       INTEGER, height      INTEGER,  -- of the stored image
    twin_width  INTEGER, twin_height INTEGER,  -- of the written image
    offset_x    INTEGER NOT NULL, offset_y INTEGER NOT NULL,
    x0 REAL, y0 REAL, x1 REAL, y1 REAL,        -- the prompt
    box_reason  TEXT NOT NULL,
    others      TEXT NOT NULL,        -- JSON: boxes not chosen, each [x0, y0, x1, y1, score, name]
    area        INTEGER,
    rle         BLOB,                 -- COCO run-length string at the stored image's size
    quality     REAL,
    seconds     TEXT NOT NULL         -- JSON: stage -> seconds
)""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)

_COLUMNS = (
    "position, key, status, stage, reasons, detail, twin, width, height, twin_width, twin_height, offset_x, offset_y, "
    "x0, y0, x1, y1, box_reason, others, area, rle, quality, seconds"
)

_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class Ledger(contextlib.AbstractContextManager["Ledger"]):
    """The ledger of one output folder; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`, or create it.

        Raises:
            OutputRefusedError: the file is not an fgfast ledger, or a ledger of another version.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA synchronous = FULL")
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise OutputRefusedError(
                f"{path} is not a readable fgfast ledger ({error}); choose another --out"
            ) from error
        if application == 0 and version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            with self._transaction():
                for statement in _SCHEMA:
                    self._db.execute(statement)
        elif application != _APPLICATION_ID:
            raise OutputRefusedError(f"{path} is a SQLite file, but not a ledger of fgfast; choose another --out")
        elif version != _SCHEMA_VERSION:
            raise OutputRefusedError(
                f"{path} has ledger version {version}, but this fgfast reads only version {_SCHEMA_VERSION}; choose "
                "another --out, or delete this output and convert again"
            )

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Store values (anything that JSON can hold) under their names."""
        rows = _meta_rows(values)
        with self._transaction():
            self._db.executemany(_SET_META, rows)

    def meta(self, name: str) -> Any:
        """Return the value stored under `name`, or None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def record(self, rows: Iterable[tuple[int, Outcome]], meta: Mapping[str, Any] | None = None) -> None:
        """Record outcomes in one transaction. The row of a retried sample is replaced.

        Args:
            rows: each sample's position and outcome.
            meta: values to store in the same transaction, as `set_meta` does: a transaction costs four syncs (the
                journal twice, its folder, the database) however much it holds.
        """
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        recorded, stored = [_to_row(p, o) for p, o in rows], _meta_rows(meta or {})
        with self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO outcomes ({_COLUMNS}) VALUES ({marks})", recorded)
            self._db.executemany(_SET_META, stored)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:  # disk full, read-only, I/O error
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise OutputFailedError(
                f"cannot write {self.path}: {error}. Finished images are kept: free some space or repair the disk, "
                "then run the same command again"
            ) from error

    def finished(self) -> Iterator[tuple[str, str | None, Status]]:
        """Yield key, twin and status of each finished sample, not of failed ones, which a resumed run retries."""
        yield from self._db.execute("SELECT key, twin, status FROM outcomes WHERE status != 'failed'")

    def counts(self) -> dict[Status, int]:
        """Count the outcomes of each status."""
        found = dict(self._db.execute("SELECT status, count(*) FROM outcomes GROUP BY status").fetchall())
        return {status: found.get(status, 0) for status in STATUSES}

    def outcomes(self, statuses: Sequence[Status] = STATUSES) -> Iterator[Outcome]:
        """Yield the outcomes with one of these statuses, in the data set's order."""
        marks = ", ".join("?" * len(statuses))
        query = f"SELECT {_COLUMNS} FROM outcomes WHERE status IN ({marks}) ORDER BY position"
        for row in self._db.execute(query, tuple(statuses)):
            yield _from_row(row)


def _meta_rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, json.dumps(value, sort_keys=True)) for name, value in values.items()]


def _to_row(position: int, o: Outcome) -> tuple[Any, ...]:
    height, width = o.size or (None, None)
    twin_height, twin_width = o.twin_size or (None, None)
    box = [None] * 4 if o.box is None else [float(v) for v in o.box]
    return (
        *(position, o.key, o.status, o.stage, json.dumps(o.reasons), o.detail, o.twin),
        *(width, height, twin_width, twin_height, *o.offset, *box, o.box_reason),
        json.dumps(o.others),
        *(o.area, o.rle, o.quality, json.dumps({k: round(v, 6) for k, v in o.seconds.items()})),
    )


def _from_row(row: tuple[Any, ...]) -> Outcome:
    (_, key, status, stage, reasons, detail, twin, width, height, twin_width, twin_height, *rest) = row
    (offset_x, offset_y, x0, y0, x1, y1, box_reason, others, area, rle, quality, seconds) = rest
    return Outcome(
        key=key,
        status=status,
        stage=stage,
        reasons=_reasons(reasons),
        detail=detail,
        twin=twin,
        size=None if width is None else Size(height, width),
        twin_size=None if twin_width is None else Size(twin_height, twin_width),
        offset=(offset_x, offset_y),
        box=None if x0 is None else np.array([x0, y0, x1, y1], np.float32),
        box_reason=box_reason,
        others=() if others == "[]" else tuple(map(tuple, json.loads(others))),
        area=area,
        rle=rle,
        quality=quality,
        seconds=json.loads(seconds),
    )


@lru_cache(maxsize=256)
def _reasons(text: str) -> tuple[str, ...]:
    """Parse a JSON list of reasons. Few lists differ, and parsing JSON is half the cost of reading a row."""
    return tuple(json.loads(text))


class OutputLock(contextlib.AbstractContextManager["OutputLock"]):
    """A lock on an output folder, for one run. The system releases it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock file at `path`.

        Raises:
            OutputLockedError: another run holds it; the message names its process where known.
        """
        from filelock import FileLock, Timeout

        self._note = path.with_name(path.name + ".owner")
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = self._note.read_text().strip() if self._note.exists() else "unknown"
            raise OutputLockedError(
                f"another run (process {owner}) is writing to {path.parent.parent}: wait, or choose another --out"
            ) from None
        self._note.write_text(f"{os.getpid()} on {socket.gethostname()}\n")

    def __exit__(self, *exc: object) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()
