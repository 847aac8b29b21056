"""The ring of slots of one batched stage: rows being filled, batches that are ready, free slots.

Every method is called under the flow's lock, except that `Batch.slot` makes the slot where it is first asked for, by
the thread that fills the first row, without the lock: allocating and clearing pinned memory takes milliseconds.

Images of several shapes come in any order, so several batches are open at a time, one per bucket. There are slots for
all of them, and besides for those on the device and one being read. While the device has batches queued nothing is
gained by launching one that is not full; it is launched when the device would otherwise run dry.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic

from fgfast.runner.stages import BatchedStage, Finished, InFlightItem, T

# Number of successful batches after which the limit of a stage that ran out of memory grows by one row. More rows may
# fit once images are smaller or another process has ended, but every failed attempt costs a batch.
_GROW_AFTER = 32

# The most batches open at a time, however many buckets a model has: each holds a slot, and its items stay in memory.
# Detic on a GPU, the largest: 13 MB of pixels and 5 MB of results per slot of four images, so 11 slots of 200 MB.
MOST_OPEN = 8

# The longest that a batch stays open while the device is busy, in seconds from its first item. Four images of a kind
# come within it if one in 25 is of that kind at 100 images/s and batches of 4. It bounds how long an item stays
# unfinished, and so what a killed worker must do again; a batch that it launches part-filled costs what a full one
# does, eight kinds that are all too rare at most 1.6 batches/s of 25.
PATIENCE = 5.0


class RingSlot:
    """A model's slot, which the first thread that asks for it makes.

    Args:
        bucket: of the slot.
        make: makes the model's slot.
        replaced: a slot of another bucket whose memory is freed before.

    Attributes:
        error: what making it raised, or None.
        counted: whether it is one of the ring's slots.
        released: number of batches that had been started when it was last released.
    """

    def __init__(self, bucket: Hashable, make: Callable[[], Any], replaced: RingSlot | None = None) -> None:
        self.bucket = bucket
        self.error: Exception | None = None
        self.counted, self.released = True, 0
        self._make, self._replaced = make, replaced
        self._made: tuple[Any] | None = None
        self._making = threading.Lock()

    def get(self) -> Any:
        """Return the model's slot; raise what making it raised, every time. Any thread, without the flow's lock."""
        with self._making:
            if self.error is not None:
                raise self.error
            try:
                self._replaced = None
                self._made = self._made or (self._make(),)
            except Exception as error:
                self.error = error
                raise
            return self._made[0]


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """A slot on its way round the ring.

    Attributes:
        place: its slot in the ring, of the bucket of all its items.
        limit: the most rows.
        capacity: the most rows of its bucket when the batch was started.
        due: time.monotonic() from which it is launched part-filled where the device would run dry.
        late: time.monotonic() at which it is launched in any case.
        rows: one item per row; None where filling failed.
        filled: number of rows that are filled, or failed.
        sealed: it takes no more items.
        unread: number of rows whose results are still to be read.
    """

    place: RingSlot
    limit: int
    capacity: int
    due: float
    late: float
    rows: list[InFlightItem[T] | None] = field(default_factory=list)
    filled: int = 0
    sealed: bool = False
    unread: int = 0

    @property
    def bucket(self) -> Hashable:
        return self.place.bucket

    @property
    def slot(self) -> Any:
        """The model's slot, see RingSlot.get."""
        return self.place.get()

    @property
    def items(self) -> list[InFlightItem[T]]:
        """Its items, without those whose filling failed."""
        return [item for item in self.rows if item is not None]


Work = tuple[InFlightItem[T], tuple[Batch[T], int] | None]
"""An item to run through its segment, or, with a batch and a row, to write into that row."""


class Ring(Generic[T]):
    """The slots of one stage: those on the device, one being read, and one being filled per open batch.

    Args:
        stage: the stage.
        linger: seconds after its first item at which a batch is launched part-filled where the device would run dry.
        memory: exceptions that mean that there is no memory for another slot.

    Attributes:
        slots: the most slots at a time.
        waiting: items that have no row yet, with their buckets.
        ready: batches to launch.
        limit: the most rows per batch at present.
        room: returns how many more batches the device could queue, besides those that are sealed already; the device
            sets it.
    """

    def __init__(self, stage: BatchedStage[T], linger: float, memory: tuple[type[Exception], ...] = ()) -> None:
        self.stage, self.linger, self._memory = stage, linger, memory
        buckets = min(stage.model.buckets, MOST_OPEN)
        self.slots = stage.model.depth + 1 + buckets
        self.waiting: deque[tuple[InFlightItem[T], Hashable]] = deque()
        self.ready: deque[Batch[T]] = deque()
        self.limit = max(1, stage.model.batch)
        self.room: Callable[[], int] = lambda: 1
        self._open: dict[Hashable, Batch[T]] = {}
        self._free: list[RingSlot] = []
        self._made: Counter[Hashable] = Counter()  # slots per bucket
        self._started = self._unfilled = 0  # batches; sealed ones whose rows are still being filled
        self._successes = 0

    @property
    def rows(self) -> int:
        """Number of items for which there is to be a place: full batches on the device and one being read, and open
        batches that lack one row.
        """
        full, batch = self.stage.model.depth + 1, self.stage.model.batch
        return full * batch + max(0, self.slots - full) * max(1, batch - 1)

    @property
    def coming(self) -> int:
        """Number of batches that are to be launched: ready, or sealed and being filled."""
        return len(self.ready) + self._unfilled

    def take_waiting(self, now: float) -> Work[T] | None:
        """Take the first waiting item that gets a row, or that fails because its bucket has no rows."""
        free = len(self._free)
        found = self._first_waiting(now)
        if found is None and len(self._free) > free:
            found = self._first_waiting(now)  # it sealed a batch whose items had all failed, and so freed its slot
        return found

    def _first_waiting(self, now: float) -> Work[T] | None:
        without: set[Hashable] = set()  # buckets that have no slot now
        for n, (item, bucket) in enumerate(self.waiting):
            if bucket in without and not item.alone:
                continue
            place = None
            try:
                place = self._reserve(item, bucket, now)
            except Exception as error:
                item.finished.error = error
            if place is not None or item.finished.error is not None:
                del self.waiting[n]
                return item, place
            if not item.alone:
                without.add(bucket)
        return None

    def _reserve(self, item: InFlightItem[T], bucket: Hashable, now: float) -> tuple[Batch[T], int] | None:
        """Reserve a row for an item; return None if no slot is available."""
        batch = None if item.alone else self._open.get(bucket)
        if batch is None:
            capacity = self.stage.model.rows(bucket)
            if (place := self._take(bucket, item.alone)) is None:
                return None
            rows = 1 if item.alone else max(1, min(self.limit, capacity))
            batch = Batch(place, rows, capacity, now + self.linger, now + max(self.linger, PATIENCE))
            self._started += 1
            if not item.alone:
                self._open[bucket] = batch
        batch.rows.append(item)
        if len(batch.rows) >= batch.limit:
            self._seal(batch)
        return batch, len(batch.rows) - 1

    def _take(self, bucket: Hashable, alone: bool) -> RingSlot | None:
        """Take a slot for a new batch of this bucket; open batches leave the device's queue the slots that it needs."""
        if not alone and len(self._open) >= max(1, self.slots - self.stage.model.depth) and not self._make_way():
            return None
        for n in range(len(self._free) - 1, -1, -1):
            if self._free[n].bucket == bucket:
                return self._free.pop(n)
        replaced = None
        if self._made.total() >= self.slots:
            if (replaced := self._superfluous(bucket, alone)) is None:
                self._make_way()
                return None
            self._forget(replaced)
        self._made[bucket] += 1
        return RingSlot(bucket, lambda: self.stage.model.slot(bucket), replaced)

    def _superfluous(self, bucket: Hashable, alone: bool) -> RingSlot | None:
        """Remove and return the free slot, longest unused, that one of this bucket replaces; None to wait.

        Where the bucket has a slot, which comes back soon, only one is replaced that its own bucket does not need:
        another of that is free, or it has been unused while all slots went round twice.
        """
        spare = Counter(slot.bucket for slot in self._free)
        wait = self._made[bucket] > 0 and not alone
        for n, slot in enumerate(self._free):
            if not wait or spare[slot.bucket] > 1 or self._started - slot.released > 2 * self.slots:
                return self._free.pop(n)
        return None

    def _forget(self, slot: RingSlot) -> None:
        """Count a slot no longer."""
        slot.counted = False
        self._made[slot.bucket] -= 1
        if not self._made[slot.bucket]:
            del self._made[slot.bucket]

    def _make_way(self) -> bool:
        """Seal the fullest open batch if the device is about to run out of batches; return whether that was so."""
        going_round = self._made.total() - len(self._free) - len(self._open)
        if not self._open or going_round >= self.stage.model.depth:
            return False
        self._seal(max(self._open.values(), key=lambda batch: (len(batch.rows), -batch.due)))
        return True

    def _seal(self, batch: Batch[T]) -> None:
        batch.sealed = True
        self._unfilled += 1
        if self._open.get(batch.bucket) is batch:
            del self._open[batch.bucket]
        self._queue_if_filled(batch)

    def _queue_if_filled(self, batch: Batch[T]) -> None:
        """Make a sealed and filled batch ready, or free its slot if none of its items is left."""
        if not batch.sealed or batch.filled < len(batch.rows):
            return
        self._unfilled -= 1
        if batch.items:
            self.ready.append(batch)
        else:
            self.release(batch)

    def filled(self, batch: Batch[T], row: int, failed: bool) -> None:
        """Record that a row is filled, or has lost its item because filling `failed`.

        Where there was no memory for the batch's slot, the existing ones must suffice: the item itself has no error any
        more, and a copy of it waits for one of them.
        """
        if failed:
            item, batch.rows[row] = batch.rows[row], None
            if (error := batch.place.error) is not None:
                self._abandon(batch)
                if item and self._made and isinstance(error, self._memory):
                    done, item.finished.error = item.finished, None
                    copy = InFlightItem(Finished(done.item, done.stage, None, done.seconds), item.segment, item.alone)
                    self.waiting.appendleft((copy, batch.bucket))
        batch.filled += 1
        self._queue_if_filled(batch)

    def _abandon(self, batch: Batch[T]) -> None:
        """Stop filling a batch whose slot could not be made; for lack of memory there will be no more slots."""
        if batch.place.counted:
            self._forget(batch.place)
            if isinstance(batch.place.error, self._memory):
                self.slots = max(1, self._made.total())
        if not batch.sealed:
            self._seal(batch)

    def seal(self, now: float, everything: bool) -> None:
        """Seal all open batches, because no more items will come, or those that are to be launched part-filled.

        These are the late ones, and, the fullest first, as many of the due ones as the device has room for.
        """
        for batch in sorted(self._open.values(), key=lambda batch: (-len(batch.rows), batch.due)):
            if everything or batch.late <= now or (batch.due <= now and self.room() > 0):
                self._seal(batch)

    def next_due(self) -> float | None:
        """Return the time.monotonic() at which the next open batch is to be sealed as things are, or None."""
        dry = self.room() > 0
        return min((batch.due if dry else batch.late for batch in self._open.values()), default=None)

    def release(self, batch: Batch[T]) -> None:
        """Free the slot of a batch."""
        if batch.place.counted:
            batch.place.released = self._started
            self._free.append(batch.place)

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
