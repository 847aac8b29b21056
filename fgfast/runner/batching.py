"""The ring of slots of one batched stage: which rows are being filled, which batches are ready, which slots are free.

Every method is called under the flow's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Generic

from fgfast.runner.stages import BatchedStage, InFlightItem, T

# Successful batches after which a batch that had to shrink may have one row more. What did not fit may fit later, when
# images are smaller or a neighbour has gone, but every attempt that fails costs a batch.
_GROW_AFTER = 32


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """A slot on its way round the ring.

    Attributes:
        bucket: of all its items.
        slot: the model's.
        limit: rows it may take.
        capacity: rows that its bucket had when it was begun.
        due: time.monotonic() at which it goes with the rows it has.
        rows: one item per row; None where filling failed.
        filled: how many rows need no more filling.
        sealed: it takes no more items.
        unread: rows whose results are still to be read.
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
        """Its items without those whose filling failed."""
        return [item for item in self.rows if item is not None]


class Ring(Generic[T]):
    """Slots of one stage: those on the device, one being filled, one being read.

    Args:
        stage: the stage.
        linger: seconds after its first item at which a batch goes with the rows it has.
        memory: exceptions that mean that there is no memory for one more slot.

    Attributes:
        slots: the most slots at a time.
        waiting: items that have no row yet, with their buckets.
        ready: batches for the device.
        limit: rows a batch may have at present.
    """

    def __init__(self, stage: BatchedStage[T], linger: float, memory: tuple[type[Exception], ...] = ()) -> None:
        self.stage, self.linger, self._memory = stage, linger, memory
        self.slots = slots_of(stage)
        self.waiting: deque[tuple[InFlightItem[T], Hashable]] = deque()
        self.ready: deque[Batch[T]] = deque()
        self.limit = max(1, stage.model.batch)
        self._open: dict[Hashable, Batch[T]] = {}
        self._free: list[tuple[Hashable, Any]] = []
        self._made = 0
        self._successes = 0

    def reserve(self, item: InFlightItem[T], bucket: Hashable, now: float) -> tuple[Batch[T], int] | None:
        """A row for an item; None where no slot is to be had. Raises what making a slot raises."""
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
        """A free slot, of this bucket or made over for it; in a tuple, for it may be None."""
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
            self.slots = self._made  # the slots that there are must do
            return self._take(bucket)
        self._made += 1
        return (slot,)

    def _make_way(self) -> None:
        """All slots are taken. Where nothing is ready or on the device, the oldest batch goes with the rows it has."""
        if not self.ready and len(self._open) == self._made:
            self._seal(min(self._open.values(), key=lambda batch: batch.due))

    def _seal(self, batch: Batch[T]) -> None:
        batch.sealed = True
        if self._open.get(batch.bucket) is batch:
            del self._open[batch.bucket]
        self._queue_if_filled(batch)

    def _queue_if_filled(self, batch: Batch[T]) -> None:
        """A batch that is sealed and filled is ready, or, where nothing in it is left, its slot is free."""
        if not batch.sealed or batch.filled < len(batch.rows):
            return
        if batch.items:
            self.ready.append(batch)
        else:
            self.release(batch)

    def filled(self, batch: Batch[T], row: int, failed: bool) -> None:
        """A row needs no more filling; with `failed` its item is gone."""
        if failed:
            batch.rows[row] = None
        batch.filled += 1
        self._queue_if_filled(batch)

    def seal(self, now: float, everything: bool) -> None:
        """Send off what has waited long enough, or everything, because no more items are coming."""
        for batch in [b for b in self._open.values() if everything or b.due <= now]:
            self._seal(batch)

    def next_due(self) -> float | None:
        """When the next batch goes with the rows it has."""
        return min((batch.due for batch in self._open.values()), default=None)

    def release(self, batch: Batch[T]) -> None:
        """The slot of a batch is free again."""
        self._free.append((batch.bucket, batch.slot))

    def halve(self, batch: Batch[T]) -> None:
        """A batch did not fit into the device's memory: batches have at most half as many rows from now on."""
        self.limit = min(self.limit, max(1, len(batch.rows) // 2))
        self._successes = 0

    def succeeded(self) -> None:
        """A batch did fit."""
        if self.limit < self.stage.model.batch:
            self._successes += 1
            if self._successes >= _GROW_AFTER:
                self._successes, self.limit = 0, self.limit + 1


def slots_of(stage: BatchedStage[Any]) -> int:
    """Slots of a ring: those on the device, one being filled, one being read."""
    return stage.model.depth + 2
