"""The queues of a run: items to do, items between two phases, items to be tried alone; and results to collect."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from fgfast.runner.messages import WorkerSpec

T = TypeVar("T")
R = TypeVar("R")
Out = TypeVar("Out", covariant=True)

# An item is quarantined when a worker crashes with it alone, and, where there are several workers, a second one does:
# the first device may be to blame. Being killed from outside (by the out-of-memory killer, by a person) says less about
# the item: it takes this many crashes then.
_ALONE, _KILLED = 2, 3

# The collector is woken for this many results at once, or after this many seconds: one ledger transaction (a disk sync
# or two) is then spread over many samples, and a kill costs at most half a second of work.
BATCH = 256
_BATCH_SECONDS = 0.5
# `Outbox.put` blocks while this many results wait: back-pressure from the disk.
MOST_WAITING = 4 * BATCH


class Source(Protocol[Out]):
    """The source of a flow's items."""

    def take(self) -> Out | None:
        """Return the next item, or None if there is none at present. Must not block; called under the flow's lock."""

    def ended(self) -> bool:
        """Whether there will never be another item."""


class Items(Generic[T]):
    """An iterable as a `Source`.

    Attributes:
        error: what the iterable raised; it counts as ended then.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._ended = False
        self.error: Exception | None = None

    def take(self) -> T | None:
        """Return the next item; see `Source`."""
        if self._ended:
            return None
        try:
            return next(self._items)
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self.error = True, error
        return None

    def ended(self) -> bool:
        """Whether the iterable is exhausted; see `Source`."""
        return self._ended


@dataclass(slots=True, eq=False)
class Task(Generic[T]):
    """An item on its way through the phases of the job.

    Attributes:
        ticket: the task's number.
        item: the item.
        phase: the next phase of the job.
        crashes: number of workers that crashed with it in flight.
        alone: names of the workers that crashed by themselves while it was their only item.
        killed: number of workers that were killed from outside while it was their only item.
    """

    ticket: int
    item: T
    phase: int = 0
    crashes: int = 0
    alone: set[str] = field(default_factory=set)
    killed: int = 0

    def fits(self, spec: WorkerSpec) -> bool:
        """Whether a worker does the task's next phase."""
        return spec.phases[0] <= self.phase < spec.phases[1]

    def crashed(self, worker: str, single: bool, killed: bool) -> None:
        """Record that a worker crashed with the item in flight.

        Args:
            worker: the worker's name.
            single: nothing else was in flight.
            killed: the worker was killed from outside.
        """
        self.crashes += 1
        if single and killed:
            self.killed += 1
        elif single:
            self.alone.add(worker)

    def hopeless(self, workers: Iterable[WorkerSpec]) -> bool:
        """Whether to quarantine the item, given the workers that are left. Without any, the item is not to blame."""
        specs = list(workers)
        untried = any(self.fits(spec) and spec.name not in self.alone for spec in specs)
        return len(self.alone) >= _ALONE or self.killed >= _KILLED or bool(self.alone and specs and not untried)


class Tasks(Generic[T]):
    """All tasks that no worker holds.

    Args:
        items: taken when a worker has nothing else to do.
        phases: number of phases of the job.

    Attributes:
        items: the items that are not tasks yet.
        alone: tasks to be tried with nothing else in flight.
    """

    def __init__(self, items: Iterable[T], phases: int) -> None:
        self.items = Items(items)
        self._waiting: list[deque[Task[T]]] = [deque() for _ in range(phases)]
        self._tickets = 0
        self.alone: deque[Task[T]] = deque()

    def ended(self) -> bool:
        """Whether nothing is left, except what workers hold, and nothing more will come."""
        return self.items.ended() and not self.alone and not any(self._waiting)

    def next(self, phases: tuple[int, int], most_between: int) -> Task[T] | None:
        """Return the task that is furthest along of those that a worker can do, or else a new one.

        Args:
            phases: the worker's first phase, and the one after its last.
            most_between: no new task is started while more than this many wait between two phases.
        """
        first, end = phases
        for phase in range(end - 1, first - 1, -1):
            if self._waiting[phase]:
                return self._waiting[phase].popleft()
        if first > 0 or any(len(waiting) > most_between for waiting in self._waiting[1:]):
            return None
        item = self.items.take()
        if item is None:
            return None
        self._tickets += 1
        return Task(self._tickets, item)

    def handed_off(self, task: Task[T], item: T, phase: int) -> None:
        """Queue a task that has finished the phases before `phase`."""
        task.item, task.phase = item, phase
        self._waiting[phase].append(task)

    def put_back(self, tasks: Iterable[Task[T]]) -> None:
        """Queue tasks that a worker was given and never started, in their order, before all others."""
        for task in reversed(list(tasks)):
            self._waiting[task.phase].appendleft(task)


class Outbox(Generic[R]):
    """A bounded queue of results, which wakes the collector per batch and not per result."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[R] = []
        self._closed = False
        self._abandoned = False

    def put(self, result: R) -> None:
        """Add a result; block while the collector is far behind."""
        with self._changed:
            while len(self._waiting) >= MOST_WAITING and not self._abandoned:
                self._changed.wait()
            self._waiting.append(result)
            if len(self._waiting) >= BATCH:
                self._changed.notify_all()

    def collect(
        self, work: Callable[[], None], collect: Callable[[list[R]], None], stop: Callable[[], None], name: str
    ) -> None:
        """Run `work` in a thread of this name, and pass the results that it puts to `collect` in the calling one.

        Args:
            work: puts results; returns when there are no more.
            collect: called with the results in batches.
            stop: makes `work` return early; called when either of them raises.
            name: the thread's name.

        Raises:
            BaseException: what `collect` raised, or else what `work` raised.
        """
        errors: list[BaseException] = []

        def produce() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                stop()
            finally:
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()

        thread = threading.Thread(target=produce, name=name, daemon=True)
        thread.start()
        try:
            for batch in self._batches():
                collect(batch)
        except BaseException:
            with self._changed:
                self._abandoned = True
                self._changed.notify_all()
            stop()
            raise
        finally:
            thread.join()
        if errors:
            raise errors[0]

    def _batches(self) -> Iterator[list[R]]:
        """Yield the results, whenever there are `BATCH` or half a second has passed, until the outbox is closed."""
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._closed, timeout=_BATCH_SECONDS)
                batch, self._waiting = self._waiting, []
                closed = self._closed
                self._changed.notify_all()
            if batch:
                yield batch
