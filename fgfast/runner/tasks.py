"""What is still to be done, for the parent: new items, items between two phases, items to be tried alone; and when the
parent quarantines an item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fgfast.runner.messages import WorkerSpec

T = TypeVar("T")

# An item is quarantined when a worker crashes with it alone, and, where there are several workers, a second one does:
# the first device may be to blame. Being killed from outside (by the system for want of memory, by a person) says less
# about the item: then it takes so many crashes.
_ALONE, _KILLED = 2, 3


@dataclass(slots=True, eq=False)
class Task(Generic[T]):
    """An item on its way through the phases of the job.

    Attributes:
        ticket: its number.
        item: the item.
        phase: which phase of the job is next.
        crashes: how often a worker crashed with it in flight.
        alone: names of workers in which it was the only item when they crashed of something of their own.
        killed: how often it was the only item when a worker was killed from outside.
    """

    ticket: int
    item: T
    phase: int = 0
    crashes: int = 0
    alone: set[str] = field(default_factory=set)
    killed: int = 0

    def fits(self, spec: WorkerSpec) -> bool:
        """Whether a worker does its next phase."""
        return spec.phases[0] <= self.phase < spec.phases[1]

    def crashed(self, worker: str, single: bool, killed: bool) -> None:
        """A worker crashed with the item in flight.

        Args:
            worker: its name.
            single: nothing else was in flight.
            killed: the worker was killed from outside.
        """
        self.crashes += 1
        if single and killed:
            self.killed += 1
        elif single:
            self.alone.add(worker)

    def hopeless(self, workers: Iterable[WorkerSpec]) -> bool:
        """Whether the item is to be quarantined, where these workers are left. Without any, nothing can be said."""
        specs = list(workers)
        untried = any(self.fits(spec) and spec.name not in self.alone for spec in specs)
        return len(self.alone) >= _ALONE or self.killed >= _KILLED or bool(self.alone and specs and not untried)


class Tasks(Generic[T]):
    """All tasks that no worker has.

    Args:
        items: taken when a worker has nothing else to do.
        phases: of the job.

    Attributes:
        alone: tasks to be tried with nothing else beside them.
        error: what `items` raised.
    """

    def __init__(self, items: Iterable[T], phases: int) -> None:
        self._items: Iterator[T] | None = iter(items)
        self._waiting: list[deque[Task[T]]] = [deque() for _ in range(phases)]
        self._tickets = 0
        self.alone: deque[Task[T]] = deque()
        self.error: Exception | None = None

    def ended(self) -> bool:
        """Whether nothing is left and nothing more will come, except what workers have."""
        return self._items is None and not self.alone and not any(self._waiting)

    def next(self, phases: tuple[int, int], most_between: int) -> Task[T] | None:
        """The task that is furthest along, of those that a worker of these phases can do; then a new one.

        Args:
            phases: the first, and the one behind the last.
            most_between: where more tasks wait between two phases, no new one is begun.
        """
        first, end = phases
        for phase in range(end - 1, first - 1, -1):
            if self._waiting[phase]:
                return self._waiting[phase].popleft()
        crowded = any(len(waiting) > most_between for waiting in self._waiting[1:])
        if first > 0 or self._items is None or crowded:
            return None
        try:
            item = next(self._items)
        except StopIteration:
            self._items = None
            return None
        except Exception as error:
            self._items, self.error = None, error
            return None
        self._tickets += 1
        return Task(self._tickets, item)

    def handed_off(self, task: Task[T], item: T, phase: int) -> None:
        """A task is through with the phases before `phase`."""
        task.item, task.phase = item, phase
        self._waiting[phase].append(task)

    def put_back(self, tasks: Iterable[Task[T]]) -> None:
        """Tasks that were given out and never begun are first in line again, in their order."""
        for task in reversed(list(tasks)):
            self._waiting[task.phase].appendleft(task)
