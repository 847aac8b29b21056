"""What parent and worker processes tell each other: pickled tuples over the worker's standard input and output.

Parent to worker:
    ("open", job, seat, watched, table)
                                    load what is needed; the first message. `table`: file for what is touched
    ("work", [(ticket, item)])      to be done
    ("end",)                        no more work comes; finish what there is
    ("stop",)                       finish what is under way on a device, forget the rest

Worker to parent:
    ("opened", window, facts)       ready; takes so many items at a time
    ("refused", error)              cannot open
    ("results", [(ticket, passed, value)], [event])
    ("log", level, text)
    ("failed", error)               nothing more can be done at all; what was under way is finished
    ("broken", text)                this process is beyond repair
    ("ended",)                      the last word
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from fgfast.runner.stages import Failures, Finished, Stage

T = TypeVar("T")
R = TypeVar("R")
Item = TypeVar("Item")
Result = TypeVar("Result", covariant=True)

Message = tuple[Any, ...]

# Exit status of a worker that its device has left in no state to go on; EX_SOFTWARE of sysexits.h.
BROKEN = 70


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for a worker process.

    Attributes:
        name: unique: "cpu", "cuda:0", "cpu#2".
        device: what it works on.
        parts: the first part of the job that it does, and the one behind its last.
    """

    name: str
    device: str
    parts: tuple[int, int] = (0, 1)


@dataclass(frozen=True, slots=True)
class Passed(Generic[T]):
    """What `close` returns of an item that is through with a part and goes on to the next, maybe elsewhere."""

    item: T


class Opened(Protocol[Item, Result]):
    """A job, opened in a worker process.

    Attributes:
        stages: of its parts, in order.
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

    def close(self, finished: Finished[Item]) -> Result | Passed[Item]:
        """What is kept of a finished item; called in a thread of the pool."""


class Job(Protocol[Item, Result]):
    """Something to be done to items. It is pickled, and opened in the worker process.

    Attributes:
        parts: into how many it can be split over devices.
    """

    @property
    def parts(self) -> int: ...

    def open(self, seat: Seat) -> Opened[Item, Result]:
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
