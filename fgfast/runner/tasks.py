"""What is still to be done, as the parent sees it: new items, those between two parts of the job, those to be tried
alone; and when an item is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fgfast.runner.messages import Seat

T = TypeVar("T")

# An item is given up when a worker dies with it alone, and, where there are several seats, on a second one: the first
# device may be to blame. Being killed from outside (by the system for want of memory, by a person) says less about the
# item: then it takes so many deaths.
_ALONE, _KILLED = 2, 3


@dataclass(slots=True, eq=False)
class Task(Generic[T]):
    """An item on its way through the parts of the job.

    Attributes:
        ticket: its number.
        item: the item.
        part: which part of the job is next.
        deaths: how often a worker died with it.
        alone: seats on which it was the only one when a worker died of something of its own.
        killed: how often it was the only one when a worker was killed from outside.
    """

    ticket: int
    item: T
    part: int = 0
    deaths: int = 0
    alone: set[str] = field(default_factory=set)
    killed: int = 0

    def fits(self, seat: Seat) -> bool:
        """Whether its next part is done on a seat."""
        return seat.parts[0] <= self.part < seat.parts[1]

    def died(self, seat: str, single: bool, killed: bool) -> None:
        """A worker died with it in its hands.

        Args:
            seat: whose worker.
            single: nothing else was there.
            killed: the worker was killed from outside.
        """
        self.deaths += 1
        if single and killed:
            self.killed += 1
        elif single:
            self.alone.add(seat)

    def hopeless(self, seats: Iterable[Seat]) -> bool:
        """Whether it is to be given up, where these seats are left. Without any nothing can be said of it."""
        seats = list(seats)
        untried = any(self.fits(seat) and seat.name not in self.alone for seat in seats)
        return len(self.alone) >= _ALONE or self.killed >= _KILLED or bool(self.alone and seats and not untried)


class Tasks(Generic[T]):
    """All tasks that no worker has.

    Args:
        items: taken when a worker has nothing else to do.
        parts: of the job.

    Attributes:
        alone: to be tried with nothing else beside them.
        error: what `items` raised.
    """

    def __init__(self, items: Iterable[T], parts: int) -> None:
        self._items: Iterator[T] | None = iter(items)
        self._waiting: list[deque[Task[T]]] = [deque() for _ in range(parts)]
        self._tickets = 0
        self.alone: deque[Task[T]] = deque()
        self.error: Exception | None = None

    def ended(self) -> bool:
        """Whether there is nothing left and will be nothing more, but for what workers have."""
        return self._items is None and not self.alone and not any(self._waiting)

    def next(self, parts: tuple[int, int], most_between: int) -> Task[T] | None:
        """The task that is furthest along, of those that a seat of these parts can do; then a new one.

        Args:
            parts: the first, and the one behind the last.
            most_between: where more tasks wait between two parts, no new one is begun.
        """
        first, end = parts
        for part in range(end - 1, first - 1, -1):
            if self._waiting[part]:
                return self._waiting[part].popleft()
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

    def passed(self, task: Task[T], item: T, part: int) -> None:
        """A task is through with the parts before `part`."""
        task.item, task.part = item, part
        self._waiting[part].append(task)

    def put_back(self, tasks: Iterable[Task[T]]) -> None:
        """Tasks that were given and never touched, first in line again and in their order."""
        for task in reversed(list(tasks)):
            self._waiting[task.part].appendleft(task)
