"""OUT/fgfast/decisions.sqlite: what people decided about the samples of an output; nothing in it is ever changed.

A decision is stored, durably, before anything that follows from it is written; then image, mask and row; then a second
row says that it is done. Whatever is deleted or made again, the decisions stay.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgfast.errors import OutputFailedError, UsageError
from fgfast.io.database import Database, memory
from fgfast.io.decision_rows import (
    CAUSES,
    DECISION_COLUMNS,
    KIND,
    VERDICTS,
    Decision,
    decision_of,
    decision_row,
    in_force,
    undecided,
)
from fgfast.io.ledger import many, transaction

__all__ = ["CAUSES", "FILE", "VERDICTS", "Decision", "Decisions", "decided_in", "in_force", "undecided"]

FILE = "decisions.sqlite"
"""Its name in OUT/fgfast."""

_ALL = f"SELECT {DECISION_COLUMNS}, finished.number IS NOT NULL FROM decisions LEFT JOIN finished USING (number)"
_MARKS = ", ".join("?" * len(DECISION_COLUMNS.split(",")))


class Decisions(contextlib.AbstractContextManager["Decisions"]):
    """A file of decisions; a context manager, for the thread that opens it. One process writes to it at a time."""

    def __init__(self, path: Path, write: bool = False) -> None:
        """Open the file.

        Args:
            path: the file. It may come from anybody; see fgfast.io.database.
            write: whether to create it where it is absent or empty, and to allow more decisions.

        Raises:
            OutputRefusedError: it is absent, or not a file of decisions, or a link, or damaged, or of another version.
        """
        self.path = path
        self._done: set[int] = set()
        self._database = Database(path, write, KIND)
        if write:
            self._database.connection.execute("PRAGMA synchronous = FULL")
        if self._database.empty and write:
            with transaction(self._database):
                for statement in KIND.schema:
                    self._database.connection.execute(statement)
        elif self._database.empty:  # a review was killed before it had a table
            self._database.replace_by(memory(KIND))

    @classmethod
    def named(cls, given: Path) -> Decisions:
        """Open the decisions that a person names: the file, or the output that holds it.

        Raises:
            UsageError: there is no such file.
            OutputRefusedError: see `Decisions`.
        """
        path = given / "fgfast" / FILE if given.is_dir() else given
        if not path.is_file():
            raise UsageError(f"there are no decisions in {given}: give a {FILE}, or an output that was reviewed")
        return cls(path if given.is_dir() else path.parent.resolve() / path.name)

    @property
    def empty(self) -> bool:
        """Whether the file had no tables when it was opened."""
        return self._database.empty

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        try:
            with contextlib.suppress(OutputFailedError):  # a full disk: they are found to be done when it is opened
                self.flush()
        finally:
            self._database.connection.close()

    def append(self, decisions: Sequence[Decision]) -> list[int]:
        """Store decisions that are still to be done, all or none, durably; return their numbers.

        Raises:
            OutputFailedError: the disk is full, read-only or failing; none is stored.
        """
        first = self._last() + 1
        numbers = list(range(first, first + len(decisions)))
        rows = [decision_row(replace(d, number=number)) for d, number in zip(decisions, numbers, strict=True)]
        with transaction(self._database):
            self._write_done()
            many(self._database, f"INSERT INTO decisions ({DECISION_COLUMNS}) VALUES ({_MARKS})", rows)
        self._done.clear()
        return numbers

    def finish(self, numbers: Iterable[int]) -> None:
        """Note that image, mask and row are as these decisions want them.

        That is stored with the next decisions, by `flush` or at the end, so that it costs no syncs of its own. After a
        kill before that, the decisions are carried out once more, which changes nothing.
        """
        self._done.update(numbers)

    def flush(self) -> None:
        """Store what `finish` noted.

        Raises:
            OutputFailedError: the disk is full, read-only or failing.
        """
        if self._done:
            with transaction(self._database):
                self._write_done()
            self._done.clear()

    def _write_done(self) -> None:
        rows = [(number,) for number in sorted(self._done)]
        many(self._database, "INSERT OR IGNORE INTO finished VALUES (?)", rows)

    def unfinished(self) -> list[Decision]:
        """Return the decisions that are stored, but not done, in the order of their numbers."""
        found = self._read(f"{_ALL} WHERE finished.number IS NULL ORDER BY number")
        return [decision for decision in found if not decision.done]

    def all(self) -> Iterator[Decision]:
        """Yield every decision, in the order of their numbers."""
        return self._read(f"{_ALL} ORDER BY number")

    def of(self, key: str) -> list[Decision]:
        """Return the decisions on a sample, in the order of their numbers."""
        return list(self._read(f"{_ALL} WHERE key = ? ORDER BY number", (key,)))

    def get(self, number: int) -> Decision | None:
        """Return the decision of this number, or None."""
        return next(self._read(f"{_ALL} WHERE number = ?", (number,)), None)

    def last(self, key: str = "") -> int:
        """Return the number of the last decision on a sample, or of all; 0 where there is none."""
        return self._last(key)

    def in_force(self) -> dict[str, Decision]:
        """Return key -> the accept, reject or mask that holds for it, after all undos, in the order of the keys.

        The image's file may have changed since: see `Decision.source`.
        """
        found: dict[str, Decision] = {}
        group: list[Decision] = []
        for decision in self._read(f"{_ALL} ORDER BY key, number"):
            if group and group[0].key != decision.key:
                if (held := in_force(group)) is not None:
                    found[held.key] = held
                group = []
            group.append(decision)
        if (held := in_force(group)) is not None:
            found[held.key] = held
        return found

    def digest(self) -> str:
        """Return a digest, in hexadecimal, of what is in force: verdicts, masks, boxes and images, not who or when."""
        return digest_of(self.in_force())

    def _last(self, key: str = "") -> int:
        which = ("WHERE key = ?", (key,)) if key else ("", ())
        ((number,),) = self._database.rows(f"SELECT max(number) FROM decisions {which[0]}", which[1])
        with self._database.reading():
            if number is not None and not (type(number) is int and 0 < number < 1 << 62):
                raise ValueError("a number is none")
        return number or 0

    def _read(self, query: str, values: Sequence[Any] = ()) -> Iterator[Decision]:
        with self._database.reading():
            for row in self._database.rows(query, values):
                decision = decision_of(row)
                yield replace(decision, done=True) if decision.number in self._done else decision


def digest_of(decisions: dict[str, Decision]) -> str:
    """Return a digest, in hexadecimal, of decisions that are in force; see `Decisions.digest`."""
    digest = hashlib.sha256()
    for key in sorted(decisions):
        d = decisions[key]
        box = b"" if d.box is None else d.box.tobytes()
        for part in (key.encode("utf-8", "surrogateescape"), d.verdict.encode(), d.source, box, d.mask or b""):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def decided_in(ours: Path) -> dict[str, Decision]:
    """Return key -> decision in force, of the folder OUT/fgfast; nothing where nobody decided anything.

    Raises:
        OutputRefusedError: see `Decisions`.
    """
    path = ours / FILE
    if not path.exists() and not path.is_symlink():
        return {}
    with Decisions(path) as decisions:
        return decisions.in_force()
