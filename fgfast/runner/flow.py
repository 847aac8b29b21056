"""Items through stages within one process.

A pool of threads runs the steps, always those of the item that is furthest along, so that few items wait in between. A
batched stage has a ring of slots; one thread per device launches the batches that are ready, the furthest along first,
and another waits for them, so that the device has its next batch while it computes one. The number of items in flight
is bounded; the pool itself takes further ones from the source. A stage's exception travels as a value with its item.
fgfast.runner.pool says which thread sleeps until what, and who wakes it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic

from fgfast.runner.batching import Batch, Ring, Work
from fgfast.runner.device import Device
from fgfast.runner.pool import Pool, Threads
from fgfast.runner.queues import Source
from fgfast.runner.stages import BatchedStage, Event, Failures, Finished, InFlightItem, Stage, Step, T, Watch

# Seconds after which a batch that is not full is launched: several times what a device takes for a batch, so that
# batches are full while items come, and still too short for a person to notice.
LINGER = 0.05


class _StoppedError(Exception):
    """The run was stopped in the middle of a step."""


class Flow(Generic[T]):
    """One run of items through stages.

    Args:
        stages: in order.
        source: the source of the items.
        done: called in a thread of the pool with each finished item; may block. An exception of it ends the flow.
        threads: number of threads in the pool.
        stop: when set, no further item is taken, and those that no batched stage has launched are given back.
        failures: the meaning of exceptions.
        watch: called with each piece of work, in the thread that did it.
        worker: name of this process, for `watch`.
        linger: seconds; see LINGER.
        alive: called with an item whose step gives a sign of life.

    Attributes:
        limit: the most items in flight: one per thread, and those that the rings have a place for.
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
        alive: Callable[[T], None] | None = None,
    ) -> None:
        self._source, self._done, self.stop, self._alive = source, done, stop, alive
        self.failures, self.watch, self.worker = failures or Failures(), watch, worker
        # Segments are the steps between batched stages; ring n comes after segment n.
        self._segments: list[list[Step[T]]] = [[]]
        self.rings: list[Ring[T]] = []
        for stage in stages:
            if isinstance(stage, BatchedStage):
                self.rings.append(Ring(stage, linger, self.failures.memory))
                self._segments.append([])
            else:
                self._segments[-1].append(stage)
        self._threads = threads
        self.limit = threads + sum(ring.rows for ring in self.rings)
        self.lock = threading.RLock()
        self._pool: Pool[T] = Pool(self.lock)
        self._devices: list[Device[T]] = []
        self._all = Threads(self.lock, lambda error: self.end(error, dead=True))
        self._ready: list[deque[InFlightItem[T]]] = [deque() for _ in self._segments]
        self._in_flight = [0] * len(self._segments)  # items per segment
        self._error: Exception | None = None
        self.dead = False

    def wake(self) -> None:
        """Look again: the source has items, or `stop` was set."""
        with self.lock:
            self.announce()
            if self.stop.is_set():
                for device in self._devices:
                    device.wake()

    def run(self) -> None:
        """Run all items through all stages; return when none is in flight.

        Raises:
            Exception: a fatal one of a stage or of `done`, after draining; immediately where the device is broken.
        """
        self._devices = [Device(self, name) for name in dict.fromkeys(ring.stage.model.device for ring in self.rings)]
        jobs = [(f"pool-{n}", self._work) for n in range(self._threads)]
        for device in self._devices:
            jobs += [(f"{device.name} launch", device.launch_all), (f"{device.name} wait", device.wait_all)]
        self._all.run(jobs, lambda: self.dead)
        if self._error is not None:
            raise self._error

    def announce(self) -> None:
        """Wake the threads for which there is something to do now, and no others. Under the lock."""
        self._pool.give(self._next)
        for device in self._devices:
            device.announce()
        if self.over():
            self._pool.wake_all()
            for device in self._devices:
                device.wake()

    # The pool.

    def _work(self) -> None:
        while (work := self._get()) is not None:
            item, place = work
            if place is not None:
                self._fill(item, *place)
            else:
                self._carry(item)
            del work, item, place

    def _get(self) -> Work[T] | None:
        """Return the next work, as soon as there is some; None once the flow is over."""
        with self.lock:
            work = self._next()
            self.announce()
            if work is None:
                work = self._pool.sleep(self.over)
                self.announce()
            return None if self.dead else work

    def _next(self) -> Work[T] | None:
        """Choose the next work, the furthest along first; None if there is none at present. Under the lock."""
        if self.dead:
            return None
        for segment in range(len(self._segments) - 1, -1, -1):
            if self._ready[segment]:
                return self._ready[segment].popleft(), None
            if segment and (found := self._row(segment - 1)) is not None:
                return found
        if self.stop.is_set() or sum(self._in_flight) >= self.limit:
            return None
        taken = self._source.take()
        if taken is None:
            self._seal()
            return None
        self._in_flight[0] += 1
        return InFlightItem(Finished(taken)), None

    def _row(self, n: int) -> Work[T] | None:
        """Choose an item that waits for ring `n`; after `stop` none that waits for the first ring."""
        ring = self.rings[n]
        if n == 0 and self.stop.is_set():
            for item, _ in ring.waiting:
                self.leave(item)
            ring.waiting.clear()
        found = ring.take_waiting(time.monotonic())
        if found is not None and found[1] is not None:
            self._move(found[0], n + 1)
        return found

    def _fill(self, item: InFlightItem[T], batch: Batch[T], row: int) -> None:
        ring = self.rings[item.segment - 1]
        with self._timed(item, f"{ring.stage.name}.fill", ring.stage.name, len(ring.waiting)):
            ring.stage.model.fill(batch.slot, row, *ring.stage.inputs(item.finished.item))
        with self.lock:
            ring.filled(batch, row, failed=item.finished.error is not None)
            self.announce()
            # The ring takes the error back where the item waits for another slot, as a copy.
            failed = item.finished.error is not None
        if failed:
            self._finish(item)

    def _carry(self, item: InFlightItem[T]) -> None:
        """Read the item's result from its batch, run the steps of its segment, and pass it on."""
        done = item.finished
        if item.place is not None and done.error is None:
            self._read(item, *item.place)
        while done.error is None:
            succeeded = all(self._step(item, step) for step in self._segments[item.segment])
            if not succeeded or item.segment == len(self.rings):
                break
            if self._queued(item, self.rings[item.segment]):
                return
        self._finish(item)

    def _queued(self, item: InFlightItem[T], ring: Ring[T]) -> bool:
        """Queue an item for a ring; return False if it skips the ring, or failed."""
        done, stage = item.finished, ring.stage
        try:
            wanted = stage.wants is None or stage.wants(done.item)
            bucket = stage.model.bucket(*stage.inputs(done.item)) if wanted else None
        except Exception as error:
            done.stage, done.error = stage.name, error
            return False
        with self.lock:
            if wanted:
                done.stage = stage.name
                ring.waiting.append((item, bucket))
            else:
                self._move(item, item.segment + 1)
                self.announce()
        return wanted

    def _step(self, item: InFlightItem[T], step: Step[T]) -> bool:
        """Run a step; return whether it succeeded."""
        item.finished.stage = step.name
        with self._timed(item, step.name, step.name, len(self._ready[item.segment])):
            for _ in step(item.finished.item) or ():
                if self._alive is not None:
                    self._alive(item.finished.item)
                if self.stop.is_set():
                    raise _StoppedError
        return item.finished.error is None

    def _read(self, item: InFlightItem[T], batch: Batch[T], row: int) -> None:
        ring = self.rings[item.segment - 1]
        item.finished.seconds[ring.stage.name] += item.took
        with self._timed(item, f"{ring.stage.name}.after", ring.stage.name, len(self._ready[item.segment])):
            ring.stage.store(item.finished.item, ring.stage.model.read(batch.slot, row))
        item.place = None
        with self.lock:
            batch.unread -= 1
            if not batch.unread:
                ring.release(batch)
                self.announce()

    def _finish(self, item: InFlightItem[T]) -> None:
        """Pass on an item that needs no more work."""
        error = item.finished.error
        if isinstance(error, _StoppedError):
            with self.lock:
                self.leave(item)
            return
        if isinstance(error, self.failures.broken):
            self.end(error, dead=True)
            return
        try:
            if isinstance(error, self.failures.fatal):
                raise error
            self._done(item.finished)
        except Exception as fault:
            self.end(fault)
        with self.lock:
            self.leave(item)

    @contextmanager
    def _timed(self, item: InFlightItem[T], event: str, stage: str, waiting: int) -> Iterator[None]:
        """Time a block of an item's work, and keep what it raises as the item's error."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            item.finished.error = error
        end = time.monotonic()
        item.finished.seconds[stage] += end - start
        if self.watch:
            self.watch(Event(event, self.worker, threading.current_thread().name, start, end, 1, waiting))

    # For the devices, which announce what they change. Under the lock.

    def read_next(self, item: InFlightItem[T]) -> None:
        """Queue an item that comes from a device: its result is to be read, or its error passed on."""
        self._ready[item.segment].append(item)

    def retry(self, item: InFlightItem[T], ring: int, bucket: Hashable) -> None:
        """Queue an item for a ring once more, before all others."""
        self._move(item, ring)
        self.rings[ring].waiting.appendleft((item, bucket))

    def leave(self, item: InFlightItem[T]) -> None:
        """Drop an item, which is no longer in flight."""
        self._in_flight[item.segment] -= 1
        self._seal()

    def over(self) -> bool:
        """Whether nothing is in flight and nothing will be."""
        return self.dead or (not any(self._in_flight) and (self.stop.is_set() or self._source.ended()))

    def _move(self, item: InFlightItem[T], segment: int) -> None:
        """Move an item to a later segment, or back to an earlier one."""
        self._in_flight[item.segment] -= 1
        item.segment = segment
        self._in_flight[segment] += 1
        self._seal()

    def _seal(self) -> None:
        """Seal the batches that no further item can reach."""
        if self.stop.is_set() or self._source.ended():
            for n, ring in enumerate(self.rings):
                if not any(self._in_flight[: n + 1]):
                    ring.seal(0.0, everything=True)

    def end(self, error: Exception, dead: bool = False) -> None:
        """End the run with an error: after draining, or, if `dead`, immediately, without the items in flight."""
        with self.lock:
            self._error = self._error or error
            self.dead = self.dead or dead
            self.stop.set()
            self.wake()
            self._all.look()
