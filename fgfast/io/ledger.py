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
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.errors import OutputFailedError
from fgfast.files import FileStamp
from fgfast.io.database import STEPS, STEPS_PER_ROW, Database, memory
from fgfast.io.ledger_meta import meta_value
from fgfast.io.ledger_paths import LONGEST, is_below
from fgfast.io.ledger_rows import (
    COLUMNS,
    FILE,
    FINISHED,
    ID,
    MARKS,
    SCHEMA,
    check,
    check_types,
    fits,
    from_row,
    stamp,
)
from fgfast.records import STATUSES, Outcome, Sample, Status

# Outcomes that are read at once; a statement takes a hundred values, and a row has kilobytes.
_AT_ONCE = 64
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

    def __init__(self, path: Path, write: bool = True) -> None:
        """Open the ledger at `path`.

        Args:
            path: its file. It may come from anybody; see fgfast.io.database.
            write: whether to create it where it is absent or empty, and to allow changes.

        Raises:
            OutputRefusedError: the file is not an fgfast ledger, is a link, is damaged, or has another version.
        """
        self.path, self._write = path, write
        self._database = Database(path, write)
        self._db, self._rows, self._damaged = self._database.connection, self._database.rows, self._database.damaged
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

    def check(self) -> None:
        """Read the whole database.

        Raises:
            OutputRefusedError: it is damaged.
        """
        found = [text for (text,) in self._rows("PRAGMA quick_check")]
        if found != ["ok"]:
            raise self._damaged(found[0])

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Store values (anything that JSON can hold) under their names."""
        rows = _meta_rows(values)
        with transaction(self._database):
            many(self._database, _SET_META, rows)

    def meta(self, name: str) -> Any:
        """Return the value stored under `name`, or None."""
        row = next(self._rows("SELECT value FROM meta WHERE name = ?", (name,)), None)
        with self._database.reading():
            return meta_value(name, row[0]) if row else None

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
            many(self._database, f"DELETE FROM outcomes WHERE id = {ID}", ids)
            many(self._database, _SET_META, _meta_rows({"committing": [*paths, *old]}))
        return old

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes of registered samples, with their files, in one transaction, which replaces earlier ones.

        A transaction costs four syncs (the journal twice, its folder, the database) however much it holds.
        """
        outcomes = list(outcomes)
        rows = [(o.key, *to_row(o)) for o in outcomes]
        files = [(path, o.key, *stamp) for o in outcomes for path, stamp in o.files.items()]
        with transaction(self._database):
            many(self._database, f"INSERT OR REPLACE INTO outcomes (id, {COLUMNS}) VALUES ({ID}, {MARKS})", rows)
            many(self._database, f"INSERT OR REPLACE INTO files VALUES (?, {ID}, ?, ?, ?)", files)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the outcomes of samples that failed and are no longer wanted. Their numbers stay taken."""
        with transaction(self._database):
            many(self._database, f"DELETE FROM outcomes WHERE id = {ID}", [(key,) for key in keys])

    def set_data(self, name: str, values: Mapping[str, bytes]) -> None:
        """Store a product of samples that is not a file, as key -> bytes."""
        rows = [(key, name, value) for key, value in values.items()]
        with transaction(self._database):
            many(self._database, f"INSERT OR REPLACE INTO data VALUES ({ID}, ?, ?)", rows)

    def data(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Yield key and value of each product of this name, in the data set's order."""
        query = "SELECT key, value FROM samples JOIN data USING (id) WHERE name = ? ORDER BY position, id"
        for key, value in self._rows(query, (name,)):
            if not isinstance(value, bytes):
                raise self._damaged("a product is none")
            yield self._path(key), value

    def finished(self) -> Iterator[Row]:
        """Yield the row of each finished sample, not of failed ones, which a resumed run retries."""
        columns = "id, key, status, twin, source_size, source_mtime_ns, source_sha256, annotation"
        files = self._files(" ORDER BY id")
        group = next(files, None)
        query = f"SELECT {columns} FROM outcomes JOIN samples USING (id) WHERE status != 'failed' ORDER BY id"
        with self._database.reading():
            for row in self._rows(query):
                check_types(row, FINISHED)
                number, key, status, twin, *source, annotation = row
                own: dict[str, FileStamp] = {}
                check(status in STATUSES and is_below(key) and (twin is None or is_below(twin)), "a sample is none")
                while group is not None and group[0] <= number:
                    if group[0] == number and (found := stamp(*group[2:])):
                        own[group[1]] = found
                    group = next(files, None)
                yield Row(key, status, twin, stamp(*source), annotation, own)

    def _files(self, which: str = "", values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield id, path, size, time and SHA-256 of each file."""
        for row in self._rows(f"SELECT id, path, size, mtime_ns, sha256 FROM files{which}", values):
            if not (fits(row, FILE) and is_below(row[1])):
                raise self._damaged(f"it names a file in a way that no run does, {str(row[1])[:200]!r}")
            yield row

    def _path(self, path: Any) -> str:
        """Return a file's path, relative to the output folder; raise if it leads elsewhere."""
        if not is_below(path):
            raise self._damaged(f"it names a file outside the output, {str(path)[:200]!r}")
        return str(path)

    def keys(self, status: Status) -> set[str]:
        """Return the keys of the samples with this status."""
        query = "SELECT key FROM outcomes JOIN samples USING (id) WHERE status = ?"
        return {self._path(key) for (key,) in self._rows(query, (status,))}

    def stamps(self) -> Iterator[tuple[str, FileStamp]]:
        """Yield path, relative to the output folder, and stamp of every recorded file."""
        for row in self._files():
            yield row[1], FileStamp(*row[2:])

    def paths(self) -> Iterator[str]:
        """Yield the path of every recorded file, relative to the output folder."""
        for (path,) in self._rows("SELECT path FROM files"):
            yield self._path(path)

    def labels(self) -> dict[str, str]:
        """Return key -> class name of every registered sample."""
        return self._texts("label")

    def splits(self) -> dict[str, str]:
        """Return key -> split of every registered sample."""
        return self._texts("split")

    def _texts(self, column: str) -> dict[str, str]:
        found = {}
        for key, text in self._rows(f"SELECT key, {column} FROM samples"):
            if not isinstance(text, str) or len(text) > LONGEST:
                raise self._damaged(f"a {column} is none")
            found[self._path(key)] = text
        return found

    def counts(self) -> dict[Status, int]:
        """Count the outcomes of each status."""
        found = dict(self._rows("SELECT status, count(*) FROM outcomes GROUP BY status"))
        with self._database.reading():
            check(found.keys() <= set(STATUSES), "a status is none")
        return {status: found.get(status, 0) for status in STATUSES}

    def key_of(self, number: int) -> str | None:
        """Return the key of the sample with this number, or None."""
        row = next(self._rows("SELECT key FROM samples WHERE id = ?", (number,)), None)
        return None if row is None else self._path(row[0])

    def owner_of(self, path: str) -> str | None:
        """Return the key of the sample that a recorded file, relative to the output folder, belongs to, or None."""
        row = next(self._rows("SELECT key FROM files JOIN samples USING (id) WHERE path = ?", (path,)), None)
        return None if row is None else self._path(row[0])

    def outcome_of(self, key: str) -> Outcome | None:
        """Return a sample's outcome, with its files, or None."""
        query = f"SELECT id, key, {COLUMNS} FROM samples JOIN outcomes USING (id) WHERE key = ?"
        with self._database.reading():
            row = next(self._rows(query, (key,)), None)
            found = None if row is None else from_row(row)
        if found is None:
            return None
        return replace(found, files={row[1]: FileStamp(*row[2:]) for row in self._files(" WHERE id = ?", (found.id,))})

    def written(self) -> dict[tuple[str, str], int]:
        """Count the images of the twin: (class name, split) -> number."""
        query = "SELECT label, split, count(*) FROM samples JOIN outcomes USING (id) WHERE twin IS NOT NULL "
        return {(str(label), str(split)): n for label, split, n in self._rows(f"{query}GROUP BY label, split")}

    def outcomes(self, statuses: Sequence[Status] = STATUSES) -> Iterator[Outcome]:
        """Yield the outcomes with one of these statuses, in the data set's order, without their files."""
        every = tuple(statuses) == STATUSES  # any other status is an error then
        which = "" if every else f"WHERE status IN ({', '.join('?' * len(statuses))}) "
        joined, values = "FROM samples JOIN outcomes USING (id)", () if every else tuple(statuses)
        with self._database.reading():
            if self._write:
                for row in self._rows(f"SELECT id, key, {COLUMNS} {joined} {which}ORDER BY position, id", values):
                    yield from_row(row)
                return
            # Whoever only reads may work on each outcome, for which nobody who writes is to wait.
            numbers = [number for (number,) in self._rows(f"SELECT id {joined} {which}ORDER BY position, id", values)]
            for start in range(0, len(numbers), _AT_ONCE):
                some = numbers[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT id, key, {COLUMNS} {joined} WHERE id IN ({marks}) ORDER BY position, id"
                yield from map(from_row, [*self._rows(query, some)])

    def outcome(self, number: int) -> Outcome | None:
        """Return the outcome of the sample with this number, without its files, or None."""
        query = f"SELECT id, key, {COLUMNS} FROM samples JOIN outcomes USING (id) WHERE id = ?"
        with self._database.reading():
            row = next(self._rows(query, (number,)), None)
            return None if row is None else from_row(row)


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
