"""The parent's side of one seat: its worker process, what it was given, and how often it died."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from fgfast.runner.messages import BROKEN, Channel, Message, Seat
from fgfast.runner.tasks import Task
from fgfast.runner.touched import Touched

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
# Seconds after which a worker that takes the place of another must have opened, or three times what the first took.
_OPENING = 600.0
# Seconds a worker has for leaving once it was told that it is over.
_LEAVE = 10.0
# A seat is lost when its workers cannot open so many times in a row; or are killed from outside so often while they do,
# which may be chance; or say so often that their device is broken, or die so often, without finishing anything.
_OPENINGS, _KILLED_OPENING, _BROKEN, _DEATHS = 3, 10, 5, 20

State = Literal["opening", "open", "leaving", "gone", "lost"]


Inbox = queue.SimpleQueue[tuple["Chair[Any]", int, Message | None]]


@dataclass(frozen=True, slots=True)
class Death(Generic[T]):
    """What is known of a worker that died.

    Attributes:
        reason: "crash", "hang" or "device failed".
        how: for a person: the signal, the exit status, or what the worker said of its device.
        killed: it was killed from outside.
        single: it had one task only, to be done alone.
        touched: tasks that it had in its hands.
        untouched: tasks that it had been given besides.
        last: the seat is lost.
    """

    reason: str
    how: str
    killed: bool
    single: bool
    touched: list[Task[T]]
    untouched: list[Task[T]]
    last: bool


@dataclass(slots=True, eq=False)
class Chair(Generic[T]):
    """A seat and who sits there.

    Attributes:
        seat: name, device, parts.
        state: of its worker.
        given: ticket -> task, everything sent and not answered.
        window: tasks it may have at a time.
        single: it has one task that is to be done alone.
        facts: what the opened job said.
        deaths: of its workers since one of them finished anything.
        broken: of these, how many said that their device was.
        openings: that failed since one did not.
        killed_opening: workers that were killed from outside while they opened, since one was not.
        slow: seconds that the first opening took.
        why: what its last worker said or died of.
        turn: number of its worker; what earlier ones said does not count.
        pace: seconds an item, of late.
        hung: its worker was ended because it gave no answer.
    """

    seat: Seat
    state: State = "gone"
    given: dict[int, Task[T]] = field(default_factory=dict)
    window: int = 0
    single: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    deaths: int = 0
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
    touched: Touched | None = None

    def start(self, job: Any, watched: bool, inbox: Inbox) -> None:
        """Start a worker; what it says arrives in `inbox` with this chair and the turn."""
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
            target=_receive, args=(self, self.turn, self.channel, inbox), name=f"from {self.seat.name}", daemon=True
        ).start()
        if self.touched is not None:
            self.touched.close()
        self.touched = Touched()
        self.send("open", job, self.seat, watched, self.touched.path)

    def send(self, *message: Any) -> None:
        """Send a message; a worker that is gone will be noticed by whoever receives."""
        assert self.channel is not None
        try:
            self.channel.send(*message)
        except OSError:
            log.debug("%s does not listen any more", self.seat.name)

    def opened(self, window: int, facts: dict[str, Any]) -> None:
        """The worker is ready, and takes so many items at a time."""
        self.slow = self.slow or time.monotonic() - self.last
        # Ahead of its work by as much again, and by what comes and goes in one message.
        self.state, self.window, self.facts = "open", 2 * window + 16, facts
        self.openings, self.killed_opening, self.last = 0, 0, time.monotonic()

    def holds(self) -> dict[int, float]:
        """Tickets that the worker has in its hands, and since when (time.monotonic())."""
        return {} if self.touched is None else self.touched.read()

    def close(self) -> None:
        """End the worker, if there is one, and give everything back."""
        self.kill()
        if self.process is not None:
            self.buried()
        if self.touched is not None:
            self.touched.close()
            self.touched = None

    def give(self, tasks: list[Task[T]]) -> None:
        """Send tasks."""
        if not self.given:
            self.last = time.monotonic()
        self.given.update((task.ticket, task) for task in tasks)
        self.send("work", [(task.ticket, task.item) for task in tasks])

    def kill(self) -> None:
        """End the worker at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def buried(self) -> str:
        """Wait for a worker that is gone; how it ended."""
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
            return "does not end, even when killed"
        if status < 0:
            try:
                return f"signal {signal.Signals(-status).name}"
            except ValueError:
                return f"signal {-status}"
        return f"exit status {status}"

    def died(self) -> Death[T]:
        """The worker is gone, and was not told to go: what is known of it. The seat is empty then."""
        how, opening = self.buried(), self.state == "opening"
        reason = "hang" if self.hung else "device failed" if self.why and how == f"exit status {BROKEN}" else "crash"
        killed = how == "signal SIGKILL" and not self.hung
        self.deaths += 1
        self.broken += reason == "device failed"
        self.killed_opening += opening and killed
        self.openings += opening and not killed
        last = (
            self.openings >= _OPENINGS
            or self.killed_opening >= _KILLED_OPENING
            or self.broken >= _BROKEN
            or self.deaths >= _DEATHS
        )
        self.why = self.why or how
        tasks, holds, single = self.leave_all(), self.holds(), self.single
        touched = [task for task in tasks if task.ticket in holds]
        untouched = [task for task in tasks if task.ticket not in holds]
        self.state, self.single = "lost" if last else "gone", False
        return Death(reason, self.why if reason == "device failed" else how, killed, single, touched, untouched, last)

    def leave_all(self) -> list[Task[T]]:
        """Its tasks, which it has no more."""
        tasks = list(self.given.values())
        self.given.clear()
        return tasks

    def answered(self, tasks: int, now: float) -> None:
        """Note the pace: seconds an item, so that slow work is not taken for a hang."""
        seconds = (now - self.last) / max(1, tasks)
        self.pace = seconds if not self.pace else 0.8 * self.pace + 0.2 * seconds
        self.last, self.deaths, self.broken = now, 0, 0

    def overdue(self, deadline: float, now: float) -> bool:
        """Whether something was touched so long ago that the worker must hang."""
        if self.hung:
            return False
        if self.state == "opening":
            return bool(self.slow) and now - self.last > max(_OPENING, 3 * self.slow)
        if self.state not in ("open", "leaving"):
            return False
        patience = max(deadline, 3 * self.pace * max(self.window, len(self.given)))
        return now - min(self.holds().values(), default=now) > patience


def _receive(chair: Chair[Any], turn: int, channel: Channel, inbox: Inbox) -> None:
    try:
        while (message := channel.receive()) is not None:
            inbox.put((chair, turn, message))
    except Exception:  # what came cannot be read, and neither can what follows
        log.exception("a message of %s cannot be read; its worker is ended", chair.seat.name)
        chair.kill()
    finally:
        inbox.put((chair, turn, None))
