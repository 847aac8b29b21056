"""Simulated time: tokens for cores that this machine lacks, and sleeps that stand for work, with and without the GIL.

A piece of work takes a core's token, sleeps without the GIL for one part of its time and with it for the other, and
gives the token back. The GIL is the worker's own: a sleep that holds it stops every other thread of the process, the
runner's threads included, exactly as the work would. No time is virtual: threads sleep for as long as the work takes,
so the runner, its locks and its hand-overs are the real ones.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
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
    """The tokens of simulated cores: bytes in a pipe that all worker processes share, one byte per free core.

    Attributes:
        process: the process that made the pipe.
        reading, writing: its descriptors there.
    """

    process: int
    reading: int
    writing: int

    @classmethod
    def make(cls, cores: int) -> CoreTokens:
        """Make the tokens of so many cores.

        Raises:
            UsageError: this is not Linux, where other processes cannot open the pipe.
        """
        if not sys.platform.startswith("linux"):
            raise UsageError(
                f"fgfast bench simulate needs Linux, not {sys.platform}: its workers share a pipe in /proc"
            )
        reading, writing = os.pipe()
        os.write(writing, bytes(cores))
        return cls(os.getpid(), reading, writing)

    def close(self) -> None:
        """Close the pipe in the process that made it."""
        os.close(self.reading)
        os.close(self.writing)


class SimulatedCpu:
    """The CPU of one worker process, in which work is time asleep. For any number of threads.

    Args:
        tokens: the cores of all workers.
        slice: the longest time that the GIL is held without a break, in seconds.

    Attributes:
        late: seconds by which a sleep of this machine ends late; they are taken off every sleep.
    """

    def __init__(self, tokens: CoreTokens, slice: float = SLICE) -> None:
        ends = ((tokens.reading, os.O_RDONLY), (tokens.writing, os.O_WRONLY))
        self._take, self._give = (os.open(f"/proc/{tokens.process}/fd/{end}", how) for end, how in ends)
        library = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL while it calls
        library.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # of this thread and of those that it starts
        self._slice = slice
        self._usleep: Callable[[int], int] = library.usleep
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
            The seconds that it waited for a core, and for the GIL once it had one.
        """
        start = time.perf_counter()
        os.read(self._take, 1)
        waited = time.perf_counter() - start
        try:
            held = min(cost.held, cost.cpu)
            self.sleep((cost.cpu - held) / 2)
            while held > 0:
                self._hold(min(held, self._slice))
                held -= self._slice
            self.sleep((cost.cpu - min(cost.held, cost.cpu)) / 2)
        finally:
            os.write(self._give, b"\0")
        return waited

    def sleep(self, seconds: float) -> None:
        """Sleep without the GIL; what the thread waits for the GIL afterwards comes on top, as it does after work."""
        if seconds > self.late:
            time.sleep(seconds - self.late)

    def _hold(self, seconds: float) -> None:
        """Sleep with the GIL."""
        if seconds > self.late:
            self._usleep(max(1, round(1e6 * (seconds - self.late))))

    def close(self) -> None:
        """Close this process's ends of the pipe."""
        os.close(self._take)
        os.close(self._give)
