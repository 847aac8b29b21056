"""The threads of a flow, and the rule by which they sleep and wake.

One lock guards all state of a flow. Each thread sleeps on a condition of its own, and none polls:

* a thread of the pool until it is given work, or the flow is over;
* a launch thread until a batch is ready that the device may queue, the oldest open batch is due, `stop` was set, or the
  flow is over;
* a wait thread until a batch was launched, the launch thread has ended, or the device is dead;
* the caller of `Flow.run` until all threads have ended, or the device is dead.

No wake-up is lost, because whoever changes the state calls `Flow.announce` before he releases the lock:

* If there is work for the pool, it wakes one sleeping thread, with a piece of it in hand. One thread at a time is on
  its way; as soon as it runs, it announces what is left, and so wakes the next. Where pieces are so short that the
  threads that are awake do them meanwhile, nobody else is woken for them.
* It wakes the launch threads that can go on, and everybody once the flow is over.

A thread of the pool that looks for work next leaves that to `Flow._get`, which takes the first piece itself and
announces what is left. A launched batch wakes its device's wait thread and nobody else. `Flow.wake` announces what
happens outside: the source has items again, or `stop` was set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic

from fgfast.runner.batching import Work
from fgfast.runner.stages import T


class _Sleeper(Generic[T]):
    """A thread that has nothing to do, and the work with which it is woken."""

    __slots__ = ("condition", "work")

    def __init__(self, lock: threading.RLock) -> None:
        self.condition = threading.Condition(lock)
        self.work: Work[T] | None = None


class Pool(Generic[T]):
    """The sleeping threads of the pool. Every method is called under the flow's lock.

    The last thread to fall asleep is the first to be woken, so that only as many run as there is work for, and the
    others, however many, cost nothing.

    Args:
        lock: the flow's lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._asleep: list[_Sleeper[T]] = []
        self._waking = False  # whether a thread was given work and does not run yet

    def sleep(self, over: Callable[[], bool]) -> Work[T] | None:
        """Sleep until there is work for the calling thread, and return it; None once the flow is over."""
        me: _Sleeper[T] = _Sleeper(self._lock)
        self._asleep.append(me)
        while me.work is None and not over():
            me.condition.wait()
        if me.work is not None:
            self._waking = False
        return me.work

    def give(self, find: Callable[[], Work[T] | None]) -> None:
        """Wake a thread with the work that `find` returns, if there is any, unless one is on its way."""
        if self._asleep and not self._waking and (work := find()) is not None:
            sleeper = self._asleep.pop()
            sleeper.work, self._waking = work, True
            sleeper.condition.notify()

    def wake_all(self) -> None:
        """Wake every thread, because the flow is over."""
        for sleeper in self._asleep:
            sleeper.condition.notify()


class Threads:
    """All threads of a flow.

    Args:
        lock: the flow's lock.
        failed: called with the exception that ended a thread.
    """

    def __init__(self, lock: threading.RLock, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._changed, self._running = threading.Condition(lock), 0

    def run(self, jobs: Sequence[tuple[str, Callable[[], None]]], abandoned: Callable[[], bool]) -> None:
        """Run each job in a thread of its name; return when all have ended, or without them once `abandoned`."""
        self._running = len(jobs)
        for job in jobs:
            threading.Thread(target=self._guarded, args=job, name=job[0], daemon=True).start()
        with self._changed:
            while self._running and not abandoned():
                self._changed.wait()

    def look(self) -> None:
        """Let `run` ask `abandoned` again. Under the lock."""
        self._changed.notify()

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # SystemExit and the like from an extension, or a bug of the runner
            self._failed(error if isinstance(error, Exception) else RuntimeError(f"{name} was ended by {error!r}"))
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()
