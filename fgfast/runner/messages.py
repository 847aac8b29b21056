"""What parent and worker processes tell each other: pickled tuples over the worker's standard input and output, and
the in-flight table, which outlives the worker.

Parent to worker:
    ("open", job, spec, watched, table)
                                    load what is needed; the first message. `table`: file of the in-flight table
    ("work", [(ticket, item)])      to be done
    ("end",)                        no more work comes; finish what there is
    ("stop",)                       finish what is in flight on a device, forget the rest

Worker to parent:
    ("opened", window, facts)       ready; takes so many items at a time
    ("refused", error)              cannot open
    ("results", [(ticket, handed_off, value)], [event])
    ("log", level, text)
    ("failed", error)               nothing more can be done at all; what was in flight is finished
    ("broken", text)                this process is beyond repair
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

# Exit status of a worker that its device has left in no state to go on; EX_SOFTWARE of sysexits.h.
EXIT_BROKEN = 70


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended.

    Attributes:
        signal: the number of the signal that ended it; None where none did.
        code: its exit status; None where a signal ended it. Both are None of a process that does not end.
    """

    signal: int | None = None
    code: int | None = None

    @property
    def killed(self) -> bool:
        """Whether it was killed from outside, or by its parent: SIGKILL."""
        return self.signal is not None and self.signal == getattr(signal, "SIGKILL", None)

    @property
    def broken(self) -> bool:
        """Whether its device left it in no state to go on."""
        return self.code == EXIT_BROKEN

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"signal {signal.Signals(self.signal).name}"
            except ValueError:
                return f"signal {self.signal}"
        return "does not end, even when killed" if self.code is None else f"exit status {self.code}"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What one worker process is for.

    Attributes:
        name: unique: "cpu", "cuda:0", "cpu#2".
        device: what it works on.
        phases: the first phase of the job that it does, and the one behind its last.
    """

    name: str
    device: str
    phases: tuple[int, int] = (0, 1)


@dataclass(frozen=True, slots=True)
class Handoff(Generic[T]):
    """What a runtime keeps of an item that is through with a phase and goes on to the next, maybe elsewhere."""

    item: T


class JobRuntime(Protocol[Item, Result]):
    """A job, opened in a worker process.

    Attributes:
        stages: of its phases, in order.
        threads: of the pool.
        failures: which exceptions mean what.
        facts: about it, for the parent; plain values.
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
        """What is kept of a finished item; called in a thread of the pool."""


class Job(Protocol[Item, Result]):
    """Something to be done to items. It is pickled, and opened in the worker process.

    Attributes:
        phases: into how many it can be split over devices.
    """

    @property
    def phases(self) -> int: ...

    def open(self, spec: WorkerSpec) -> JobRuntime[Item, Result]:
        """Load what is needed; whatever device there is must have been tried when this returns."""


class Channel:
    """One end of the line. Any thread may send; one thread receives."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message.

        Raises:
            OSError: nobody is at the other end.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._writing.write(data)
            self._writing.flush()

    def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
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
    """The error itself where it survives pickling, else its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, Exception) and str(copy) == str(error):
            return copy
    except Exception:  # some library's exception cannot be made again from its arguments
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


# A ticket, which is never zero, and the time.monotonic() since which it is in flight, one clock for all processes.
_ENTRY, _TICKET, _SINCE = struct.Struct("=qd"), struct.Struct("=q"), struct.Struct("=d")


class InFlightTable:
    """Which items a worker process has begun, in memory that outlives it, for its parent to read.

    A message per item would cost more than a small item does.

    Args:
        path: of its file; None makes one.
        entries: the most items at a time; what exceeds them is not noted.
    """

    def __init__(self, path: str | None = None, entries: int = 4096) -> None:
        self._own = path is None
        if path is None:
            # Memory where the system has a place for it; nothing here need outlive the machine.
            folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            handle, path = tempfile.mkstemp(prefix="fgfast-", suffix=".in-flight", dir=folder)
            allocate = getattr(os, "posix_fallocate", None)  # a full disk is an error now, and no signal later
            if allocate is not None:
                allocate(handle, 0, entries * _ENTRY.size)
            else:
                os.ftruncate(handle, entries * _ENTRY.size)
        else:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self.path = path
        self._table = mmap.mmap(handle, 0)
        os.close(handle)
        self._entries = len(self._table) // _ENTRY.size
        self._free = list(range(self._entries - 1, -1, -1))
        self._place: dict[int, int] = {}
        self._lock = threading.Lock()

    def begin(self, ticket: int) -> None:
        """Note, before anything is done to it, that an item is in flight."""
        with self._lock:
            if self._free:
                place = self._place[ticket] = self._free.pop()
                # The time first: a reader must not see a ticket without it.
                _SINCE.pack_into(self._table, place * _ENTRY.size + _TICKET.size, time.monotonic())
                _TICKET.pack_into(self._table, place * _ENTRY.size, ticket)

    def end(self, ticket: int) -> None:
        """Note that nothing more will be done to an item."""
        with self._lock:
            place = self._place.pop(ticket, None)
            if place is not None:
                _TICKET.pack_into(self._table, place * _ENTRY.size, 0)
                self._free.append(place)

    def read(self) -> dict[int, float]:
        """Ticket -> since when."""
        return {ticket: since for ticket, since in _ENTRY.iter_unpack(self._table[:]) if ticket}

    def unlink(self) -> None:
        """Remove the file once both sides have it open; where that is impossible, the maker's `close` does it."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    def close(self) -> None:
        """Give the memory back."""
        self._table.close()
        if self._own:
            self.unlink()
