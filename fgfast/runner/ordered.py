"""A run within this process whose finished items are yielded one by one, in the order of the items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from fgfast.runner.flow import Flow
from fgfast.runner.stages import Failures, Finished, Stage, T


class _Inbox(Generic[T]):
    """Items that are handed in one by one, as the source of a flow (see fgfast.runner.queues.Source)."""

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.closed = False

    def take(self) -> T | None:
        """Return the next item, or None."""
        return self.waiting.popleft() if self.waiting else None

    def ended(self) -> bool:
        """Whether there will never be another item."""
        return self.closed and not self.waiting


class _Running(Generic[T]):
    """A flow in a thread of its own, which takes items and keeps the finished ones until they are asked for."""

    def __init__(self, stages: Sequence[Stage[T]], threads: int, failures: Failures | None) -> None:
        self._inbox: _Inbox[T] = _Inbox()
        self._finished: dict[int, Finished[T]] = {}
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._over = False
        self._error: BaseException | None = None
        self._flow = Flow(stages, self._inbox, self._done, threads=threads, stop=self._stop, failures=failures)
        self._thread = threading.Thread(target=self._work, name="fgfast-flow", daemon=True)
        self._thread.start()
        # Twice what is in flight: some items finish before earlier ones.
        self.most = 2 * self._flow.limit

    def _done(self, result: Finished[T]) -> None:
        with self._changed:
            self._finished[id(result.item)] = result
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            self._flow.run()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def put(self, item: T) -> None:
        """Hand in an item."""
        self._inbox.waiting.append(item)
        self._flow.wake()

    def close(self) -> None:
        """Hand in no more."""
        self._inbox.closed = True
        self._flow.wake()

    def take(self, item: int, wait: bool) -> Finished[T] | None:
        """Return a finished item by its id; None if it is not finished and `wait` is false."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: item in self._finished or self._over)
            result = self._finished.pop(item, None)
            if result is None and self._over:
                raise self._error or RuntimeError("the flow ended before its items")
            return result

    def end(self) -> None:
        """End the run; what is on a device is waited for."""
        self._stop.set()
        self.close()
        self._thread.join()


def in_order(
    items: Iterable[T], stages: Sequence[Stage[T]], *, threads: int, failures: Failures | None = None
) -> Iterator[Finished[T]]:
    """Run every item through all stages and yield the finished ones in the order of the items.

    Items are taken in the calling thread, a bounded number ahead of the one that is yielded. Closing the iterator ends
    the run.

    Args:
        items: distinct objects.
        stages: in order.
        threads: number of threads in the pool.
        failures: the meaning of exceptions. The first fatal one is raised here.
    """
    running = _Running(stages, threads, failures)
    source, expected, more = iter(items), deque[int](), True
    try:
        while more or expected:
            if more and len(expected) < running.most:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    running.close()
                    continue
                expected.append(id(item))
                running.put(item)
                del item
            full = not more or len(expected) >= running.most
            if (result := running.take(expected[0], wait=full)) is not None:
                expected.popleft()
                yield result
                del result
    finally:
        running.end()
