"""Opens a SQLite file of an output, which may come from anybody, so that nothing in it acts.

To SQLite a database is a program: its schema is SQL that is compiled and run with every query, its pages may form a
tree without end, and the journal beside it may name any file of this machine, which SQLite deletes once it has rolled
the journal back. So the files are examined before SQLite opens them, the schema must be the one that fgfast makes, and
each query ends after a number of steps in proportion to the file's size.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from fgfast.errors import OutputLockedError, OutputRefusedError
from fgfast.io.database_kinds import LEDGER, Kind
from fgfast.io.sqlite_files import check_files
from fgfast.writing import Target, check_in_place, check_same, held

# The widest table has 33 columns, and the longest statement some hundred steps. A value is at most a mask's run-length
# string, which has a byte or two per pixel where it is longest; the largest image has 179 million pixels.
_LIMITS = {
    "LENGTH": 1 << 28,
    "SQL_LENGTH": 1 << 14,
    "COLUMN": 100,
    "EXPR_DEPTH": 20,
    "COMPOUND_SELECT": 2,
    "VDBE_OP": 10_000,
    "FUNCTION_ARG": 8,
    "ATTACHED": 0,
    "VARIABLE_NUMBER": 100,
    "TRIGGER_DEPTH": 1,
    "WORKER_THREADS": 0,
}
_OFF = ("ENABLE_TRIGGER", "ENABLE_VIEW", "ENABLE_LOAD_EXTENSION", "TRUSTED_SCHEMA", "DQS_DML", "DQS_DDL")

# SQLite asks every so many steps whether to go on. A row takes 20 bytes at least and a hundred steps to read or check;
# one that is written takes some hundred.
_ASKED_EVERY = 5000
STEPS, _STEPS_PER_BYTE, STEPS_PER_ROW = 1_000_000, 20, 5000
# How much smaller than its size a file may be on a disk that compresses; what is beyond that is a hole, and explains
# nothing.
_COMPRESSED = 8

# Seconds for which a connection waits for another one's transaction, whose syncs can take seconds on a busy disk.
_PATIENCE = 10

T = TypeVar("T")


class Database:
    """A SQLite file of an output, open. A connection belongs to the thread that opens it.

    Attributes:
        path: the file.
        kind: what it is.
        connection: to it; in autocommit mode.
        empty: whether the file has no content yet.
        left: steps that SQLite may still take; none left end the query.
    """

    def __init__(self, path: Path, write: bool, kind: Kind = LEDGER) -> None:
        """Open the file.

        Args:
            path: the file; no link is followed below the folder above its folder.
            write: whether it may be created and written to. Otherwise it is only read, but a transaction that a kill
                interrupted is rolled back in any case.
            kind: what it has to be.

        Raises:
            OutputRefusedError: it is something else, or not of this version.
        """
        self.path, self.kind = path, kind
        target = Target.of(path.parent.parent, path)
        interrupted = check_files(path, kind)
        before = held(target) if write else check_in_place(target)
        check_in_place(Target(target.root, f"{target.name}-journal"))  # SQLite opens it in place, too
        if before is None:
            raise OutputRefusedError(f"there is no {kind.name} {path}")
        mode = "rw" if write or interrupted else "ro"
        self.left = 0
        self._opened: tuple[int, int] | None = None
        try:
            self.connection = sqlite3.connect(_address(path, mode), uri=True, isolation_level=None, timeout=_PATIENCE)
        except sqlite3.DatabaseError as error:
            raise kind.unreadable(path, error) from error
        try:
            self.renew()
            self._confine()
            self.empty = self._identify()
            check_same(target, before)  # SQLite opens the file when it first reads it
            found = path.stat()
            self._opened = found.st_dev, found.st_ino
        except BaseException as error:
            self.connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise kind.unreadable(path, error) from error
            raise

    def _confine(self) -> None:
        for name in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            self.connection.execute(f"PRAGMA {name}")
        if hasattr(self.connection, "setlimit"):  # since Python 3.11
            for name, value in _LIMITS.items():
                self.connection.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{name}"), value)
        if hasattr(self.connection, "setconfig"):  # since Python 3.12
            for name in _OFF:
                self.connection.setconfig(getattr(sqlite3, f"SQLITE_DBCONFIG_{name}"), False)
            self.connection.setconfig(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009
        self.connection.set_progress_handler(self._step, _ASKED_EVERY)

    def _identify(self) -> bool:
        """Whether the file has no content yet; raise unless it is that, or of its kind and this version."""
        path, kind = self.path, self.kind
        application, version = (
            self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        wanted = _schema(kind)
        found = self.connection.execute("SELECT type, name, tbl_name, sql, rootpage FROM sqlite_master").fetchmany(
            len(wanted) + 1
        )
        if not application and not version and not found:
            return True
        if application != kind.application_id:
            raise OutputRefusedError(f"{path} is a SQLite file, but not {kind.a} of fgfast; {kind.way_out}")
        if version != kind.version:
            raise OutputRefusedError(
                f"{path} has {kind.name} version {version}, but this fgfast reads only version {kind.version}; "
                f"{kind.if_other_version}"
            )
        pages = {row[4] for row in found}
        if {row[:4] for row in found} != wanted or len(found) != len(wanted) or len(pages) != len(found):
            raise kind.not_ours(path, "its tables are not those that fgfast makes")
        if self.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":  # since it was rolled back
            raise kind.not_ours(path, "it has a write-ahead log, which fgfast never makes")
        return False

    def renew(self) -> None:
        """Begin a query, which may take as many steps as the file's content explains.

        Raises:
            OutputRefusedError: another file has its name now, because a run was begun anew. SQLite would take that
                one's journal for its own, and roll it back.
        """
        try:
            found = self.path.stat()
        except OSError:
            size = 0
        else:
            if self._opened not in (None, (found.st_dev, found.st_ino)):
                raise OutputRefusedError(f"{self.path} was made anew since it was opened: start the command again")
            held = getattr(found, "st_blocks", 0) * 512  # not known to every file system
            size = min(found.st_size, held * _COMPRESSED) if held else found.st_size
        self.left = STEPS + _STEPS_PER_BYTE * size

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        self.renew()
        try:
            for row in self.connection.execute(query, values):  # noqa: UP028  # which would close the cursor of a closed file
                yield row
        except sqlite3.DatabaseError as error:
            raise self.refused(error) from error

    def refused(self, error: sqlite3.DatabaseError) -> BaseException:
        """Return what to raise for an error of SQLite that is no failure of the disk."""
        if "locked" in str(error):
            return OutputLockedError(
                f"another process writes to {self.path}, for more than {_PATIENCE} s: try again later"
            )
        if "interrupt" not in str(error):
            return self.damaged(error)
        if self.left < 0:
            return self.damaged("it asks for more work than it has content")
        return KeyboardInterrupt()  # raised by a signal's handler, and lost in SQLite

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Report a value that no run writes as damage."""
        try:
            yield
        # What Python and JSON say about numbers that are too large and lists that nest too deeply.
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self.damaged(error) from error

    def damaged(self, why: object) -> OutputRefusedError:
        """Return the error of a file whose content is damaged."""
        return self.kind.damaged(self.path, why)

    def replace_by(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Close the file, and go on with another connection; return it."""
        self.connection.close()
        self.connection, self._opened = connection, None
        return connection

    def _step(self) -> bool:
        """Called by SQLite, in between also by signal handlers; end the query by True."""
        self.left -= _ASKED_EVERY
        return self.left < 0


def _address(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


@cache
def _schema(kind: Kind) -> frozenset[tuple[str, str, str, str | None]]:
    """Return type, name, table and SQL of everything that the schema of a kind holds."""
    with contextlib.closing(memory(kind)) as db:
        return frozenset(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def memory(kind: Kind = LEDGER) -> sqlite3.Connection:
    """Return an empty database in memory."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in kind.schema:
        db.execute(statement)
    return db
