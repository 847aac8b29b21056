"""Items through stages within one process.

A pool of threads does the steps, always those of the item that is furthest along, so that few items lie in between. A
batched stage has a ring of slots; one thread per device launches what is ready, the furthest along first, and another
waits for it, so that the device has its next batch while one is computed. The number of items in flight is bounded;
the pool itself takes further ones from the source. A stage's exception travels as a value with its item.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fgfast.runner.batching import Batch, Ring, slots_of
from fgfast.runner.device import Device
from fgfast.runner.stages import BatchedStage, Event, Failures, Finished, InFlightItem, Positions, Stage, Step, T, Watch

Out = TypeVar("Out", covariant=True)

# Seconds after which a batch that is not full goes with the rows it has: several times what a device takes for a batch,
# so that batches are full while items come, and little beside the time a person notices.
LINGER = 0.05


class Source(Protocol[Out]):
    """Where items come from."""

    def take(self) -> Out | None:
        """The next item, or None: there is none now. Must not wait; called under the flow's lock."""

    def ended(self) -> bool:
        """Whether there will never be one again."""


@dataclass(frozen=True, slots=True)
class _Segment(Generic[T]):
    """Steps between two batched stages, and the ring of the stage that they lead to."""

    steps: tuple[Step[T], ...]
    ring: Ring[T] | None


_Work = tuple[InFlightItem[T], tuple[Batch[T], int] | None]
"""An item to carry on, or, with a batch and a row, a row to fill."""


class Flow(Generic[T]):
    """One run of items through stages.

    Args:
        stages: in order.
        source: of the items.
        done: called in a thread of the pool with each finished item; may wait. What it raises ends the flow.
        threads: of the pool.
        stop: when set, no further item is taken, and those that no batched stage has launched are given back.
        failures: which exceptions mean what.
        watch: called with each piece of work, in whichever thread did it.
        worker: name of this process, for `watch`.
        linger: seconds, see LINGER.
    """

    def __init__(
        self,
        stages: Sequence[Stage[T]],
        source: Source[T],
        done: Callable[[Finished[T]], None],
        *,
        threads: int,
        stop: threading.Event,
        failures: Failures | None = None,
        watch: Watch | None = None,
        worker: str = "",
        linger: float = LINGER,
    ) -> None:
        self._source, self._done, self.stop = source, done, stop
        self.failures, self.watch, self.worker = failures or Failures(), watch, worker
        self._segments = _segments(stages, linger, self.failures.memory)
        self.rings = [segment.ring for segment in self._segments if segment.ring]
        self._threads = threads
        self.limit = most_in_flight(stages, threads)
        self.changed = threading.Condition()
        self._ready: list[deque[InFlightItem[T]]] = [deque() for _ in self._segments]
        self._positions = Positions(len(self._segments))
        self._error: Exception | None = None
        self.dead = False

    def wake(self) -> None:
        """Something changed outside: the source has items, or `stop` was set."""
        with self.changed:
            self.changed.notify_all()

    def run(self) -> None:
        """Carry all items through; returns when none is in flight.

        Raises:
            Exception: a fatal one of a stage or of `done`, after draining; at once where the device is broken.
        """
        devices = {ring.stage.model.device: Device(self, ring.stage.model.device) for ring in self.rings}
        jobs = [(f"pool-{n}", self._work) for n in range(self._threads)]
        for name, device in devices.items():
            jobs += [(f"{name} launch", device.launch_all), (f"{name} wait", device.wait_all)]
        threads = [threading.Thread(target=self._guarded, args=job, name=job[0], daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not self.dead:
                thread.join(timeout=0.5)
        if self._error is not None:
            raise self._error

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # SystemExit and the like, out of an extension, or a fault of ours
            wrapped = error if isinstance(error, Exception) else RuntimeError(f"{name} was ended by {error!r}")
            self.die(wrapped)

    # The pool.

    def _work(self) -> None:
        thread = threading.current_thread().name
        while True:
            with self.changed:
                while (work := self._look()) is None:
                    if self.over():
                        self.changed.notify_all()
                        return
                    self.changed.wait()
            item, place = work
            if place is not None:
                self._fill(item, place, thread)
            else:
                self._carry(item, thread)
            del work, item, place

    def _look(self) -> _Work[T] | None:
        """What to do next. Looking may make a batch ready, of which the device's thread must know. Under the lock."""
        before = sum(len(ring.ready) for ring in self.rings)
        work = self._next()
        if sum(len(ring.ready) for ring in self.rings) > before:
            self.changed.notify_all()
        return work

    def _next(self) -> _Work[T] | None:
        """What to do next: an item to carry on, or a row to fill. Under the lock."""
        if self.dead:
            return None
        for segment in range(len(self._segments) - 1, -1, -1):
            if self._ready[segment]:
                return self._ready[segment].popleft(), None
            ring = self._segments[segment - 1].ring if segment else None
            if ring is not None and (found := self._row(segment - 1, ring)) is not None:
                return found
        if self.stop.is_set() or self._positions.count() >= self.limit:
            return None
        taken = self._source.take()
        if taken is None:
            if self._source.ended():
                self._seal()
            return None
        self._positions.enter()
        return InFlightItem(Finished(taken)), None

    def _row(self, segment: int, ring: Ring[T]) -> _Work[T] | None:
        """The first waiting item that can have a row of the ring behind a segment."""
        if segment == 0 and self.stop.is_set():
            for item, _ in ring.waiting:
                self.leave(item)
            ring.waiting.clear()
        for n, (item, bucket) in enumerate(ring.waiting):
            try:
                place = ring.reserve(item, bucket, time.monotonic())
            except Exception as error:
                del ring.waiting[n]
                item.finished.error = error
                return item, None
            if place is not None:
                del ring.waiting[n]
                self._positions.move(item, segment + 1)
                self._seal()
                return item, place
        return None

    def _fill(self, item: InFlightItem[T], place: tuple[Batch[T], int], thread: str) -> None:
        ring = self._ring_before(item)
        batch, row = place
        start = time.monotonic()
        try:
            ring.stage.model.fill(batch.slot, row, *ring.stage.inputs(item.finished.item))
        except Exception as error:
            item.finished.error = error
        self._note(item, f"{ring.stage.name}.fill", ring.stage.name, thread, start, len(ring.waiting))
        with self.changed:
            ring.filled(batch, row, item.finished.error is not None)
            self.changed.notify_all()
        if item.finished.error is not None:
            self._finish(item)

    def _carry(self, item: InFlightItem[T], thread: str) -> None:
        """Read what a device made of it, do the steps of its segment, and pass it on."""
        done = item.finished
        if item.place is not None and done.error is None:
            self._read(item, thread)
        while done.error is None:
            segment = self._segments[item.segment]
            if not all(self._step(item, step, thread) for step in segment.steps) or segment.ring is None:
                break
            if self._queued(item, segment.ring):
                return
        self._finish(item)

    def _queued(self, item: InFlightItem[T], ring: Ring[T]) -> bool:
        """Whether an item waits for a ring now; else it goes past it, or failed."""
        done, stage = item.finished, ring.stage
        bucket: Hashable = None
        try:
            wanted = stage.wants(done.item)
            if wanted:
                bucket = stage.bucket(done.item)
        except Exception as error:
            done.stage, done.error = stage.name, error
            return False
        with self.changed:
            if wanted:
                done.stage = stage.name
                ring.waiting.append((item, bucket))
                self.changed.notify_all()
            else:
                self._positions.move(item, item.segment + 1)
                self._seal()
        return wanted

    def _step(self, item: InFlightItem[T], step: Step[T], thread: str) -> bool:
        """Do a step; whether it went well."""
        item.finished.stage = step.name
        start = time.monotonic()
        try:
            step(item.finished.item)
        except Exception as error:
            item.finished.error = error
        self._note(item, step.name, step.name, thread, start, len(self._ready[item.segment]))
        return item.finished.error is None

    def _read(self, item: InFlightItem[T], thread: str) -> None:
        assert item.place is not None
        batch, row = item.place
        ring = self._ring_before(item)
        start = time.monotonic()
        try:
            ring.stage.store(item.finished.item, ring.stage.model.read(batch.slot, row))
        except Exception as error:
            item.finished.error = error
        item.finished.spend(ring.stage.name, item.took)
        self._note(item, f"{ring.stage.name}.after", ring.stage.name, thread, start, len(self._ready[item.segment]))
        item.place = None
        with self.changed:
            batch.unread -= 1
            if not batch.unread:
                ring.release(batch)
                self.changed.notify_all()

    def _finish(self, item: InFlightItem[T]) -> None:
        """Hand out an item that needs no more work."""
        error = item.finished.error
        if isinstance(error, self.failures.broken):
            self.die(error)
            return
        try:
            if isinstance(error, self.failures.fatal):
                self._fail(error)
            else:
                self._done(item.finished)
        except Exception as fault:  # a fault of `done` itself: nothing sensible can be recorded
            self._fail(fault)
        with self.changed:
            self.leave(item)

    # What the devices use, under the lock.

    def read_next(self, item: InFlightItem[T]) -> None:
        """An item comes from a device: its result is to be read, or its error handed out."""
        self._ready[item.segment].append(item)
        self.changed.notify_all()

    def retry(self, item: InFlightItem[T], ring: int, bucket: Hashable) -> None:
        """An item waits for a ring once more, before all others."""
        self._positions.move(item, ring)
        self.rings[ring].waiting.appendleft((item, bucket))
        self._seal()
        self.changed.notify_all()

    def leave(self, item: InFlightItem[T]) -> None:
        """An item is in flight no more."""
        self._positions.leave(item)
        self._seal()
        self.changed.notify_all()

    def over(self) -> bool:
        """Whether nothing is in flight and nothing will be."""
        return self.dead or (not self._positions.count() and (self.stop.is_set() or self._source.ended()))

    def _seal(self) -> None:
        """Send off batches that nothing more can come to."""
        if not (self.stop.is_set() or self._source.ended()):
            return
        for n, ring in enumerate(self.rings):
            if not self._positions.may_reach(n):
                ring.seal(0.0, everything=True)

    # What both share.

    def _ring_before(self, item: InFlightItem[T]) -> Ring[T]:
        ring = self._segments[item.segment - 1].ring
        assert ring is not None
        return ring

    def _note(self, item: InFlightItem[T], stage: str, name: str, thread: str, start: float, waiting: int) -> None:
        end = time.monotonic()
        item.finished.spend(name, end - start)
        if self.watch:
            self.watch(Event(stage, self.worker, thread, start, end, 1, waiting))

    def _fail(self, error: Exception) -> None:
        """The run ends after draining."""
        with self.changed:
            self._error = self._error or error
            self.stop.set()
            self.changed.notify_all()

    def die(self, error: Exception) -> None:
        """The run ends at once; what is in flight is lost."""
        with self.changed:
            self._error = self._error or error
            self.dead = True
            self.stop.set()
            self.changed.notify_all()


def most_in_flight(stages: Sequence[Stage[Any]], threads: int) -> int:
    """The most items in flight: one per thread, and all rows of all slots."""
    return threads + sum(slots_of(stage) * stage.model.batch for stage in stages if isinstance(stage, BatchedStage))


def _segments(stages: Sequence[Stage[T]], linger: float, memory: tuple[type[Exception], ...]) -> list[_Segment[T]]:
    segments: list[_Segment[T]] = []
    steps: list[Step[T]] = []
    for stage in stages:
        if isinstance(stage, BatchedStage):
            segments.append(_Segment(tuple(steps), Ring(stage, linger, memory)))
            steps = []
        else:
            steps.append(stage)
    segments.append(_Segment(tuple(steps), None))
    return segments
