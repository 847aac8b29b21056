"""The files and rows of samples that people decided about: made in threads, then committed and recorded together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from fgfast.config import Settings
from fgfast.errors import FgfastError, OutputFailedError, SampleError
from fgfast.files import FileStamp
from fgfast.io.decisions import Decisions, in_force
from fgfast.io.decode import read_bytes
from fgfast.io.encode import FORMAT_SUFFIXES
from fgfast.io.output import Output
from fgfast.io.stamps import state
from fgfast.pipeline.changes import Next, Refused, needs_files
from fgfast.pipeline.expected import paths_of
from fgfast.pipeline.plan import Plan, load_background
from fgfast.pipeline.remake import WriteStages, changed_sentence, remake, wanted
from fgfast.pipeline.stages import Cut, Decode, Write
from fgfast.pipeline.work import Result, Work, record
from fgfast.records import Outcome, sample_digest
from fgfast.writing import TempFiles, delete_files

_Asked = TypeVar("_Asked")
_Other = TypeVar("_Other")


class MendedFiles:
    """Writes the images and masks of decided samples as the run would have, and records them.

    Attributes:
        positions: key -> position in the data set.
        stages: of the run, after its mask.
    """

    def __init__(self, plan: Plan, output: Output, pool: ThreadPoolExecutor, unwritable: str = "") -> None:
        """Prepare the stages of the run after its mask.

        Args:
            plan: of the run.
            output: its output, locked, its ledger open.
            pool: threads for images.
            unwritable: why no image can be written, in a sentence; what needs one is refused then.
        """
        self.plan, self.output, self._pool, self._unwritable = plan, output, pool, unwritable
        self.positions = {sample.key: n for n, sample in enumerate(plan.dataset.samples)}
        self.stages = _stages(plan.settings, output, plan.dataset.turn_exif)

    def make(self, steps: Iterable[tuple[str, Next]]) -> dict[str, Result | Refused]:
        """Write images and masks under temporary names, on all cores; nothing in the twin changes."""
        wanted_files = [(key, step) for key, step in steps if step.files]
        others = {key: found for key, _ in wanted_files if (found := self._of_another(key)) is not None}
        wanted_files = [one for one in wanted_files if one[0] not in others]

        def make(one: tuple[str, Next]) -> Result | Refused:
            key, step = one
            assert step.outcome is not None
            return self.remade(key, step.outcome, step.decision.source)

        return others | dict(zip((key for key, _ in wanted_files), self.map(make, wanted_files), strict=True))

    def _of_another(self, key: str) -> Refused | None:
        """Return why a sample's files cannot be written: one is another sample's; None where they can.

        Names depend on the whole data set: where a.png is gone, a.jpg would be written as what was a.png's.
        """
        for path in paths_of(self.plan, self.output, key):
            if (owner := self.output.ledger.owner_of(path)) not in (None, key):
                return Refused(key, f"its file {path} is that of {owner}, as the data set has changed: convert again")
        return None

    def remade(self, key: str, outcome: Outcome, source: bytes) -> Result | Refused:
        """Write one sample's files under temporary names; called in threads, without the databases."""
        if self._unwritable:
            return Refused(key, self._unwritable)
        work = self.work(key)
        position = work.position
        try:
            return remake(outcome, work, self.stages, source)
        except SampleError as error:
            self.discard([Result(position, outcome, tuple(work.temp_files))])
            return Refused(key, error.detail)
        except BaseException:
            self.discard([Result(position, outcome, tuple(work.temp_files))])
            raise

    def work(self, key: str) -> Work:
        """Return the work of a sample, with its names."""
        position = self.positions[key]
        sample = self.plan.dataset.samples[position]
        return Work(position, sample, self.plan.twins[key], self.plan.mask_names[key])

    def map(self, make: Callable[[_Asked], Result | _Other], items: Sequence[_Asked]) -> Iterator[Result | _Other]:
        """Yield the results in order; after an error the files of the others are removed."""
        if len(items) == 1:
            yield make(items[0])
            return
        running = [self._pool.submit(make, item) for item in items]
        try:
            for future in running:
                yield future.result()
        except BaseException:
            for future in running:
                with contextlib.suppress(Exception):
                    self.discard([future.result()])
            raise

    def discard(self, results: Iterable[object]) -> None:
        """Delete temporary files that are not to be committed."""
        temps = [temp for result in results if isinstance(result, Result) for temp, _ in result.temp_files]
        with contextlib.suppress(OSError, FgfastError):
            delete_files(self.output.out, temps)

    def apply(self, outcomes: dict[str, Outcome | None], results: Sequence[Result]) -> None:
        """Commit the files and record the rows of samples."""
        ledger = self.output.ledger
        batch = [*results]
        made = {result.outcome.key for result in results}
        rows: list[Outcome] = []
        for key, outcome in outcomes.items():
            if outcome is None or key in made:
                continue
            if outcome.twin is None:  # its files leave the twin
                batch.append(Result(self.positions[key], replace(outcome, files={}), ()))
            elif (current := ledger.outcome_of(key)) is not None:
                place = {"twin": current.twin, "twin_size": current.twin_size, "offset": current.offset}
                rows.append(replace(outcome, **place, area=current.area, source=current.source, files=current.files))  # type: ignore[arg-type]
        if batch:
            self._record(batch)
        if rows:
            ledger.record(rows)

    def catch_up(self, decisions: Decisions, keys: Sequence[str], restore: bool = False) -> list[Refused]:
        """Make samples as the decisions on them want it, and finish these; return those that cannot be, with reasons.

        Args:
            decisions: all of them.
            keys: the samples.
            restore: whether a sample without a row, on which nothing is in force, becomes again what it was, because an
                undo was interrupted. A run leaves it to its models.
        """
        asked: list[tuple[str, Outcome, bytes, list[int]]] = []
        problems: list[Refused] = []
        numbers: list[int] = []
        for key in keys:
            every = decisions.of(key)
            source, open_ones = every[-1].source, [decision.number for decision in every if not decision.done]
            outcome = wanted(every, source)
            if key not in self.positions:
                problems.append(Refused(key, f"the data set in {self.plan.dataset.root} has no such image any more"))
            elif outcome is not None and outcome.twin is not None and (other := self._of_another(key)) is not None:
                problems.append(other)
            elif outcome is None or not (restore or in_force(every) or self.output.ledger.outcome_of(key)):
                numbers += open_ones
            else:
                sample = self.plan.dataset.samples[self.positions[key]]
                asked.append((key, replace(outcome, annotation=sample_digest(sample)), source, open_ones))
        current = {key: self.output.ledger.outcome_of(key) for key, *_ in asked}

        def make(one: tuple[str, Outcome, bytes, list[int]]) -> Result | Refused:
            key, outcome, source, _ = one
            if needs_files(current[key], outcome):
                return self.remade(key, outcome, source)
            if current[key] is None:
                return self._without_files(key, outcome, source)
            return Result(self.positions[key], outcome, ())

        made = dict(zip((key for key, *_ in asked), self.map(make, asked), strict=True))
        problems += [refused for refused in made.values() if isinstance(refused, Refused)]
        results = {key: result for key, result in made.items() if isinstance(result, Result)}
        numbers += [number for key, _, _, own in asked if key in results for number in own]
        written = [result for result in results.values() if result.temp_files]
        self.apply({key: result.outcome for key, result in results.items()}, written)
        decisions.finish(numbers)
        return problems

    def _without_files(self, key: str, outcome: Outcome, source: bytes) -> Result | Refused:
        """Return a sample that leaves the twin, if its image is the one that was decided about."""
        sample = self.plan.dataset.samples[self.positions[key]]
        try:
            stamp = FileStamp.of(sample.path, read_bytes(sample.path))
        except SampleError as error:
            return Refused(key, error.detail)
        if stamp.sha256 != source:
            return Refused(key, changed_sentence(None, None))
        return Result(self.positions[key], replace(outcome, source=stamp), ())

    def _record(self, batch: list[Result]) -> None:
        """Commit and record; where the disk fails in between, the rows whose files are still there come back."""
        ledger = self.output.ledger
        before = [ledger.outcome_of(result.outcome.key) for result in batch]
        try:
            record(batch, self.output, self.plan.paths)
        except OutputFailedError:
            with contextlib.suppress(FgfastError):
                lost = [row for row in before if row is not None and ledger.outcome_of(row.key) is None]
                ledger.record([row for row in lost if self._has_files(row)])
            raise

    def _has_files(self, outcome: Outcome) -> bool:
        return all(state(self.output.out / name, stamp, read=True) == "same" for name, stamp in outcome.files.items())


def _stages(settings: Settings, output: Output, turn_exif: bool) -> WriteStages:
    """Return the stages of a run after its mask."""
    cut = Cut(settings.fill, load_background(settings.fill), settings.crop, settings.pad)
    suffix = FORMAT_SUFFIXES.get(settings.format)
    write = Write(TempFiles(output.out), output.twin.name, output.masks.name, settings.masks, suffix, settings.quality)
    return WriteStages(Decode(turn_exif), cut, write)
