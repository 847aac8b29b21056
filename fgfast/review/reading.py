"""What the server reads of a run: in one thread, because SQLite's connections belong to the thread that opened them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fgfast.errors import UsageError
from fgfast.io.decisions import Decision, Decisions, in_force
from fgfast.io.ledger_columns import Columns, columns
from fgfast.records import Outcome

# Decisions that are looked at for one answer about what changed.
_MOST_CHANGES = 10_000


class Record(NamedTuple):
    """What is stored about one entry.

    Attributes:
        outcome: its outcome.
        revision: number of the last decision on it, 0 for none.
        decision: the decision in force on it.
    """

    outcome: Outcome
    revision: int
    decision: Decision | None


@dataclass(slots=True)
class Reading:
    """An open run, and its decisions; for the thread that opens it.

    Args:
        twin: an open `fgfast.pipeline.twin.Twin`.
        decisions: its file of decisions, which may come later.
    """

    twin: Any
    decisions_file: Any
    _decisions: Decisions | None = None
    _held: contextlib.ExitStack | None = None

    def close(self) -> None:
        if self._held is not None:
            self._held.close()

    @property
    def decisions(self) -> Decisions | None:
        """The decisions; None where nobody has decided anything."""
        if self._decisions is None and self.decisions_file.is_file() and self.decisions_file.stat().st_size:
            with contextlib.ExitStack() as held:
                opened = held.enter_context(Decisions(self.decisions_file))
                if not opened.empty:  # of a review that was killed at its very begin; another one will fill the file
                    self._decisions, self._held = opened, held.pop_all()
        return self._decisions

    def columns(self) -> Columns:
        """Return what is listed of all samples."""
        return columns(self.twin.output.ledger)

    def outcome(self, number: int) -> Outcome:
        """Return the outcome of this number.

        Raises:
            UsageError: there is none.
        """
        if (found := self.found(number)) is None:
            raise UsageError(f"there is no entry {number}")
        return found

    def found(self, number: int) -> Outcome | None:
        """Return the outcome of this number, or None.

        While a decision replaces its files it has no row, and what it was before is returned.
        """
        found: Outcome | None = self.twin.outcome(number)
        if found is not None or self.decisions is None:
            return found
        key = self.twin.output.ledger.key_of(number)
        about = self.decisions.of(key) if key else []
        was = about[-1].was if about and not about[-1].done else None
        # It may have been recorded meanwhile.
        return self.twin.outcome(number) or (None if was is None else replace(was, id=number))

    def record(self, number: int) -> Record:
        """Return what is stored about an entry.

        Raises:
            UsageError: there is none.
        """
        outcome = self.outcome(number)
        about = self.decisions.of(outcome.key) if self.decisions else []
        return Record(outcome, about[-1].number if about else 0, in_force(about))

    def records(self, numbers: Iterable[int]) -> list[Record]:
        """Return what is stored about entries, as they are now.

        Raises:
            UsageError: one of them is not there.
        """
        return [self.record(number) for number in numbers]

    def present(self, numbers: Iterable[int]) -> list[Record]:
        """Return what is stored about those of some entries that are there."""
        return [self.record(number) for number in numbers if self.found(number) is not None]

    def history(self, number: int) -> list[Decision]:
        """Return the decisions on an entry, newest first."""
        key = self.outcome(number).key
        return list(reversed(self.decisions.of(key))) if self.decisions else []

    def in_force(self) -> dict[str, Decision]:
        """Return key -> decision in force."""
        return self.decisions.in_force() if self.decisions else {}

    def last(self) -> int:
        """Return the number of the last decision, 0 for none."""
        return self.decisions.last() if self.decisions else 0

    def since(self, number: int) -> tuple[int, list[str]]:
        """Return the number of the last decision, and the keys of those after `number`."""
        last, keys = self.last(), []
        for later in range(max(number, last - _MOST_CHANGES) + 1, last + 1):
            decision = self.decisions.get(later) if self.decisions else None
            if decision is not None:
                keys.append(decision.key)
        return last, list(dict.fromkeys(keys))

    def flags(self, numbers: Sequence[int], flags_of: Callable[[Any], Sequence[Any]]) -> list[dict[str, str]]:
        """Return the flags of entries, each as name -> sentence; none where an entry is gone."""
        found = []
        for number in numbers:
            outcome = self.found(number)
            flags = flags_of(outcome) if outcome is not None else ()
            found.append({flag.name: flag.sentence for flag in flags})
        return found
