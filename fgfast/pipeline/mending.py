"""Decisions about the samples of an output are carried out: intent, then image, mask and row, then done.

A decision is stored durably before anything in the twin changes. After a kill, opening the output again finishes what
is stored and not done. The files about the whole twin follow in `Mender.finish`; until then they are marked as stale.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fgfast.errors import FgfastError, OutputFailedError, UsageError
from fgfast.io.decisions import FILE, Decision, Decisions
from fgfast.io.warned import captured
from fgfast.machine import available_cores
from fgfast.pipeline.changes import Change, Conflict, Left, Next, Refused, decided, undone
from fgfast.pipeline.expected import ExpectedTwin
from fgfast.pipeline.finish import Report, finish
from fgfast.pipeline.mended import MendedFiles
from fgfast.pipeline.reopened import ReopenedPlan, found_in, output_in, reopen
from fgfast.pipeline.resume import sweep_unrecorded
from fgfast.pipeline.work import Result
from fgfast.records import Outcome, Sample

__all__ = ["Change", "Conflict", "Left", "Mender", "Refused"]

Answer = Outcome | Conflict | Refused

_Asked = TypeVar("_Asked")


class Mender(contextlib.AbstractContextManager["Mender"]):
    """An output whose samples people decide about. It holds the output's lock, and belongs to the thread that opens it.

    Attributes:
        output: the output, locked, its ledger open.
        plan: the plan of the run that made it.
        decisions: the decisions, open.
        problems: what could not be finished of what a kill left, with reasons.
    """

    def __init__(self, out: Path, root: Path | None = None) -> None:
        """Open an output, and finish what a kill left.

        Args:
            out: the output folder.
            root: the data set's folder, where it has moved.

        Raises:
            OutputRefusedError: there is no run of fgfast, or it is damaged.
            OutputLockedError: another process writes to it.
            UsageError: the data set is not where it was.
            OutputFailedError: the disk is full, read-only or failing.
        """
        self._held = contextlib.ExitStack()
        self.output = output_in(out)
        self.problems: list[Refused] = []
        with contextlib.ExitStack() as opening:
            opening.enter_context(self.output)
            self.output.reopen()
            self.plan: ReopenedPlan = reopen(self.output, root)
            self.decisions = opening.enter_context(Decisions(self.output.ours / FILE, write=True))
            opening.enter_context(captured())
            pool = opening.enter_context(ThreadPoolExecutor(available_cores(), "mend"))
            self._files = MendedFiles(self.plan, self.output, pool, self.plan.unwritable)
            self._positions = self._files.positions
            self._unfinished = bool(self.decisions.unfinished())
            if self.output.ledger.meta("reviewing") or self._unfinished:  # killed
                self.output.sweep_temp_files()
                self.problems = self._catch_up()
            self._held.push(opening.pop_all())

    @classmethod
    def open(cls, out: Path, root: Path | None = None) -> Mender:
        """Open an output; see `Mender`."""
        return cls(out, root)

    def __exit__(self, *exc: object) -> None:
        with self._held, contextlib.suppress(FgfastError):  # a full disk: the next one to open finishes
            if self.output.ledger.meta("reviewing") and not self._unfinished:
                self.output.ledger.set_meta({"reviewing": False})

    @property
    def stale(self) -> bool:
        """Whether the files about the whole twin are older than the last decision."""
        return bool(self.output.ledger.meta("lists_stale"))

    def decide(self, changes: Sequence[Change], who: str) -> list[Answer]:
        """Carry out changes; all that can be made are durable together when this returns.

        Args:
            changes: at most one per sample.
            who: who decides.

        Returns:
            Per change: the sample's new outcome; a `Conflict` where somebody decided meanwhile; or why it was refused.

        Raises:
            UsageError: two changes are about one sample.
            OutputFailedError: the disk is full, read-only or failing. What was stored is finished by the next call, or
                when the output is opened again; what was not is as before.
        """
        if twice := [key for key, n in Counter(change.key for change in changes).items() if n > 1]:
            raise UsageError(f"two changes in one batch are about {twice[0]}: send one")

        def next_one(change: Change, number: int) -> Next | Conflict | Refused:
            found = self._known(change.key)
            if isinstance(found, Refused):
                return found
            return decided(change, found[0], found[1], self.decisions.of(change.key), number, who)

        return self._carry_out(changes, next_one, lambda change: change.key)

    def undo(self, numbers: Sequence[int], who: str) -> list[Answer]:
        """Undo decisions, of a batch or single ones, however old; an undo can be undone, too.

        A sample returns to the decision before, or to what the run made. Its image is cut out again from the mask that
        was stored; where the image's file is another one since, that is refused.

        Args:
            numbers: of the decisions.
            who: who undoes them.

        Returns, Raises: as `decide`. A `Conflict` says that the decision is undone already, or that another one on the
            sample came after it.
        """
        targets = [(number, self.decisions.get(number)) for number in dict.fromkeys(numbers)]
        missing = [number for number, target in targets if target is None]
        if missing:
            raise UsageError(f"there is no decision {missing[0]}; the last one is {self.decisions.last()}")
        known = [(number, target) for number, target in targets if target is not None]
        if twice := [key for key, n in Counter(target.key for _, target in known).items() if n > 1]:
            raise UsageError(f"two of these decisions are about {twice[0]}: undo the later one first")

        def next_one(one: tuple[int, Decision], number: int) -> Next | Conflict | Refused:
            found = self._known(one[1].key)
            if isinstance(found, Refused):
                return found
            return undone(one[0], one[1], found[1], self.decisions.of(one[1].key), number, who)

        return self._carry_out(known, next_one, lambda one: one[1].key)

    def finish(self) -> Report:
        """Write the files about the whole twin, all together; see `fgfast.pipeline.finish`.

        Raises:
            OutputFailedError: the disk is full, read-only or failing; they are still marked as stale.
        """
        ledger = self.output.ledger
        clean = ledger.meta("clean")
        self.decisions.flush()
        found = found_in(self.plan, self.output)
        report = finish(self.plan, self.output, found, 0.0, False, self.plan.cpu_threads)
        if clean is False:  # the run itself was killed, and a resumed one is to look at every file
            ledger.set_meta({"clean": False})
        return report

    def left(self, key: str) -> Left:
        """Return how many images of a sample's class and split are in the twin."""
        sample = self.plan.dataset.samples[self._positions[key]]
        counts = self.output.ledger.written()
        of_class = sum(n for (label, _), n in counts.items() if label == sample.label)
        of_split = sum(n for (_, split), n in counts.items() if split == sample.split)
        return Left(sample.label, of_class, sample.split, of_split)

    def _known(self, key: str) -> tuple[Sample, Outcome] | Refused:
        """Return the sample and its outcome."""
        position = self._positions.get(key)
        if position is None:
            return Refused(key, f"the data set in {self.plan.dataset.root} has no such image any more")
        current = self.output.ledger.outcome_of(key)
        if current is None:
            return Refused(key, "it has no outcome yet: convert again to finish the run")
        return self.plan.dataset.samples[position], current

    def _carry_out(
        self,
        asked: Sequence[_Asked],
        next_one: Callable[[_Asked, int], Next | Conflict | Refused],
        key_of: Callable[[_Asked], str],
    ) -> list[Answer]:
        if self._unfinished:
            self._catch_up()
        first = self.decisions.last() + 1
        answers: dict[str, Answer] = {}
        coming: list[Next] = []
        for one in asked:
            found = next_one(one, first + len(coming))
            if isinstance(found, Next):
                coming.append(found)
            else:
                answers[key_of(one)] = found
        made = self._files.make([(step.decision.key, step) for step in coming])
        refused = {key: found for key, found in made.items() if isinstance(found, Refused)}
        answers |= refused
        steps = [step for step in coming if step.decision.key not in refused]
        if steps:
            try:
                self._begin()
                self._unfinished = True
                numbers = self.decisions.append([step.decision for step in steps])
                results = [result for result in made.values() if isinstance(result, Result)]
            except BaseException:
                self._files.discard(made.values())
                raise
            try:
                self._files.apply({step.decision.key: step.outcome for step in steps}, results)
                self.decisions.finish(numbers)
            except OutputFailedError as error:
                self._files.discard(results)
                raise OutputFailedError(f"{error}. What was decided is stored, and follows then") from error
            self._unfinished = False
        for one in asked:
            if (key := key_of(one)) not in answers:
                outcome = self.output.ledger.outcome_of(key)
                assert outcome is not None
                answers[key] = outcome
        return [answers[key_of(one)] for one in asked]

    def _begin(self) -> None:
        """Note, once, that the files about the whole twin are no longer those of its rows."""
        if not self.output.ledger.meta("reviewing") or not self.stale:
            self.output.ledger.set_meta({"reviewing": True, "lists_stale": True})

    def _catch_up(self) -> list[Refused]:
        """Finish the decisions that are stored and not done; return those that cannot be, with reasons."""
        sweep_unrecorded(ExpectedTwin(self.plan, self.output), self.output)
        keys = list(dict.fromkeys(decision.key for decision in self.decisions.unfinished()))
        if keys:
            self._begin()
        problems = self._files.catch_up(self.decisions, keys, restore=True)
        self._unfinished = False
        return problems
