"""Results on their way from the workers to the collector, which is woken per batch and not per result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

R = TypeVar("R")

# The collector is woken for so many results at once, and waits at most so long for them: one ledger transaction
# (a disk sync or two) is then spread over many samples, and a kill costs at most half a second of work.
BATCH = 256
_BATCH_SECONDS = 0.5
# `put` waits when the collector is so far behind: back-pressure from the disk.
MOST_WAITING = 4 * BATCH


class Outbox(Generic[R]):
    """A bounded queue of results."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[R] = []
        self._closed = False
        self._abandoned = False

    def put(self, result: R) -> None:
        """Add a result; waits while the collector is far behind."""
        with self._changed:
            while len(self._waiting) >= MOST_WAITING and not self._abandoned:
                self._changed.wait()
            self._waiting.append(result)
            if len(self._waiting) >= BATCH:
                self._changed.notify_all()

    def close(self) -> None:
        """No more results will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Results are not collected any more; `put` must not wait."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def batches(self) -> Iterator[list[R]]:
        """Batches of results, one when it is full or half a second has passed, until the outbox is closed."""
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._closed, timeout=_BATCH_SECONDS)
                batch, self._waiting = self._waiting, []
                closed = self._closed
                self._changed.notify_all()
            if batch:
                yield batch
