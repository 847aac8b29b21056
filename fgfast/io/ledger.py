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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.errors import OutputFailedError, OutputRefusedError
from fgfast.files import FileStamp
from fgfast.io.ledger_rows import APPLICATION_ID, COLUMNS, ID, MARKS, SCHEMA, SCHEMA_VERSION, from_row
from fgfast.records import STATUSES, Outcome, Sample, Status
from fgfast.writing import Target, check_in_place, check_same, held

# What SQLite may have beside a database.
_BESIDE = ("-journal", "-wal", "-shm")
_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class Row(NamedTuple):
    """What the ledger knows about one finished sample's files.

    Attributes:
        key: the sample's key.
        status: "done", "flagged" or "skipped".
        twin: key of its image in the twin; None where none was written.
        source: its image's file as it was read.
        annotation: see `Outcome`.
        files: path relative to the output folder -> stamp, of each written file.
    """

    key: str
    status: Status
    twin: str | None
    source: FileStamp | None
    annotation: bytes
    files: dict[str, FileStamp]


class Ledger(contextlib.AbstractContextManager["Ledger"]):
    """The ledger of one output folder; a context manager."""

    def __init__(self, path: Path, create: bool = True) -> None:
        """Open the ledger at `path`; create it where it is absent or empty, and `create`.

        Raises:
            OutputRefusedError: the file is not an fgfast ledger, is a link, is damaged, or has another version.
        """
        self.path = path
        target = Target.of(path.parent.parent, path)
        before = held(target) if create else check_in_place(target)
        for suffix in _BESIDE:  # SQLite opens them in place, too
            check_in_place(Target(target.root, target.name + suffix))
        if before is None:
            raise OutputRefusedError(f"there is no ledger {path}")
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA synchronous = FULL")
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise OutputRefusedError(
                f"{path} is not a readable fgfast ledger ({error}); choose another --out"
            ) from error
        check_same(target, before)  # SQLite opens the file when it first reads it
        if create and application == version == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            with self._transaction():
                for statement in SCHEMA:
                    self._db.execute(statement)
        elif application != APPLICATION_ID:
            raise OutputRefusedError(f"{path} is a SQLite file, but not a ledger of fgfast; choose another --out")
        elif version != SCHEMA_VERSION:
            raise OutputRefusedError(
                f"{path} has ledger version {version}, but this fgfast reads only version {SCHEMA_VERSION}; choose "
                "another --out, or delete this output and convert again"
            )

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def check(self) -> None:
        """Read the whole database.

        Raises:
            OutputRefusedError: it is damaged.
        """
        found = [text for (text,) in self._rows("PRAGMA quick_check")]
        if found != ["ok"]:
            raise self._damaged(found[0])

    def _rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        try:
            yield from self._db.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> OutputRefusedError:
        return OutputRefusedError(
            f"the ledger {self.path} is damaged ({why}): delete {self.path.parent.parent} and convert again, or choose "
            "another --out"
        )

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Store values (anything that JSON can hold) under their names."""
        rows = _meta_rows(values)
        with self._transaction():
            self._db.executemany(_SET_META, rows)

    def meta(self, name: str) -> Any:
        """Return the value stored under `name`, or None."""
        row = next(self._rows("SELECT value FROM meta WHERE name = ?", (name,)), None)
        return json.loads(row[0]) if row else None

    def register(self, samples: Iterable[tuple[int, Sample]]) -> None:
        """Give each new sample the next number, and store every sample's position, label and split.

        Args:
            samples: position in the data set's order, and sample.
        """
        rows = ((s.key, position, s.label, s.split) for position, s in samples)
        with self._transaction():
            self._db.executemany(
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
        with self._transaction():
            old = [path for key in ids for (path,) in self._db.execute(f"SELECT path FROM files WHERE id = {ID}", key)]
            if old:
                self._db.executemany(f"DELETE FROM files WHERE id = {ID}", ids)
            self._db.executemany(f"DELETE FROM outcomes WHERE id = {ID}", ids)
            self._db.executemany(_SET_META, _meta_rows({"committing": [*paths, *old]}))
        return old

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes of registered samples, with their files, in one transaction, which replaces earlier ones.

        A transaction costs four syncs (the journal twice, its folder, the database) however much it holds.
        """
        outcomes = list(outcomes)
        rows = [(o.key, *_to_row(o)) for o in outcomes]
        files = [(path, o.key, *stamp) for o in outcomes for path, stamp in o.files.items()]
        with self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO outcomes (id, {COLUMNS}) VALUES ({ID}, {MARKS})", rows)
            self._db.executemany(f"INSERT OR REPLACE INTO files VALUES (?, {ID}, ?, ?, ?)", files)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the outcomes of samples that failed and are no longer wanted. Their numbers stay taken."""
        with self._transaction():
            self._db.executemany(f"DELETE FROM outcomes WHERE id = {ID}", [(key,) for key in keys])

    def set_data(self, name: str, values: Mapping[str, bytes]) -> None:
        """Store a product of samples that is not a file, as key -> bytes."""
        rows = [(key, name, value) for key, value in values.items()]
        with self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO data VALUES ({ID}, ?, ?)", rows)

    def data(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yield key and value of each product of this name, in the data set's order."""
        yield from self._rows(
            "SELECT key, value FROM samples JOIN data USING (id) WHERE name = ? ORDER BY position, id", (name,)
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if type(error) is sqlite3.DatabaseError:  # malformed
                raise self._damaged(error) from error
            if not isinstance(error, sqlite3.OperationalError):
                raise
            # The disk is full, read-only or failing.
            raise OutputFailedError(
                f"cannot write {self.path}: {error}. Finished images are kept: free some space or repair the disk, "
                "then run the same command again"
            ) from error

    def finished(self) -> Iterator[Row]:
        """Yield the row of each finished sample, not of failed ones, which a resumed run retries."""
        columns = "id, key, status, twin, source_size, source_mtime_ns, source_sha256, annotation"
        files = self._rows("SELECT id, path, size, mtime_ns, sha256 FROM files ORDER BY id")
        group = next(files, None)
        query = f"SELECT {columns} FROM outcomes JOIN samples USING (id) WHERE status != 'failed' ORDER BY id"
        for number, key, status, twin, *source, annotation in self._rows(query):
            own: dict[str, FileStamp] = {}
            while group is not None and group[0] <= number:
                if group[0] == number:
                    own[group[1]] = FileStamp(*group[2:])
                group = next(files, None)
            yield Row(key, status, twin, None if source[0] is None else FileStamp(*source), annotation, own)

    def keys(self, status: Status) -> set[str]:
        """Return the keys of the samples with this status."""
        query = "SELECT key FROM outcomes JOIN samples USING (id) WHERE status = ?"
        return {key for (key,) in self._rows(query, (status,))}

    def paths(self) -> Iterator[str]:
        """Yield the path of every recorded file, relative to the output folder."""
        for (path,) in self._rows("SELECT path FROM files"):
            yield path

    def labels(self) -> dict[str, str]:
        """Return key -> class name of every registered sample."""
        return dict(self._rows("SELECT key, label FROM samples"))

    def counts(self) -> dict[Status, int]:
        """Count the outcomes of each status."""
        found = dict(self._rows("SELECT status, count(*) FROM outcomes GROUP BY status"))
        return {status: found.get(status, 0) for status in STATUSES}

    def outcomes(self, statuses: Sequence[Status] = STATUSES) -> Iterator[Outcome]:
        """Yield the outcomes with one of these statuses, in the data set's order, without their files."""
        marks = ", ".join("?" * len(statuses))
        query = (
            f"SELECT id, key, {COLUMNS} FROM samples JOIN outcomes USING (id) WHERE status IN ({marks}) "
            "ORDER BY position, id"
        )
        for row in self._rows(query, tuple(statuses)):
            yield from_row(row)


def _meta_rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, json.dumps(value, sort_keys=True)) for name, value in values.items()]


def _to_row(o: Outcome) -> tuple[Any, ...]:
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
