"""The parent's handle of one worker: its process, the tasks it was given, and its crashes."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fgfast import processes
from fgfast.runner import worker_output
from fgfast.runner.messages import EXIT_BROKEN, Channel, Exit, InFlightTable, Message, WorkerSpec
from fgfast.runner.queues import Task

T = TypeVar("T")
log = logging.getLogger("fgfast")

# What a worker process runs.
_START = "from fgfast.runner.worker import main; main()"
# By default the C library's allocator (mallopt(3)) returns the memory of every image to the system and requests it
# again, which takes a tenth of the time of a run without models. It may keep blocks of up to 32 MiB, 256 MiB in total.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
# The least number of items in a message to a worker, where there are so many: a message costs both sides about 100 us.
_MESSAGE = 8
# Seconds within which a process that replaces another must have opened, or three times what the first one took.
_OPENING = 600.0
# Seconds that a process has for ending.
_LEAVE = 10.0
# A worker is lost after this many processes in a row that fail to open; that are killed from outside while they open,
# which may be chance; that report a broken device, or crash, before they finish anything.
_OPENINGS, _KILLED_OPENING, _BROKEN, _CRASHES = 3, 10, 5, 20

State = Literal["opening", "open", "leaving", "gone", "lost"]
Reason = Literal["crash", "hang", "device failed"]


Inbox = queue.SimpleQueue[tuple["WorkerHandle[Any]", int, Message | None]]


@dataclass(frozen=True, slots=True)
class Crash(Generic[T]):
    """A process that crashed.

    Attributes:
        reason: "crash", "hang" or "device failed".
        detail: its exit status, or its report about its device, for a person.
        killed: it was killed from outside.
        single: it had only one task, which was to be tried alone.
        in_flight: the tasks that it had started.
        queued: its other tasks.
        last: the worker is lost.
    """

    reason: Reason
    detail: str
    killed: bool
    single: bool
    in_flight: list[Task[T]]
    queued: list[Task[T]]
    last: bool


@dataclass(slots=True, eq=False)
class WorkerHandle(Generic[T]):
    """A worker and its current process.

    Attributes:
        spec: name, device, phases.
        state: the state of the process.
        given: ticket -> task that was sent and has no result yet.
        window: the most tasks at a time.
        single: its only task is to be tried alone.
        facts: the facts that the opened job reported.
        crashes: number of crashes since a process finished any item.
        broken: how many of these reported a broken device.
        openings: number of failures to open since a process last opened.
        killed_opening: number of processes killed from outside while they opened, since a process last opened.
        slow: seconds that the first opening took.
        why: the last process's report, or its exit status.
        turn: number of the current process; messages of earlier ones are ignored.
        pace: recent seconds per item.
        last: time.monotonic() of the last sign of life.
        hung: the process was killed because it did not respond.
        ahead: whether it gets items before it needs them, several per message.
    """

    spec: WorkerSpec
    state: State = "gone"
    given: dict[int, Task[T]] = field(default_factory=dict)
    window: int = 0
    single: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    crashes: int = 0
    broken: int = 0
    openings: int = 0
    killed_opening: int = 0
    slow: float = 0.0
    why: str = ""
    turn: int = 0
    pace: float = 0.0
    last: float = 0.0
    hung: bool = False
    ahead: bool = True
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    table: InFlightTable | None = None

    def start(self, job: Any, watched: bool, inbox: Inbox) -> None:
        """Start a process; its messages arrive in `inbox`, with this handle and the turn."""
        unset = {name: value for name, value in _KEEP_MEMORY.items() if name not in os.environ}
        self.process = processes.start_python(_START, environment=unset)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        worker_output.forward(self.process.stderr, self.spec.name)  # type: ignore[arg-type]
        self.channel = Channel(self.process.stdout, self.process.stdin)  # type: ignore[arg-type]
        self.turn += 1
        self.state, self.hung, self.pace, self.last = "opening", False, 0.0, time.monotonic()
        self.why = ""
        threading.Thread(
            target=_receive, args=(self, self.turn, self.channel, inbox), name=f"from {self.spec.name}", daemon=True
        ).start()
        if self.table is not None:
            self.table.close()
        self.table = InFlightTable()
        self.send("open", job, self.spec, watched, self.table.path)

    def send(self, *message: Any) -> None:
        """Send a message; ignore a closed channel, because the receiving thread detects the end of the process."""
        assert self.channel is not None
        try:
            self.channel.send(*message)
        except OSError:
            log.debug("%s no longer receives messages", self.spec.name)

    def opened(self, window: int, facts: dict[str, Any]) -> None:
        """Record that the process is ready for up to `window` items at a time."""
        self.slow = self.slow or time.monotonic() - self.last
        # Twice as many, so that it never waits for the parent, as many more as a message holds, and those whose results
        # are still on their way.
        self.state, self.window, self.facts = "open", 2 * window + 2 * _MESSAGE if self.ahead else window, facts
        self.openings, self.killed_opening, self.last = 0, 0, time.monotonic()

    @property
    def hungry(self) -> bool:
        """Whether a message of the usual length still fits into the window; until then it has enough to do."""
        return len(self.given) <= self.window - (_MESSAGE if self.ahead else 1)

    def in_flight(self) -> dict[int, float]:
        """Return ticket -> time.monotonic() since which the process works on it."""
        return {} if self.table is None else self.table.read()

    def close(self) -> None:
        """End the process, if there is one, and release its resources."""
        self.kill()
        if self.process is not None:
            self.wait()
        if self.table is not None:
            self.table.close()
            self.table = None

    def give(self, tasks: list[Task[T]]) -> None:
        """Send tasks."""
        if not self.given:
            self.last = time.monotonic()
        self.given.update((task.ticket, task) for task in tasks)
        self.send("work", [(task.ticket, task.item) for task in tasks])

    def leave(self, message: str) -> None:
        """Let the process end: with its items in flight ("stop"), or with all that it was given ("end")."""
        self.state = "leaving"
        self.send(message)

    def take_back(self) -> list[Task[T]]:
        """Remove and return its tasks."""
        tasks = list(self.given.values())
        self.given.clear()
        return tasks

    def kill(self) -> None:
        """Kill the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def wait(self) -> Exit:
        """Wait for a process that is ending; kill it if it takes too long."""
        assert self.process is not None and self.channel is not None
        status: int | None = None
        for _ in range(2):
            try:
                status = self.process.wait(_LEAVE)
                break
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.channel.close()
        return Exit(status)

    def crashed(self) -> Crash[T]:
        """Describe the crash of the process, and count it; the worker has no process afterwards."""
        ended, opening = self.wait(), self.state == "opening"
        reason: Reason = (
            "hang" if self.hung else "device failed" if self.why and ended.status == EXIT_BROKEN else "crash"
        )
        killed = ended.killed and not self.hung
        self.crashes += 1
        self.broken += reason == "device failed"
        self.killed_opening += opening and killed
        self.openings += opening and not killed
        last = (
            self.openings >= _OPENINGS
            or self.killed_opening >= _KILLED_OPENING
            or self.broken >= _BROKEN
            or self.crashes >= _CRASHES
        )
        self.why = self.why or str(ended)
        tasks, begun, single = self.take_back(), self.in_flight(), self.single
        in_flight = [task for task in tasks if task.ticket in begun]
        queued = [task for task in tasks if task.ticket not in begun]
        self.state, self.single = "lost" if last else "gone", False
        detail = self.why if reason == "device failed" else str(ended)
        return Crash(reason, detail, killed, single, in_flight, queued, last)

    def answered(self, tasks: int, now: float) -> None:
        """Record results, and with them the pace, so that slow work is not mistaken for a hang."""
        seconds = (now - self.last) / max(1, tasks)
        self.pace = seconds if not self.pace else 0.8 * self.pace + 0.2 * seconds
        self.last, self.crashes, self.broken = now, 0, 0

    def overdue(self, deadline: float, now: float) -> bool:
        """Whether an item has been in flight for so long that the process must be hanging."""
        if self.hung:
            return False
        if self.state == "opening":
            return bool(self.slow) and now - self.last > max(_OPENING, 3 * self.slow)
        if self.state not in ("open", "leaving"):
            return False
        patience = deadline  # long items give signs of life
        if self.ahead:
            patience = max(deadline, 3 * self.pace * max(self.window, len(self.given)))
        return now - min(self.in_flight().values(), default=now) > patience


def _receive(handle: WorkerHandle[Any], turn: int, channel: Channel, inbox: Inbox) -> None:
    try:
        while (message := channel.receive()) is not None:
            inbox.put((handle, turn, message))
    except Exception:  # neither this message nor those after it can be read
        log.exception("a message from %s cannot be read; its process is killed", handle.spec.name)
        handle.kill()
    finally:
        inbox.put((handle, turn, None))
