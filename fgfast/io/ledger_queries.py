"""What a ledger can be asked: its queries, whose answers are checked, because the file may come from anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.files import FileStamp
from fgfast.io.database import Database
from fgfast.io.ledger_meta import meta_value
from fgfast.io.ledger_paths import LONGEST, is_below
from fgfast.io.ledger_rows import COLUMNS, FILE, FINISHED, check, check_types, fits, from_row, stamp
from fgfast.records import STATUSES, Outcome, Status

# Outcomes that are read at once; a statement takes a hundred values, and a row has kilobytes.
_AT_ONCE = 64


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


class LedgerQueries:
    """The queries of a ledger; `fgfast.io.ledger.Ledger` adds the changes.

    Args:
        path: its file.
        write: whether it is open for changes.

    Raises:
        OutputRefusedError: see `fgfast.io.ledger.Ledger`; of each query, too, where the file is damaged.
    """

    def __init__(self, path: Path, write: bool) -> None:
        self.path, self._write = path, write
        self._database = Database(path, write)
        self._db, self._rows, self._damaged = self._database.connection, self._database.rows, self._database.damaged

    def check(self) -> None:
        """Read the whole database.

        Raises:
            OutputRefusedError: it is damaged.
        """
        found = [text for (text,) in self._rows("PRAGMA quick_check")]
        if found != ["ok"]:
            raise self._damaged(found[0])

    def meta(self, name: str) -> Any:
        """Return the value stored under `name`, or None."""
        row = next(self._rows("SELECT value FROM meta WHERE name = ?", (name,)), None)
        with self._database.reading():
            return meta_value(name, row[0]) if row else None

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
