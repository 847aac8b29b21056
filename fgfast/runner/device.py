"""A device and its two threads: one launches batches, one waits for them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Generic

from fgfast.runner.batching import Batch, Ring
from fgfast.runner.stages import Event, T

if TYPE_CHECKING:
    from fgfast.runner.flow import Flow


class Device(Generic[T]):
    """The two threads of a device: one launches, one waits."""

    def __init__(self, flow: Flow[T], name: str) -> None:
        self._flow, self._name = flow, name
        self.rings = [(n, ring) for n, ring in enumerate(flow.rings) if ring.stage.device == name]
        self._depth = min(ring.stage.depth for _, ring in self.rings)
        self._launched: deque[tuple[int, Ring[T], Batch[T], float, int]] = deque()
        self._ended = False

    def launch_all(self) -> None:
        flow = self._flow
        try:
            while True:
                with flow.changed:
                    while (found := self._pick()) is None:
                        if flow.over():
                            return
                        flow.changed.wait(self._until_due())
                    n, ring, batch = found
                    entry = (n, ring, batch, time.monotonic(), len(ring.ready) + len(ring.waiting))
                error = self._launch(ring, batch)
                if error is None:
                    with flow.changed:
                        self._launched.append(entry)
                        flow.changed.notify_all()
                else:
                    self._failed(n, ring, batch, error)
                del found, entry, batch
        finally:
            with flow.changed:
                self._ended = True
                flow.changed.notify_all()

    def _pick(self) -> tuple[int, Ring[T], Batch[T]] | None:
        """The next batch to launch. Under the lock."""
        flow, now = self._flow, time.monotonic()
        for _, ring in self.rings:
            ring.seal(now, everything=False)
        if flow.stop.is_set():
            self._give_back()
        if len(self._launched) >= self._depth or flow.dead:
            return None
        for n, ring in reversed(self.rings):
            if ring.ready:
                return n, ring, ring.ready.popleft()
        return None

    def _give_back(self) -> None:
        """What has not begun is given back; batches further on that nothing more can come to are ready then."""
        for n, ring in self.rings:
            while n == 0 and ring.ready:
                batch = ring.ready.popleft()
                for flight in batch.flights:
                    self._flow.leave(flight)
                ring.release(batch)

    def _until_due(self) -> float | None:
        due = [d for _, ring in self.rings if (d := ring.next_due()) is not None]
        return max(0.0, min(due) - time.monotonic()) + 1e-4 if due else None

    @staticmethod
    def _launch(ring: Ring[T], batch: Batch[T]) -> Exception | None:
        try:
            ring.stage.launch(batch.slot, len(batch.rows))
        except Exception as error:
            return error
        return None

    def wait_all(self) -> None:
        flow, last = self._flow, 0.0
        while True:
            with flow.changed:
                while not self._launched:
                    if self._ended or flow.dead:
                        return
                    flow.changed.wait()
                n, ring, batch, start, waiting = self._launched[0]
            error: Exception | None = None
            try:
                ring.stage.wait(batch.slot)
            except Exception as raised:
                error = raised
            end = time.monotonic()
            start, last = max(start, last), end
            if flow.watch:
                flow.watch(Event(ring.stage.name, flow.seat, "device", start, end, len(batch.flights), waiting))
            if error is None:
                self._succeeded(ring, batch, end - start)
            with flow.changed:
                self._launched.popleft()
                flow.changed.notify_all()
            if error is not None:
                self._failed(n, ring, batch, error)
            del batch

    def _succeeded(self, ring: Ring[T], batch: Batch[T], seconds: float) -> None:
        flow = self._flow
        with flow.changed:
            ring.succeeded()
            batch.unread = len(batch.flights)
            for row, flight in enumerate(batch.rows):
                if flight is not None:
                    flight.place, flight.took = (batch, row), seconds / batch.unread
                    flow.ready[flight.leg].append(flight)
            flow.changed.notify_all()

    def _failed(self, n: int, ring: Ring[T], batch: Batch[T], error: Exception) -> None:
        """A batch failed: in halves where it was too large, each item alone where there were several."""
        flow, flights = self._flow, batch.flights
        if isinstance(error, flow.failures.broken):
            flow.die(error)
            return
        with flow.changed:
            ring.release(batch)
            if isinstance(error, flow.failures.memory):
                ring.shrink(batch)
            # A graph of fixed shape may have become smaller, and the same item less work.
            several = len(flights) > 1 or ring.stage.rows(batch.bucket) < batch.capacity
            for flight in reversed(flights):
                if several:
                    flight.alone = flight.alone or not isinstance(error, flow.failures.memory)
                    flight.leg = n
                    flow.before[n] += 1
                    ring.waiting.appendleft((flight, batch.bucket))
                else:
                    flight.finished.error = error
                    flow.ready[flight.leg].append(flight)
            flow.seal()
            flow.changed.notify_all()
