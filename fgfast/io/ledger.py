"""The ledger: one SQLite file per output folder, one row per sample, one writer.

An image is synced and renamed before its row is recorded. A row proves its files: it holds size, time and SHA-256 of
image and mask as they were encoded, and of the source as it was read. An image without a row is made again. The ledger
uses SQLite's rollback journal, not the write-ahead log, because that also works on the network file systems of
clusters.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgfast.errors import OutputFailedError
from fgfast.io.database import STEPS, STEPS_PER_ROW, Database, memory
from fgfast.io.ledger_queries import LedgerQueries
from fgfast.io.ledger_rows import COLUMNS, ID, MARKS, SCHEMA
from fgfast.records import Outcome, Sample

_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class Ledger(LedgerQueries, contextlib.AbstractContextManager["Ledger"]):
    """The ledger of one output folder; a context manager. What it can be asked is in `LedgerQueries`."""

    def __init__(self, path: Path, write: bool = True) -> None:
        """Open the ledger at `path`.

        Args:
            path: its file. It may come from anybody; see fgfast.io.database.
            write: whether to create it where it is absent or empty, and to allow changes.

        Raises:
            OutputRefusedError: the file is not an fgfast ledger, is a link, is damaged, or has another version.
        """
        super().__init__(path, write)
        if write:
            self._db.execute("PRAGMA synchronous = FULL")
        if self._database.empty and write:
            with transaction(self._database):
                for statement in SCHEMA:
                    self._db.execute(statement)
        elif self._database.empty:  # a run was killed before it had a ledger
            self._db = self._database.replace_by(memory())

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Store values (anything that JSON can hold) under their names."""
        rows = _meta_rows(values)
        with transaction(self._database):
            many(self._database, _SET_META, rows)

    def register(self, samples: Iterable[tuple[int, Sample]]) -> None:
        """Give each new sample the next number, and store every sample's position, label and split.

        Args:
            samples: position in the data set's order, and sample.
        """
        rows = [(s.key, position, s.label, s.split) for position, s in samples]
        with transaction(self._database):
            many(
                self._database,
                "INSERT INTO samples (key, position, label, split) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET position = excluded.position, label = excluded.label, split = excluded.split",
                rows,
            )

    def intend(self, keys: Sequence[str], paths: Sequence[str]) -> list[str]:
        """Record that these samples' files are about to be replaced; return the paths of their present files.

        The samples have no outcome until `record`: after a kill in between they are processed again, so that never the
        image of one mask lies beside the row of another.

        Args:
            keys: the samples.
            paths: the files that are about to appear, relative to the output folder.
        """
        ids = [(key,) for key in keys]
        with transaction(self._database):
            self._database.left += STEPS_PER_ROW * len(ids)
            query = f"SELECT path FROM files WHERE id = {ID}"
            old = [self._path(path) for key in ids for (path,) in self._db.execute(query, key)]
            if old:
                many(self._database, f"DELETE FROM files WHERE id = {ID}", ids)
            many(self._database, f"DELETE FROM data WHERE id = {ID}", ids)
            many(self._database, f"DELETE FROM outcomes WHERE id = {ID}", ids)
            many(self._database, _SET_META, _meta_rows({"committing": [*paths, *old]}))
        return old

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes of registered samples, their files and data, in one transaction, which replaces earlier ones.

        A transaction costs four syncs (the journal twice, its folder, the database) however much it holds.
        """
        outcomes = list(outcomes)
        rows = [(o.key, *to_row(o)) for o in outcomes]
        files = [(path, o.key, *stamp) for o in outcomes for path, stamp in o.files.items()]
        data = [(o.key, name, value) for o in outcomes for name, value in o.data.items()]
        with transaction(self._database):
            many(self._database, f"INSERT OR REPLACE INTO outcomes (id, {COLUMNS}) VALUES ({ID}, {MARKS})", rows)
            many(self._database, f"INSERT OR REPLACE INTO files VALUES (?, {ID}, ?, ?, ?)", files)
            if data:
                many(self._database, f"INSERT OR REPLACE INTO data VALUES ({ID}, ?, ?)", data)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the outcomes of samples that failed and are no longer wanted. Their numbers stay taken."""
        with transaction(self._database):
            many(self._database, f"DELETE FROM outcomes WHERE id = {ID}", [(key,) for key in keys])


def _meta_rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, json.dumps(value, sort_keys=True)) for name, value in values.items()]


@contextlib.contextmanager
def transaction(database: Database) -> Iterator[None]:
    """Do all that the block does to a ledger, or to decisions, or nothing.

    Raises:
        OutputRefusedError: the file is damaged.
        OutputFailedError: the disk is full, read-only or failing.
    """
    database.left = STEPS
    try:
        database.connection.execute("BEGIN")
        yield
        database.connection.execute("COMMIT")
    except BaseException as error:
        with contextlib.suppress(sqlite3.Error):
            database.connection.execute("ROLLBACK")
        if not isinstance(error, sqlite3.DatabaseError):
            raise
        # Malformed, of contents that contradict each other, or without end.
        if type(error) in (sqlite3.DatabaseError, sqlite3.IntegrityError) or "interrupt" in str(error):
            raise database.refused(error) from error
        if not isinstance(error, sqlite3.OperationalError):
            raise
        # The disk is full, read-only or failing.
        raise OutputFailedError(f"cannot write {database.path}: {error}. {database.kind.if_full}") from error


def many(database: Database, statement: str, rows: Collection[Sequence[Any]]) -> None:
    """Execute a statement for each row, inside a transaction."""
    database.left += STEPS_PER_ROW * len(rows)
    database.connection.executemany(statement, rows)


def to_row(o: Outcome) -> tuple[Any, ...]:
    """Return the row of an outcome: COLUMNS."""
    height, width = o.size or (None, None)
    twin_height, twin_width = o.twin_size or (None, None)
    box = [None] * 4 if o.box is None else [float(v) for v in o.box]
    return (
        *(o.status, o.stage, json.dumps(o.reasons), json.dumps(dict(o.numbers)), o.doubt, o.detail),
        *(json.dumps(o.warnings), o.twin, width, height, twin_width, twin_height, *o.offset, *box),
        *(o.box_reason, o.box_score, o.box_name, json.dumps(o.others), o.area, o.rle, o.quality, o.stability),
        *(o.source or (None, None, None)),
        *(o.annotation, json.dumps({k: round(v, 6) for k, v in o.seconds.items()})),
    )
