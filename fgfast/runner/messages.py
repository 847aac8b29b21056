"""The protocol between the parent and its worker processes: pickled tuples over the worker's standard input and output,
and the in-flight table, which outlives the worker.

Parent to worker:
    ("open", job, spec, watched, table)
                                    open the job; the first message. `table`: path of the in-flight table
    ("work", [(ticket, item)])      process these items
    ("end",)                        no more work will come; finish what is left
    ("stop",)                       finish what is in flight on a device, drop the rest

Worker to parent:
    ("opened", window, facts)       ready; takes up to `window` items at a time
    ("refused", error)              the job could not be opened
    ("results", [(ticket, handed_off, value)], [event])
    ("log", level, text)
    ("failed", error)               a fatal error; the items in flight were finished
    ("broken", text)                the process can no longer be used
    ("ended",)                      the last message
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from fgfast.runner.stages import Failures, Finished, Stage

T = TypeVar("T")
R = TypeVar("R")
Item = TypeVar("Item")
Result = TypeVar("Result", covariant=True)

Message = tuple[Any, ...]

# Exit status of a worker whose device no longer works; EX_SOFTWARE of sysexits.h.
EXIT_BROKEN = 70


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process.

    Attributes:
        status: the exit status, or minus the number of the signal that ended it; None if the process does not end.
    """

    status: int | None

    @property
    def killed(self) -> bool:
        """Whether it was killed from outside, or by its parent: SIGKILL."""
        return hasattr(signal, "SIGKILL") and self.status == -signal.SIGKILL

    def __str__(self) -> str:
        if self.status is None:
            return "does not end, even when killed"
        if self.status >= 0:
            return f"exit status {self.status}"
        try:
            return f"signal {signal.Signals(-self.status).name}"
        except ValueError:
            return f"signal {-self.status}"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The device and the phases of one worker process.

    Attributes:
        name: its unique name: "cpu", "cuda:0", "cpu#2".
        device: the device that it uses.
        phases: the first phase of the job that it does, and the one after its last.
    """

    name: str
    device: str
    phases: tuple[int, int] = (0, 1)


@dataclass(frozen=True, slots=True)
class Handoff(Generic[T]):
    """The result of an item that has finished a phase and continues with the next, possibly in another process."""

    item: T


class JobRuntime(Protocol[Item, Result]):
    """A job, opened in a worker process.

    Attributes:
        stages: the stages of its phases, in order.
        threads: number of threads in the pool.
        failures: the meaning of exceptions.
        facts: plain values about it, for the parent.
    """

    @property
    def stages(self) -> Sequence[Stage[Item]]: ...

    @property
    def threads(self) -> int: ...

    @property
    def failures(self) -> Failures: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def result_of(self, finished: Finished[Item]) -> Result | Handoff[Item]:
        """Return the result to keep of a finished item; called in a thread of the pool."""


class Job(Protocol[Item, Result]):
    """The work to do on items. It is pickled, and opened in the worker process.

    Attributes:
        phases: number of phases that different devices can do.
    """

    @property
    def phases(self) -> int: ...

    def open(self, spec: WorkerSpec) -> JobRuntime[Item, Result]:
        """Load the models; a device that does not work must raise here, not at the first item."""


class Channel:
    """One end of the connection. Any thread may send; one thread receives."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message.

        Raises:
            OSError: the other end is closed.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._writing.write(data)
            self._writing.flush()

    def receive(self) -> Message | None:
        """Return the next message, or None once the other end is closed."""
        try:
            message: Message = pickle.load(self._reading)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return None
        return message

    def close(self) -> None:
        """Close both directions."""
        for file in (self._writing, self._reading):
            with contextlib.suppress(OSError):
                file.close()


def portable(error: BaseException) -> Exception:
    """Return the error itself if it survives pickling, otherwise its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, Exception) and str(copy) == str(error):
            return copy
    except Exception:  # some libraries' exceptions cannot be recreated from their arguments
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


# A ticket, which is never zero, and the time.monotonic() since which it is in flight; all processes share that clock.
_ENTRY, _TICKET, _SINCE = struct.Struct("=qd"), struct.Struct("=q"), struct.Struct("=d")


class InFlightTable:
    """The items that a worker process has started, in shared memory, which its parent reads after a crash.

    A message per item would cost more than a small item does.

    Args:
        path: its file; None creates one.
        entries: the most items at a time; further ones are not recorded.
    """

    def __init__(self, path: str | None = None, entries: int = 4096) -> None:
        self._own = path is None
        if path is None:
            # A file system in memory, where there is one; the table need not survive a reboot.
            folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            handle, path = tempfile.mkstemp(prefix="fgfast-", suffix=".in-flight", dir=folder)
            allocate = getattr(os, "posix_fallocate", None)  # a full disk raises here, instead of SIGBUS later
            if allocate is not None:
                allocate(handle, 0, entries * _ENTRY.size)
            else:
                os.ftruncate(handle, entries * _ENTRY.size)
        else:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self.path = path
        self._table = mmap.mmap(handle, 0)
        os.close(handle)
        self._free = list(range(len(self._table) // _ENTRY.size - 1, -1, -1))
        self._place: dict[int, int] = {}
        self._lock = threading.Lock()

    def begin(self, ticket: int) -> None:
        """Record that an item is in flight, before anything is done to it."""
        with self._lock:
            if self._free:
                place = self._place[ticket] = self._free.pop()
                # The time comes first: a reader must not see a ticket without it.
                _SINCE.pack_into(self._table, place * _ENTRY.size + _TICKET.size, time.monotonic())
                _TICKET.pack_into(self._table, place * _ENTRY.size, ticket)

    def alive(self, ticket: int) -> None:
        """Record that something is still done to an item, as if it had begun now."""
        with self._lock:
            if (place := self._place.get(ticket)) is not None:
                _SINCE.pack_into(self._table, place * _ENTRY.size + _TICKET.size, time.monotonic())

    def end(self, ticket: int) -> None:
        """Record that an item is no longer in flight."""
        with self._lock:
            place = self._place.pop(ticket, None)
            if place is not None:
                _TICKET.pack_into(self._table, place * _ENTRY.size, 0)
                self._free.append(place)

    def read(self) -> dict[int, float]:
        """Return ticket -> time.monotonic() since which it is in flight."""
        return {ticket: since for ticket, since in _ENTRY.iter_unpack(self._table[:]) if ticket}

    def unlink(self) -> None:
        """Remove the file once both sides have it open; where that is impossible, its creator's `close` does it."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    def close(self) -> None:
        """Release the memory."""
        self._table.close()
        if self._own:
            self.unlink()
