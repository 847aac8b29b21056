"""A device and its two threads: one launches batches, one waits for them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic

from fgfast.runner.batching import Batch, Ring
from fgfast.runner.stages import Event, T

if TYPE_CHECKING:
    from fgfast.runner.flow import Flow


class Device(Generic[T]):
    """The two threads of a device.

    They use the flow's lock and state (`lock`, `stop`, `dead`, `over`, `end`) and hand items back to the flow
    (`read_next`, `retry`, `leave`), which alone tracks where items are. What they change they `announce` to the flow;
    see fgfast.runner.flow for who waits for what.

    Attributes:
        name: the device's name.
    """

    def __init__(self, flow: Flow[T], name: str) -> None:
        self._flow, self.name = flow, name
        self._rings = [(n, ring) for n, ring in enumerate(flow.rings) if ring.stage.model.device == name]
        self._depth = min(ring.stage.model.depth for _, ring in self._rings)
        self._launched: deque[tuple[int, Ring[T], Batch[T], float, int]] = deque()
        self._ended = False
        for _, ring in self._rings:
            ring.room = self._room
        self._launching, self._waiting = threading.Condition(flow.lock), threading.Condition(flow.lock)
        # time.monotonic() at which the sleeping launch thread wakes by itself; None while it is awake, or was woken.
        self._alarm: float | None = None

    def announce(self) -> None:
        """Wake the launch thread if a batch can be launched, or is due before it would wake. Under the lock."""
        if self._alarm is not None and (self._can_launch() or self._next_due() < self._alarm):
            self._alarm = None
            self._launching.notify()

    def wake(self) -> None:
        """Wake both threads, because the flow is over, or `stop` was set. Under the lock."""
        self._launching.notify()
        self._waiting.notify()

    def launch_all(self) -> None:
        """Launch ready batches until the flow is over: one of the two threads."""
        flow = self._flow
        try:
            while (found := self._next_batch()) is not None:
                n, ring, batch, *_ = found
                if len(batch.rows) > ring.stage.model.rows(batch.bucket):
                    self._split(n, ring, batch)  # shapes have become smaller since it was started
                elif (error := self._launch(ring, batch)) is None:
                    with flow.lock:
                        self._launched.append(found)
                        self._waiting.notify()
                else:
                    self._failed(n, ring, batch, error)
                del found, batch
        finally:
            with flow.lock:
                self._ended = True
                self._waiting.notify()

    def _next_batch(self) -> tuple[int, Ring[T], Batch[T], float, int] | None:
        """Return the next batch to launch, with the time and the number of those that wait; None once all is over."""
        flow = self._flow
        with flow.lock:
            while True:
                found = self._pick()
                flow.announce()  # sealing and giving back may have freed slots
                if found is not None:
                    ring = found[1]
                    return *found, time.monotonic(), len(ring.ready) + len(ring.waiting)
                if flow.over():
                    return None
                if not self._can_launch():
                    self._sleep()

    def _sleep(self) -> None:
        self._alarm = due = self._next_due()
        self._launching.wait(None if due == math.inf else max(0.0, due - time.monotonic()) + 1e-4)
        self._alarm = None

    def _can_launch(self) -> bool:
        return len(self._launched) < self._depth and any(ring.ready for _, ring in self._rings)

    def _pick(self) -> tuple[int, Ring[T], Batch[T]] | None:
        """Choose the next batch to launch. Under the lock."""
        flow, now = self._flow, time.monotonic()
        for _, ring in self._rings:
            ring.seal(now, everything=False)
        if flow.stop.is_set():
            self._give_back()
        if len(self._launched) >= self._depth or flow.dead:
            return None
        for n, ring in reversed(self._rings):
            if ring.ready:
                return n, ring, ring.ready.popleft()
        return None

    def _room(self) -> int:
        """Return how many more batches could be queued, besides those that are to be launched. Under the lock."""
        return self._depth - len(self._launched) - sum(ring.coming for _, ring in self._rings)

    def _give_back(self) -> None:
        """Give back the batches of the first ring, which have not started; later ones may be ready then."""
        for n, ring in self._rings:
            while n == 0 and ring.ready:
                batch = ring.ready.popleft()
                for item in batch.items:
                    self._flow.leave(item)
                ring.release(batch)

    def _next_due(self) -> float:
        """Return the time.monotonic() at which the next open batch is due; infinity where none is open."""
        return min((due for _, ring in self._rings if (due := ring.next_due()) is not None), default=math.inf)

    def _launch(self, ring: Ring[T], batch: Batch[T]) -> Exception | None:
        """Launch a batch; return what it raised. Where memory was short, the model shrinks its shapes."""
        model = ring.stage.model
        try:
            model.launch(batch.slot, len(batch.rows))
        except self._flow.failures.memory as error:
            try:
                model.shrink()
            except Exception as fault:
                return fault
            return error
        except Exception as error:
            return error
        return None

    def wait_all(self) -> None:
        """Wait for launched batches until the flow is over: the other thread."""
        flow, last = self._flow, 0.0
        while True:
            with flow.lock:
                while not self._launched:
                    if self._ended or flow.dead:
                        return
                    self._waiting.wait()
                n, ring, batch, start, waiting = self._launched[0]
            error: Exception | None = None
            try:
                ring.stage.model.wait(batch.slot)
            except Exception as raised:
                error = raised
            end = time.monotonic()
            start, last = max(start, last), end
            if flow.watch:
                flow.watch(Event(ring.stage.name, flow.worker, "device", start, end, len(batch.items), waiting))
            with flow.lock:
                self._launched.popleft()
                if error is None:
                    self._succeeded(ring, batch, end - start)
                flow.announce()
            if error is not None:
                self._failed(n, ring, batch, error)
            del batch

    def _succeeded(self, ring: Ring[T], batch: Batch[T], seconds: float) -> None:
        ring.succeeded()
        batch.unread = len(batch.items)
        for row, item in enumerate(batch.rows):
            if item is not None:
                item.place, item.took = (batch, row), seconds / batch.unread
                self._flow.read_next(item)

    def _split(self, n: int, ring: Ring[T], batch: Batch[T]) -> None:
        """Free a batch and queue its items again, before all others."""
        with self._flow.lock:
            ring.release(batch)
            for item in reversed(batch.items):
                self._flow.retry(item, n, batch.bucket)
            self._flow.announce()

    def _failed(self, n: int, ring: Ring[T], batch: Batch[T], error: Exception) -> None:
        """Halve a batch where memory was short; otherwise retry each of its items alone where there were several.

        A single item is retried, too, where the model has shrunk its shapes: it may fit then.
        """
        flow, items = self._flow, batch.items
        if isinstance(error, flow.failures.broken):
            flow.end(error, dead=True)
            return
        short = isinstance(error, flow.failures.memory)
        with flow.lock:
            if short:
                ring.halve(batch)
            if len(items) == 1 and ring.stage.model.rows(batch.bucket) >= batch.capacity:
                ring.release(batch)
                items[0].finished.error = error
                flow.read_next(items[0])
                flow.announce()
                return
            for item in items:
                item.alone = item.alone or not short
        self._split(n, ring, batch)
