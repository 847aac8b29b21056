"""Simulated time: tokens for cores that this machine lacks, and sleeps that stand for work, with and without the GIL.

A piece of work takes a core for its time, and sleeps for one part of it without the GIL, for the other with it. The GIL
is the worker's own: a sleep that holds it stops every other thread of the process, the runner's threads included,
exactly as the work would. No time is virtual: threads sleep for as long as the work takes,
so the runner, its locks and its hand-overs are the real ones.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fgfast.errors import UsageError

# The longest time that the GIL is held without a break, at full speed: the switch interval of a worker with a GPU
# (fgfast.runner.worker), after which a thread that computes in Python lets another one run.
SLICE = 0.001
# linux/prctl.h: nanoseconds by which the kernel may delay the end of a sleep, 50 us by default.
_PR_SET_TIMERSLACK = 29
# The number of sleeps from which their delay is measured, and the seconds of each.
_SLEEPS, _SLEEP = 50, 0.0005
_FREE = struct.Struct("=d")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work costs, in seconds.

    Attributes:
        cpu: the time that it keeps a core busy.
        held: the part of that time in which it holds the GIL.
    """

    cpu: float
    held: float

    def scaled(self, times: float) -> Cost:
        """Return the cost of work that takes so many times as long."""
        return Cost(self.cpu * times, self.held * times)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.held + other.held)


@dataclass(frozen=True, slots=True)
class CoreTokens:
    """The simulated cores of all worker processes: until when each is taken, in shared memory behind a lock.

    A piece of work takes the core that is free first, for the time that the work lasts. It need not give it back, so
    that a thread that wakes up and waits for the GIL keeps no core.

    Attributes:
        process: the process that made them.
        memory: its descriptor of the shared memory: a float64 per core, time.monotonic().
        reading, writing: its descriptors of a pipe with one byte, which whoever changes the memory takes out.
        cores: how many there are.
    """

    process: int
    memory: int
    reading: int
    writing: int
    cores: int

    @classmethod
    def make(cls, cores: int) -> CoreTokens:
        """Make the tokens of so many cores.

        Raises:
            UsageError: this is not Linux, where other processes cannot open the memory.
        """
        if not sys.platform.startswith("linux"):
            raise UsageError(
                f"fgfast bench simulate needs Linux, not {sys.platform}: its workers share memory by /proc"
            )
        memory, (reading, writing) = os.memfd_create("fgfast-cores"), os.pipe()
        os.write(memory, bytes(_FREE.size * cores))
        os.write(writing, b"\0")
        return cls(os.getpid(), memory, reading, writing, cores)

    def close(self) -> None:
        """Close memory and pipe in the process that made them."""
        for end in (self.memory, self.reading, self.writing):
            os.close(end)


class SimulatedCpu:
    """The CPU of one worker process, in which work is time asleep. For any number of threads.

    Args:
        tokens: the cores of all workers.
        slice: the longest time that the GIL is held without a break, in seconds.

    Attributes:
        late: seconds by which a sleep of this machine ends late; they are taken off every sleep.
    """

    def __init__(self, tokens: CoreTokens, slice: float = SLICE) -> None:
        ends = ((tokens.memory, os.O_RDWR), (tokens.reading, os.O_RDONLY), (tokens.writing, os.O_WRONLY))
        memory, self._take, self._give = (os.open(f"/proc/{tokens.process}/fd/{end}", how) for end, how in ends)
        self._memory = mmap.mmap(memory, _FREE.size * tokens.cores)
        os.close(memory)
        self._cores = struct.Struct(f"={tokens.cores}d")
        library = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL while it calls
        library.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # of this thread and of those that it starts
        self._slice = slice
        self._usleep: Callable[[int], int] = library.usleep
        self._lock = threading.Lock()
        self.late = 0.0
        self.late = statistics.median(self._lateness() for _ in range(_SLEEPS))

    def _lateness(self) -> float:
        start = time.perf_counter()
        time.sleep(_SLEEP)
        return time.perf_counter() - start - _SLEEP

    def work(self, cost: Cost) -> float:
        """Keep a core busy for the time of a piece of work, in the calling thread.

        Half of the time without the GIL passes before the time with it, half after it.

        Returns:
            The seconds that it waited for a core.
        """
        held = min(cost.held, cost.cpu)
        if not held:
            return self._alone(cost.cpu)
        free = (cost.cpu - held) / 2
        waited, before = 0.0, free
        while held > 0:
            part = min(held, self._slice)
            waited += self._alone(before, then=part)
            self._hold(part)
            held, before = held - part, 0.0
        return waited + self._alone(free)

    def _alone(self, seconds: float, then: float = 0.0) -> float:
        """Work without the GIL, on a core that is taken for the seconds afterwards, too: every time that a core is
        taken costs this machine more than the sleep.

        Returns:
            The seconds that it waited for a core.
        """
        if seconds + then <= 0:
            return 0.0
        now = time.monotonic()
        start = self._reserve(seconds + then)
        self.sleep(start + seconds - now)
        return max(0.0, start - now)

    def _reserve(self, seconds: float) -> float:
        """Take the core that is free first; return the time.monotonic() from which it is the caller's."""
        with self._lock:
            os.read(self._take, 1)
            free = list(self._cores.unpack_from(self._memory))
            start = max(time.monotonic(), min(free))
            free[free.index(min(free))] = start + seconds
            self._cores.pack_into(self._memory, 0, *free)
            os.write(self._give, b"\0")
        return start

    def sleep(self, seconds: float) -> None:
        """Sleep without the GIL; what the thread waits for the GIL afterwards comes on top, as it does after work."""
        if seconds > self.late:
            time.sleep(seconds - self.late)

    def _hold(self, seconds: float) -> None:
        """Sleep with the GIL."""
        if seconds > self.late:
            self._usleep(max(1, round(1e6 * (seconds - self.late))))

    def close(self) -> None:
        """Close this process's ends."""
        self._memory.close()
        os.close(self._take)
        os.close(self._give)
