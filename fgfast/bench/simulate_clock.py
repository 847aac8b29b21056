"""Simulated time: tokens for the cores of a machine and for the GIL of a worker, and sleeps that stand for work.

A piece of work takes a core for its time, and the GIL of its worker for the part of it in which the real work holds it.
When both are the caller's follows from what others have taken before, so that a piece of work is one sleep until its
end, however often it would wait in between: waking up is what costs the few cores of this machine time. Threads sleep
for as long as the work takes, so the runner, its locks and its hand-overs are the real ones. Its own threads compute
whenever they want to: they wait neither for a simulated core nor for the simulated GIL.
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
from dataclasses import dataclass

from fgfast.errors import UsageError

# linux/prctl.h: nanoseconds by which the kernel may delay the end of a sleep, 50 us by default.
_PR_SET_TIMERSLACK = 29
# The number of sleeps from which their delay is measured, and the seconds of each.
_SLEEPS, _SLEEP = 50, 0.0005
# The seconds between two pieces of work of a thread up to which it did not wait for anything in between.
_AT_ONCE = 0.0003
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

    A piece of work takes the core that is free first, for the time that the work lasts. It need not give it back.

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


class GilToken:
    """The GIL of one worker process: the times for which it is taken. Not for several threads at once."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, float]] = []

    def take(self, at: float, seconds: float, now: float) -> float:
        """Take it for so long, as soon as it is free from a time on; return when.

        Args:
            at: the earliest time.
            seconds: how long.
            now: what was taken before this time is forgotten.
        """
        self._taken = [one for one in self._taken if one[1] > now]
        for n, (start, end) in enumerate(self._taken):
            if at + seconds <= start:
                self._taken.insert(n, (at, at + seconds))
                return at
            at = max(at, end)
        self._taken.append((at, at + seconds))
        return at


class SimulatedCpu:
    """The CPU of one worker process, in which work is time asleep. For any number of threads.

    Args:
        tokens: the cores of all workers.
        beside: what the process computes for real beside each piece of work. It takes core and GIL as well, but no
            sleep.

    Attributes:
        late: seconds by which a sleep of this machine ends late; they are taken off every sleep.
    """

    def __init__(self, tokens: CoreTokens, beside: Cost = Cost(0.0, 0.0)) -> None:
        ends = ((tokens.memory, os.O_RDWR), (tokens.reading, os.O_RDONLY), (tokens.writing, os.O_WRONLY))
        memory, self._take, self._give = (os.open(f"/proc/{tokens.process}/fd/{end}", how) for end, how in ends)
        self._memory = mmap.mmap(memory, _FREE.size * tokens.cores)
        os.close(memory)
        self._cores = struct.Struct(f"={tokens.cores}d")
        # of this thread and of those that it starts
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self._beside, self._gil = beside, GilToken()
        self._lock, self._thread = threading.Lock(), threading.local()
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
            The seconds that it waited, for a core and for the GIL.
        """
        if cost.cpu <= 0:
            return 0.0
        held, beside = min(cost.held, cost.cpu), self._beside
        alone = (cost.cpu - held) / 2
        called = time.monotonic()
        # A thread that goes on at once makes up for what its last sleep was late.
        now = called - self._overslept(called)
        with self._lock:
            at = self._reserve(now, cost.cpu + beside.cpu) + alone
            if held + beside.held > 0:
                at = self._gil.take(at, held + beside.held, now)
        end = at + held + alone
        if (left := end - time.monotonic() - self.late) > 0:
            time.sleep(left)
        self._thread.ended = time.monotonic(), end
        return max(0.0, end - now - cost.cpu)

    def _overslept(self, now: float) -> float:
        """Return the seconds by which the thread's last piece of work ended late, if it comes straight from it."""
        ended, due = getattr(self._thread, "ended", (0.0, 0.0))
        return max(0.0, ended - due) if now - ended < _AT_ONCE else 0.0

    def _reserve(self, now: float, seconds: float) -> float:
        """Take the core that is free first; return the time.monotonic() from which it is the caller's."""
        os.read(self._take, 1)
        free = list(self._cores.unpack_from(self._memory))
        start = max(now, min(free))
        free[free.index(min(free))] = start + seconds
        self._cores.pack_into(self._memory, 0, *free)
        os.write(self._give, b"\0")
        return start

    def close(self) -> None:
        """Close this process's ends."""
        self._memory.close()
        os.close(self._take)
        os.close(self._give)
