"""The ring of slots of one batched stage: rows being filled, batches that are ready, free slots.

Every method is called under the flow's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic

from fgfast.runner.stages import BatchedStage, InFlightItem, T

# Number of successful batches after which the limit of a stage that ran out of memory grows by one row. More rows may
# fit once images are smaller or another process has ended, but every failed attempt costs a batch.
_GROW_AFTER = 32


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """A slot on its way round the ring.

    Attributes:
        bucket: the bucket of all its items.
        slot: the model's slot.
        limit: the most rows.
        capacity: the most rows of its bucket when the batch was started.
        due: time.monotonic() at which it is launched even if it is not full.
        rows: one item per row; None where filling failed.
        filled: number of rows that are filled, or failed.
        sealed: it takes no more items.
        unread: number of rows whose results are still to be read.
    """

    bucket: Hashable
    slot: Any
    limit: int
    capacity: int
    due: float
    rows: list[InFlightItem[T] | None] = field(default_factory=list)
    filled: int = 0
    sealed: bool = False
    unread: int = 0

    @property
    def items(self) -> list[InFlightItem[T]]:
        """Its items, without those whose filling failed."""
        return [item for item in self.rows if item is not None]


Work = tuple[InFlightItem[T], tuple[Batch[T], int] | None]
"""An item to run through its segment, or, with a batch and a row, to write into that row."""


class Ring(Generic[T]):
    """The slots of one stage: those on the device, one being filled, one being read.

    Args:
        stage: the stage.
        linger: seconds after its first item at which a batch is launched even if it is not full.
        memory: exceptions that mean that there is no memory for another slot.

    Attributes:
        slots: the most slots at a time.
        waiting: items that have no row yet, with their buckets.
        ready: batches to launch.
        limit: the most rows per batch at present.
    """

    def __init__(self, stage: BatchedStage[T], linger: float, memory: tuple[type[Exception], ...] = ()) -> None:
        self.stage, self.linger, self._memory = stage, linger, memory
        self.slots = stage.model.depth + 2
        self.waiting: deque[tuple[InFlightItem[T], Hashable]] = deque()
        self.ready: deque[Batch[T]] = deque()
        self.limit = max(1, stage.model.batch)
        self._open: dict[Hashable, Batch[T]] = {}
        self._free: list[tuple[Hashable, Any]] = []
        self._made = 0
        self._successes = 0

    def take_waiting(self, now: float) -> Work[T] | None:
        """Take the first waiting item that gets a row, or that fails because creating a slot failed."""
        for n, (item, bucket) in enumerate(self.waiting):
            place = None
            try:
                place = self._reserve(item, bucket, now)
            except Exception as error:
                item.finished.error = error
            if place is not None or item.finished.error is not None:
                del self.waiting[n]
                return item, place
        return None

    def _reserve(self, item: InFlightItem[T], bucket: Hashable, now: float) -> tuple[Batch[T], int] | None:
        """Reserve a row for an item; return None if no slot is available. Raises what creating a slot raises."""
        batch = None if item.alone else self._open.get(bucket)
        if batch is None:
            taken = self._take(bucket)
            if taken is None:
                return None
            capacity = self.stage.model.rows(bucket)
            rows = 1 if item.alone else max(1, min(self.limit, capacity))
            batch = Batch(bucket, taken[0], rows, capacity, now + self.linger)
            if not item.alone:
                self._open[bucket] = batch
        batch.rows.append(item)
        if len(batch.rows) >= batch.limit:
            self._seal(batch)
        return batch, len(batch.rows) - 1

    def _take(self, bucket: Hashable) -> tuple[Any] | None:
        """Return a free slot of this bucket or a new one, in a tuple, because a slot may be None itself."""
        for n, (of, slot) in enumerate(self._free):
            if of == bucket:
                del self._free[n]
                return (slot,)
        if self._made >= self.slots:
            if not self._free:
                self._make_way()
                return None
            del self._free[0]
            self._made -= 1
        try:
            slot = self.stage.model.slot(bucket)
        except self._memory:
            if not self._made:
                raise
            self.slots = self._made  # the existing slots must suffice
            return self._take(bucket)
        self._made += 1
        return (slot,)

    def _make_way(self) -> None:
        """Seal the oldest open batch if every slot has one, so that none will become free otherwise."""
        if not self.ready and len(self._open) == self._made:
            self._seal(min(self._open.values(), key=lambda batch: batch.due))

    def _seal(self, batch: Batch[T]) -> None:
        batch.sealed = True
        if self._open.get(batch.bucket) is batch:
            del self._open[batch.bucket]
        self._queue_if_filled(batch)

    def _queue_if_filled(self, batch: Batch[T]) -> None:
        """Make a sealed and filled batch ready, or free its slot if none of its items is left."""
        if not batch.sealed or batch.filled < len(batch.rows):
            return
        if batch.items:
            self.ready.append(batch)
        else:
            self.release(batch)

    def filled(self, batch: Batch[T], row: int, failed: bool) -> None:
        """Record that a row is filled, or has lost its item because filling `failed`."""
        if failed:
            batch.rows[row] = None
        batch.filled += 1
        self._queue_if_filled(batch)

    def seal(self, now: float, everything: bool) -> None:
        """Seal the batches that are due, or all of them, because no more items will come."""
        for batch in [b for b in self._open.values() if everything or b.due <= now]:
            self._seal(batch)

    def next_due(self) -> float | None:
        """Return the time.monotonic() at which the next open batch is due, or None."""
        return min((batch.due for batch in self._open.values()), default=None)

    def release(self, batch: Batch[T]) -> None:
        """Free the slot of a batch."""
        self._free.append((batch.bucket, batch.slot))

    def halve(self, batch: Batch[T]) -> None:
        """Limit batches to half the rows of this one, which did not fit into the device's memory."""
        self.limit = min(self.limit, max(1, len(batch.rows) // 2))
        self._successes = 0

    def succeeded(self) -> None:
        """Record that a batch did fit."""
        if self.limit < self.stage.model.batch:
            self._successes += 1
            if self._successes >= _GROW_AFTER:
                self._successes, self.limit = 0, self.limit + 1
