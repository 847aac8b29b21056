"""One output under review: its entries, and the threads that read, decide and answer."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median
from typing import Any, TypeVar

from fgfast.errors import FgfastError, UsageError
from fgfast.io.decisions import FILE
from fgfast.records import Outcome
from fgfast.review.entries import Entries
from fgfast.review.entry_images import EntryImages
from fgfast.review.flag_index import FlagIndex
from fgfast.review.items import item, problem_of
from fgfast.review.one_writer import PATIENCE, REST, OneWriter
from fgfast.review.opening import Opening
from fgfast.review.reading import Reading, Record

log = logging.getLogger("fgfast")
T = TypeVar("T")

# Seconds that a person takes for a decision: before any was made, and above which it was a break.
_PACE, _BREAK = 5.0, 120.0
_PACES = 50
# Seconds within which a decision of another process has been carried out, with the largest masks on slow disks.
_YOUNG = 10.0
# Threads that decode and draw; more would only hold more images.
_MOST_THREADS = 8
# Threads of requests that wait for the writer, which may be writing lists, or for a model; a waiting one costs nothing.
_WAITING = 12


class Review(contextlib.AbstractContextManager["Review"]):
    """An output under review; a context manager.

    Attributes:
        entries: what is listed.
        images: the images of entries.
        title: the data set's name.
        writer: the thread that decides; None where nothing may be changed.
        answering, waiting: threads for answers that are there at once, and for those that wait for the writer or a
            model.
    """

    def __init__(self, opening: Opening, rest: float = REST, patience: float = PATIENCE) -> None:
        """Open the output: first what is listed, then for changes, which also finishes what a kill left.

        Args:
            opening: how its parts are opened.
            rest, patience: see `OneWriter`.

        Raises:
            OutputLockedError: another process is writing to it.
            OutputRefusedError, UsageError: it holds no run, or a damaged one.
        """
        self.opening = opening
        self.who = opening.who
        self._segmenting: Future[Any] | None = None
        self._samples: Any = None
        self._paces: deque[float] = deque(maxlen=_PACES)
        self._decided_at: float | None = None
        with contextlib.ExitStack() as held:
            self._reader = held.enter_context(ThreadPoolExecutor(1, "reading"))
            self._finder = held.enter_context(ThreadPoolExecutor(1, "finding"))
            self.answering = held.enter_context(ThreadPoolExecutor(_threads(), "answering"))
            self.waiting = held.enter_context(ThreadPoolExecutor(_WAITING, "waiting"))
            self._reading: Reading = self._reader.submit(self._open).result()
            held.callback(lambda: self._reader.submit(self._close_reading).result())
            self.images = EntryImages(self.read, self._reading.twin)
            self.title: str = self._reading.twin.title
            self.entries = Entries(self.read(Reading.columns).result())
            self._places = {key: n for n, key in enumerate(self.entries.columns.keys)}
            self._seen = 0
            self._young: list[tuple[int, float]] = []
            self.writer = (
                None if opening.mender is None else OneWriter(opening.mender, rest, self._lists_written, patience)
            )
            if self.writer is not None:
                held.callback(self.writer.close)
            if self.writer is not None and not self.writer.opened.done():
                self.waiting.submit(self._when_open, self.writer)
            else:
                self._take_in_force()
            held.callback(lambda: self._finder.submit(self._close_samples).result())
            if self.writer is not None:
                self._segmenting = self.waiting.submit(opening.segmenting, self._reading.twin.settings)
                held.callback(self._close_segmenting)
            self._flags = FlagIndex(opening, self.entries, self.read)
            held.callback(self._flags.close)
            self._held = held.pop_all()

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def _open(self) -> Reading:
        self._twin = self.opening.twin()
        return Reading(self._twin.__enter__(), self.opening.out / "fgfast" / FILE)

    def _close_reading(self) -> None:
        self._reading.close()
        self._twin.__exit__(None, None, None)

    @property
    def segmenting(self) -> Any:
        """What makes masks from clicks; None where nothing does, or not yet."""
        found = self._segmenting
        return found.result() if found is not None and found.done() and found.exception() is None else None

    def clicked(self) -> Any:
        """Return what makes masks from clicks, once it is there; None where nothing does."""
        return None if self._segmenting is None else self._segmenting.result()

    def _when_open(self, writer: OneWriter) -> None:
        """Take in what is decided once the output is open for changes; see `OneWriter.opened`."""
        if (error := writer.opened.exception()) is not None:
            log.warning("nothing can be decided: %s", error)
        self._take_in_force()

    def _take_in_force(self) -> None:
        """Take in what is decided, and what was of it that a kill had left unfinished."""

        def take(reading: Reading) -> None:
            self._seen = reading.last()
            if self.writer is not None:
                self.entries.take_statuses(reading.columns())
            for key, decision in reading.in_force().items():
                if key in self._places:
                    self.entries.decide(self._places[key], decision.cause)

        self.read(take).result()

    def _lists_written(self) -> None:
        """Take in the statuses where the end of a run changed them: that of a killed one flags the most doubtful."""

        def take(reading: Reading) -> None:
            if reading.twin.output.ledger.counts() != self.entries.counts():
                self.entries.take_statuses(reading.columns())

        self.read(take)

    def _close_segmenting(self) -> None:
        with contextlib.suppress(FgfastError, OSError):
            if (model := self.clicked()) is not None:
                model.close()

    def _close_samples(self) -> None:
        if self._samples is not None:
            self._samples.__exit__(None, None, None)

    def read(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a method of `Reading` in its thread."""
        return self._reader.submit(lambda: function(self._reading, *arguments))

    def asked(self) -> None:
        """Note that a request came: what is done beside waits."""
        self._flags.asked()

    # Entries

    def items(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return the fields of entries; what is gone since is left out."""
        known = [number for number in numbers if self.entries.index(number) is not None]
        records = self.read(Reading.present, known).result()
        problems = self.problems(records)
        return [self.item(record, problem) for record, problem in zip(records, problems, strict=True)]

    def problems(self, records: Sequence[Record]) -> list[str]:
        """Return what is wrong with the files of entries, each in a sentence, or an empty text."""
        return [problem_of(r.outcome, self._reading.twin) for r in records]

    def place(self, key: str) -> int:
        """Return the index of an entry.

        Raises:
            UsageError: it is no longer in the output.
        """
        if (found := self._places.get(key)) is None:
            raise UsageError(f"{key} is not in this output")
        return found

    def item(self, record: Record, problem: str) -> dict[str, Any]:
        """Return the fields of an entry."""
        o, columns = record.outcome, self.entries.columns
        index = self._places[o.key]
        return item(
            o,
            label=columns.classes[columns.labels[index]],
            split=columns.splits[columns.parts[index]],
            flags=[*self.opening.flags(o), *self._flags.unlike_its_class(record)],
            revision=record.revision,
            decision=record.decision,
            later=index in self.entries.later,
            problem=problem,
        )

    def left(self, records: Sequence[Record]) -> list[str]:
        """Return what rejections leave of classes and splits, each in a sentence; empty for other decisions."""
        said: dict[tuple[int, int], str] = {}
        columns, found = self.entries.columns, []
        for record in records:
            place = self._places[record.outcome.key]
            if record.decision is None or record.decision.verdict != "reject":
                found.append("")
                continue
            group = int(columns.labels[place]), int(columns.parts[place])
            if group not in said:  # the whole data set is counted for it
                said[group] = self.entries.left_with(place)
            found.append(said[group])
        return found

    def refresh(self) -> tuple[int, list[int]]:
        """Take in what was decided since, here or by others; return the last decision's number, and the entries."""

        def take(reading: Reading) -> tuple[int, list[int]]:
            last, keys = reading.since(self._seen)
            self._seen = max(self._seen, last)
            new = self._numbers(keys)
            now = time.monotonic()
            self._young = [(number, then) for number, then in self._young if now - then < _YOUNG]
            self._young += [(number, now) for number in new] if self.writer is None else []
            self._take(reading.present(dict.fromkeys([*new, *(number for number, _ in self._young)])))
            return last, new

        return self.read(take).result()

    def taken(self, numbers: Sequence[int]) -> list[Record]:
        """Return what is stored about entries, and take it in.

        Raises:
            UsageError: one of them is not there.
        """

        def take(reading: Reading) -> list[Record]:
            records = reading.records(numbers)
            self._take(records)
            return records

        return self.read(take).result()

    def _take(self, records: Iterable[Record]) -> None:
        """Take in the states of entries; only in the thread that reads, so that none is older than the one before."""
        for record in records:
            place = self._places[record.outcome.key]
            self.entries.set_status(place, record.outcome.status)
            self.entries.decide(place, None if record.decision is None else record.decision.cause)

    def changes(self, since: int) -> tuple[int, list[int]]:
        """Return the number of the last decision, and the entries decided after the one numbered `since`.

        A reader (--read-only) meets decisions of another process that are stored and still being carried out, and
        returns them again for a while.
        """
        self.refresh()
        last, keys = self.read(Reading.since, since).result()
        young = [number for number, _ in self._young]
        return last, [*dict.fromkeys([*self._numbers(keys), *young])]

    def _numbers(self, keys: Iterable[str]) -> list[int]:
        return [self.entries.number(self._places[key]) for key in keys if key in self._places]

    def note_pace(self) -> None:
        """Note that a person decided just now."""
        now = time.monotonic()
        if self._decided_at is not None and now - self._decided_at < _BREAK:
            self._paces.append(now - self._decided_at)
        self._decided_at = now

    def minutes(self) -> float:
        """Return about how long the entries that are left take."""
        return self.entries.left() * (median(self._paces) if self._paces else _PACE) / 60

    # Images, for a model

    def load(self, o: Outcome) -> Callable[[], Any]:
        """Return what decodes the stored image of an entry: `fgfast.records.Image`."""
        return lambda: self._reading.twin.image(o.key)

    def banner_rows(self, o: Outcome) -> int:
        """Return the rows at the bottom of the image that are never subject; the data set is opened at first use."""
        with contextlib.suppress(FgfastError):
            return self._finder.submit(self._banner_rows, o.key).result()
        return 0

    def _banner_rows(self, key: str) -> int:
        if self._samples is None:
            self._samples = self.opening.twin()
            self._samples.__enter__()
        return int(self._samples.sample(key).banner_rows)


def _threads() -> int:
    return max(2, min(_MOST_THREADS, os.cpu_count() or 1))
