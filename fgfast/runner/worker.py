"""A worker process: it opens a job, processes the items it is given, and records them in its in-flight table.

It ends with its parent: its standard input is closed then, and Linux kills it immediately (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from typing import Any

from fgfast.runner.flow import Flow
from fgfast.runner.messages import EXIT_BROKEN, Channel, Handoff, InFlightTable, JobRuntime, portable
from fgfast.runner.stages import BatchedStage, Event, Finished

# Results that come within this many seconds go to the parent together, or as many at once: a message costs it about
# 100 us. WorkerHandle.opened allows for as many on their way.
_GATHER, _MOST = 0.03, 8
# Threads release the GIL after this many seconds where a device waits for the thread that launches batches; elsewhere
# Python's default of 5 ms costs less.
_SWITCH = 0.001


def main() -> None:
    """Run until the parent ends it."""
    channel = _channel()
    _end_with_parent()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the parent handles them and lets this process finish its items
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _send_logs(channel)
    first = channel.receive()
    if first is None:
        os._exit(0)
    _, job, spec, watched, path = first
    table = InFlightTable(path)
    table.unlink()  # the parent has it open, too
    try:
        runtime = job.open(spec)
    except BaseException as error:
        channel.send("refused", portable(error))
        os._exit(1)
    status = Worker(channel, runtime, spec.name, watched, table).run()
    os._exit(status)  # without waiting for threads of libraries, which may hang


def _channel() -> Channel:
    """Return the channel over standard input and output; redirect everything that prints to standard error."""
    writing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Channel(sys.stdin.buffer, writing)


def _end_with_parent() -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        pr_set_pdeathsig = 1  # linux/prctl.h
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _ToParent(logging.Handler):
    """Passes this process's log records to the parent's logging."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self._channel.send("log", record.levelno, self.format(record))


def _send_logs(channel: Channel) -> None:
    logger = logging.getLogger("fgfast")
    logger.handlers[:] = [_ToParent(channel)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class Worker:
    """A job in this process.

    Args:
        channel: the channel to the parent.
        runtime: the opened job.
        name: the worker's name.
        watched: whether to report each piece of work to the parent.
        table: the in-flight table.
    """

    def __init__(
        self, channel: Channel, runtime: JobRuntime[Any, Any], name: str, watched: bool, table: InFlightTable
    ) -> None:
        self._channel, self._runtime = channel, runtime
        if any(isinstance(stage, BatchedStage) and stage.model.depth > 1 for stage in runtime.stages):
            sys.setswitchinterval(_SWITCH)
        self._stop = threading.Event()
        self._inbox = _Inbox(table)
        self._results = _Results(channel)
        self.flow: Flow[Any] = Flow(
            runtime.stages,
            self._inbox,
            self._done,
            threads=runtime.threads,
            stop=self._stop,
            failures=runtime.failures,
            watch=self._results.event if watched else None,
            worker=name,
            alive=self._inbox.alive,
        )

    def run(self) -> int:
        """Work until the parent ends it; return the exit status."""
        self._channel.send("opened", self.flow.limit, self._runtime.facts)
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        try:
            self.flow.run()
        except self._runtime.failures.broken as error:
            self._results.flush()
            self._channel.send("broken", f"{type(error).__name__}: {error}")
            return EXIT_BROKEN
        except Exception as error:
            self._results.flush()
            self._channel.send("failed", portable(error))
            return 1
        self._results.flush()
        self._channel.send("ended")
        return 0

    def _done(self, finished: Finished[Any]) -> None:
        value = self._runtime.result_of(finished)
        ticket = self._inbox.done_with(finished.item)
        handed_off = isinstance(value, Handoff)
        self._results.put((ticket, handed_off, value.item if handed_off else value))

    def _receive(self) -> None:
        while (message := self._channel.receive()) is not None:
            if message[0] == "work":
                self._inbox.add(message[1])
            else:
                if message[0] == "stop":
                    self._stop.set()
                self._inbox.end()
            self.flow.wake()
        os._exit(0)  # the parent is gone


class _Inbox:
    """The items from the parent; a `Source`."""

    def __init__(self, table: InFlightTable) -> None:
        self._table = table
        self._waiting: deque[tuple[int, Any]] = deque()
        self._tickets: dict[int, int] = {}
        self._over = False

    def add(self, items: list[tuple[int, Any]]) -> None:
        self._waiting.extend(items)

    def end(self) -> None:
        self._over = True

    def take(self) -> Any | None:
        """Return the next item; see `Source`."""
        if not self._waiting:
            return None
        ticket, item = self._waiting.popleft()
        self._tickets[id(item)] = ticket  # the flow holds the item until it is done
        self._table.begin(ticket)
        return item

    def ended(self) -> bool:
        """Whether the parent has ended the work and all of it was taken; see `Source`."""
        return self._over and not self._waiting

    def alive(self, item: Any) -> None:
        """Record a sign of life of an item."""
        self._table.alive(self._tickets[id(item)])

    def done_with(self, item: Any) -> int:
        """Record that an item is finished; return its ticket."""
        ticket = self._tickets.pop(id(item))
        self._table.end(ticket)
        return ticket


class _Results:
    """Sends results and events to the parent, several per message."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._results: list[tuple[int, bool, Any]] = []
        self._events: list[Event] = []
        self._some, self._many = threading.Event(), threading.Event()
        threading.Thread(target=self._send_all, name="results", daemon=True).start()

    def put(self, result: tuple[int, bool, Any]) -> None:
        with self._lock:
            self._results.append(result)
            many = len(self._results) >= _MOST
        self._some.set()
        if many:
            self._many.set()

    def event(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def flush(self) -> None:
        """Send what is waiting, under the lock, so that nothing is sent twice or out of order."""
        with self._lock:
            results, self._results = self._results, []
            events, self._events = self._events, []
            if results or events:
                self._channel.send("results", results, events)

    def _send_all(self) -> None:
        while True:
            self._some.wait()
            self._many.wait(_GATHER)
            self._some.clear()
            self._many.clear()
            try:
                self.flush()
            except OSError:
                os._exit(0)  # the parent is gone
            except BaseException as error:  # a result that cannot be sent must not be lost silently
                self._channel.send("failed", portable(error))
                os._exit(1)
