"""The parent's handle of one worker process: the process itself, what it was given, and how often it crashed."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fgfast.runner.messages import Channel, Exit, InFlightTable, Message, WorkerSpec
from fgfast.runner.tasks import Task

T = TypeVar("T")
log = logging.getLogger("fgfast")

# What `python -c` runs: the parent's import path before anything is imported, so that both see the same modules,
# whatever lies in the current folder.
_START = "import sys; sys.path[:] = sys.argv[1].split(chr(10)); from fgfast.runner.worker import main; main()"
# The C library's allocator (mallopt(3)) would give the memory of every image back to the system and get it anew, a
# tenth of the time of a run without models. 32 MiB is the largest block that it may keep, 256 MiB what it may hold.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
# A worker gets no Ctrl-C, not even before it can refuse it.
_APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
# Seconds after which a worker process that replaces another must have opened, or three times what the first took.
_OPENING = 600.0
# Seconds a process has for leaving once it has been told to.
_LEAVE = 10.0
# A worker is lost when its processes cannot open so many times in a row; or are killed from outside so often while they
# do, which may be chance; or report a broken device so often, or crash so often, without finishing anything.
_OPENINGS, _KILLED_OPENING, _BROKEN, _CRASHES = 3, 10, 5, 20

State = Literal["opening", "open", "leaving", "gone", "lost"]
Reason = Literal["crash", "hang", "device failed"]


Inbox = queue.SimpleQueue[tuple["WorkerHandle[Any]", int, Message | None]]


@dataclass(frozen=True, slots=True)
class Crash(Generic[T]):
    """What is known of a process that crashed.

    Attributes:
        reason: "crash", "hang" or "device failed".
        detail: for a person: how it ended, or what it reported of its device.
        killed: it was killed from outside.
        single: it had one task only, to be done alone.
        in_flight: tasks that it worked on.
        queued: tasks that it had been given besides.
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
    """A worker and the process that it is at present.

    Attributes:
        spec: name, device, phases.
        state: of the process.
        given: ticket -> task, everything sent and not answered.
        window: tasks it may have at a time.
        single: it has one task that is to be done alone.
        facts: what the opened job reported.
        crashes: of its processes since one of them finished anything.
        broken: of these, how many reported a broken device.
        openings: that failed since one did not.
        killed_opening: processes that were killed from outside while they opened, since one was not.
        slow: seconds that the first opening took.
        why: what its last process reported, or how it ended.
        turn: number of its process; messages of earlier ones do not count.
        pace: seconds per item, of late.
        hung: its process was ended because it gave no answer.
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
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    table: InFlightTable | None = None

    def start(self, job: Any, watched: bool, inbox: Inbox) -> None:
        """Start a process; its messages arrive in `inbox` with this handle and the turn."""
        environment = {**_KEEP_MEMORY, **os.environ, "PYTHONSAFEPATH": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, "\n".join(str(path) for path in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **_APART,
        )
        assert self.process.stdin and self.process.stdout
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
        """Send a message; the receiving thread notices a process that is gone."""
        assert self.channel is not None
        try:
            self.channel.send(*message)
        except OSError:
            log.debug("%s does not listen any more", self.spec.name)

    def opened(self, window: int, facts: dict[str, Any]) -> None:
        """The process is ready, and takes so many items at a time."""
        self.slow = self.slow or time.monotonic() - self.last
        # Ahead of its work by as much again, and by what comes and goes in one message.
        self.state, self.window, self.facts = "open", 2 * window + 16, facts
        self.openings, self.killed_opening, self.last = 0, 0, time.monotonic()

    def in_flight(self) -> dict[int, float]:
        """Tickets that the process works on, and since when (time.monotonic())."""
        return {} if self.table is None else self.table.read()

    def close(self) -> None:
        """End the process, if there is one, and give everything back."""
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

    def take_back(self) -> list[Task[T]]:
        """Its tasks, which it has no more."""
        tasks = list(self.given.values())
        self.given.clear()
        return tasks

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def wait(self) -> Exit:
        """Wait for a process that is ending; how it ended."""
        assert self.process is not None and self.channel is not None
        status: int | None = None
        for _ in range(2):
            try:
                status = self.process.wait(_LEAVE)
                break
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.channel.close()
        if status is None:
            return Exit()
        return Exit(signal=-status) if status < 0 else Exit(code=status)

    def crashed(self) -> Crash[T]:
        """The process is gone and was not told to go: what is known of it. The worker has none then."""
        ended, opening = self.wait(), self.state == "opening"
        reason: Reason = "hang" if self.hung else "device failed" if self.why and ended.broken else "crash"
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
        """Note the pace: seconds per item, so that slow work is not taken for a hang."""
        seconds = (now - self.last) / max(1, tasks)
        self.pace = seconds if not self.pace else 0.8 * self.pace + 0.2 * seconds
        self.last, self.crashes, self.broken = now, 0, 0

    def overdue(self, deadline: float, now: float) -> bool:
        """Whether something has been in flight for so long that the process must hang."""
        if self.hung:
            return False
        if self.state == "opening":
            return bool(self.slow) and now - self.last > max(_OPENING, 3 * self.slow)
        if self.state not in ("open", "leaving"):
            return False
        patience = max(deadline, 3 * self.pace * max(self.window, len(self.given)))
        return now - min(self.in_flight().values(), default=now) > patience


def _receive(handle: WorkerHandle[Any], turn: int, channel: Channel, inbox: Inbox) -> None:
    try:
        while (message := channel.receive()) is not None:
            inbox.put((handle, turn, message))
    except Exception:  # what came cannot be read, and neither can what follows
        log.exception("a message of %s cannot be read; its process is ended", handle.spec.name)
        handle.kill()
    finally:
        inbox.put((handle, turn, None))
