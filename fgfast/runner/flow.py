"""Items through stages within one process.

Steps are done by a pool of threads, which always take what is furthest along, so that little lies about. A batched
stage has a ring of slots; a thread for each device launches what is ready, the furthest along first, and another waits
for it, so that the device has its next batch while one is computed. The number of items under way is bounded; taking a
further one from the source is the pool's own act. A stage's exception travels as a value with its item.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from fgfast.runner.batching import Batch, Flight, Ring
from fgfast.runner.device import Device
from fgfast.runner.stages import Batched, Event, Failures, Finished, Stage, Step, T, Watch, is_batched

Out = TypeVar("Out", covariant=True)

# Seconds after which a batch that is not full goes as it is: several times what a device takes for a batch, so that
# batches are full while items come, and little beside the time a person notices.
LINGER = 0.05


class Source(Protocol[Out]):
    """Where items come from."""

    def take(self) -> Out | None:
        """The next item, or None: there is none now. Must not wait; called under the flow's lock."""

    def ended(self) -> bool:
        """Whether there will never be one again."""


@dataclass(frozen=True, slots=True)
class _Leg(Generic[T]):
    """Steps between two batched stages, and the ring of the stage they lead to."""

    steps: tuple[Step[T], ...]
    ring: Ring[T] | None


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
        seat: str = "",
        linger: float = LINGER,
    ) -> None:
        self._source, self._done, self.stop = source, done, stop
        self.failures, self.watch, self.seat = failures or Failures(), watch, seat
        self._legs = _legs(stages, linger, self.failures.memory)
        self.rings = [leg.ring for leg in self._legs if leg.ring]
        self._threads = threads
        self.limit = in_flight(stages, threads)
        self.changed = threading.Condition()
        self.ready: list[deque[Flight[T]]] = [deque() for _ in self._legs]
        self._under_way = 0
        # Items that a ring may still get: under way and not past it.
        self.before = [0] * len(self.rings)
        self._error: Exception | None = None
        self.dead = False

    def wake(self) -> None:
        """Something changed outside: the source has items, or `stop` was set."""
        with self.changed:
            self.changed.notify_all()

    def run(self) -> None:
        """Carry all items through; returns when none is under way.

        Raises:
            Exception: a fatal one of a stage or of `done`, after draining; at once where the device is broken.
        """
        devices = {ring.stage.device: Device(self, ring.stage.device) for ring in self.rings}
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
        except BaseException as error:  # SystemExit and its like, out of somebody's extension, or a fault of ours
            wrapped = error if isinstance(error, Exception) else RuntimeError(f"{name} was ended by {error!r}")
            self.die(wrapped)

    # The pool.

    def _work(self) -> None:
        thread = threading.current_thread().name
        while True:
            with self.changed:
                while (task := self._look()) is None:
                    if self.over():
                        self.changed.notify_all()
                        return
                    self.changed.wait()
            flight, place = task
            if place is not None:
                self._fill(flight, place, thread)
            else:
                self._carry(flight, thread)
            del task, flight, place

    def _look(self) -> tuple[Flight[T], tuple[Batch[T], int] | None] | None:
        """What to do next. Looking may make a batch ready, of which the device's thread must hear. Under the lock."""
        before = sum(len(ring.ready) for ring in self.rings)
        task = self._next()
        if sum(len(ring.ready) for ring in self.rings) > before:
            self.changed.notify_all()
        return task

    def _next(self) -> tuple[Flight[T], tuple[Batch[T], int] | None] | None:
        """What to do next: a flight to carry on, or a row to fill. Under the lock."""
        if self.dead:
            return None
        for leg in range(len(self._legs) - 1, -1, -1):
            if self.ready[leg]:
                return self.ready[leg].popleft(), None
            ring = self._legs[leg - 1].ring if leg else None
            if ring is not None and (found := self._row(leg - 1, ring)) is not None:
                return found
        if self.stop.is_set() or self._under_way >= self.limit:
            return None
        item = self._source.take()
        if item is None:
            if self._source.ended():
                self.seal()
            return None
        self._under_way += 1
        for n in range(len(self.before)):
            self.before[n] += 1
        return Flight(Finished(item)), None

    def _row(self, leg: int, ring: Ring[T]) -> tuple[Flight[T], tuple[Batch[T], int] | None] | None:
        """The first waiting flight that can have a row of the ring behind a leg."""
        if leg == 0 and self.stop.is_set():
            for flight, _ in ring.waiting:
                self.leave(flight)
            ring.waiting.clear()
        for n, (flight, bucket) in enumerate(ring.waiting):
            try:
                place = ring.reserve(flight, bucket, time.monotonic())
            except Exception as error:
                del ring.waiting[n]
                flight.finished.error = error
                return flight, None
            if place is not None:
                del ring.waiting[n]
                self.before[leg] -= 1
                flight.leg = leg + 1
                self.seal()
                return flight, place
        return None

    def _fill(self, flight: Flight[T], place: tuple[Batch[T], int], thread: str) -> None:
        ring = self._ring_before(flight)
        batch, row = place
        start = time.monotonic()
        try:
            ring.stage.fill(batch.slot, row, flight.finished.item)
        except Exception as error:
            flight.finished.error = error
        self._note(flight, f"{ring.stage.name}.fill", ring.stage.name, thread, start, len(ring.waiting))
        with self.changed:
            ring.filled(batch, row, flight.finished.error is not None)
            self.changed.notify_all()
        if flight.finished.error is not None:
            self._finish(flight)

    def _carry(self, flight: Flight[T], thread: str) -> None:
        """Read what a device made of it, do the steps of its leg, and pass it on."""
        done = flight.finished
        if flight.place is not None and done.error is None:
            self._read(flight, thread)
        legs = self._legs
        while done.error is None and flight.leg < len(legs):
            leg = legs[flight.leg]
            if not all(self._step(flight, step, thread) for step in leg.steps) or leg.ring is None:
                break
            try:
                wanted = leg.ring.stage.wants(done.item)
                bucket = leg.ring.stage.bucket(done.item) if wanted else None
            except Exception as error:
                done.stage, done.error = leg.ring.stage.name, error
                break
            if wanted:
                done.stage = leg.ring.stage.name
                with self.changed:
                    leg.ring.waiting.append((flight, bucket))
                    self.changed.notify_all()
                return
            with self.changed:
                self.before[flight.leg] -= 1
                flight.leg += 1
                self.seal()
        self._finish(flight)

    def _step(self, flight: Flight[T], step: Step[T], thread: str) -> bool:
        """Do a step; whether it went well."""
        flight.finished.stage = step.name
        start = time.monotonic()
        try:
            step(flight.finished.item)
        except Exception as error:
            flight.finished.error = error
        self._note(flight, step.name, step.name, thread, start, len(self.ready[flight.leg]))
        return flight.finished.error is None

    def _read(self, flight: Flight[T], thread: str) -> None:
        assert flight.place is not None
        batch, row = flight.place
        ring = self._ring_before(flight)
        start = time.monotonic()
        try:
            ring.stage.read(batch.slot, row, flight.finished.item)
        except Exception as error:
            flight.finished.error = error
        flight.finished.spend(ring.stage.name, flight.took)
        self._note(flight, f"{ring.stage.name}.after", ring.stage.name, thread, start, len(self.ready[flight.leg]))
        flight.place = None
        with self.changed:
            batch.unread -= 1
            if not batch.unread:
                ring.release(batch)
                self.changed.notify_all()

    def _finish(self, flight: Flight[T]) -> None:
        """Hand a flight out that needs no more work."""
        error = flight.finished.error
        if isinstance(error, self.failures.broken):
            self.die(error)
            return
        try:
            if isinstance(error, self.failures.fatal):
                self._fail(error)
            else:
                self._done(flight.finished)
        except Exception as fault:  # a fault of `done` itself: nothing sensible can be recorded
            self._fail(fault)
        with self.changed:
            self.leave(flight)

    # What both share.

    def _ring_before(self, flight: Flight[T]) -> Ring[T]:
        ring = self._legs[flight.leg - 1].ring
        assert ring is not None
        return ring

    def _note(self, flight: Flight[T], stage: str, name: str, thread: str, start: float, waiting: int) -> None:
        end = time.monotonic()
        flight.finished.spend(name, end - start)
        if self.watch:
            self.watch(Event(stage, self.seat, thread, start, end, 1, waiting))

    def leave(self, flight: Flight[T]) -> None:
        """A flight is no more under way. Under the lock."""
        self._under_way -= 1
        for n in range(flight.leg, len(self.before)):
            self.before[n] -= 1
        self.seal()
        self.changed.notify_all()

    def seal(self) -> None:
        """Send off batches that nothing more can come to. Under the lock."""
        no_more = self.stop.is_set() or self._source.ended()
        for n, ring in enumerate(self.rings):
            if no_more and not self.before[n]:
                ring.seal(0.0, everything=True)

    def over(self) -> bool:
        return self.dead or (not self._under_way and (self.stop.is_set() or self._source.ended()))

    def _fail(self, error: Exception) -> None:
        """The run ends after draining."""
        with self.changed:
            self._error = self._error or error
            self.stop.set()
            self.changed.notify_all()

    def die(self, error: Exception) -> None:
        """The run ends at once; what is under way is lost."""
        with self.changed:
            self._error = self._error or error
            self.dead = True
            self.stop.set()
            self.changed.notify_all()


def in_flight(stages: Sequence[Stage[Any]], threads: int) -> int:
    """Items that are under way at most: one for each thread, and all rows of all slots."""
    batched = [cast("Batched[Any]", stage) for stage in stages if is_batched(stage)]
    return threads + sum(_slots(stage) * stage.batch for stage in batched)


def _slots(stage: Batched[Any]) -> int:
    """Slots of a ring: those on the device, one being filled, one being read."""
    return stage.depth + 2


def _legs(stages: Sequence[Stage[T]], linger: float, memory: tuple[type[Exception], ...]) -> list[_Leg[T]]:
    legs: list[_Leg[T]] = []
    steps: list[Step[T]] = []
    for stage in stages:
        if is_batched(stage):
            batched = cast("Batched[T]", stage)
            legs.append(_Leg(tuple(steps), Ring(batched, _slots(batched), linger, memory)))
            steps = []
        else:
            steps.append(cast("Step[T]", stage))
    legs.append(_Leg(tuple(steps), None))
    return legs
