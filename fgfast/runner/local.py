"""A run within this process: for a debugger, for tests, and what each worker process does within itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from fgfast.runner.flow import LINGER, Flow
from fgfast.runner.outbox import Outbox
from fgfast.runner.stages import Failures, Finished, Stage, T, Watch

R = TypeVar("R")


def run(
    items: Iterable[T],
    stages: Sequence[Stage[T]],
    result_of: Callable[[Finished[T]], R],
    collect: Callable[[list[R]], None],
    *,
    threads: int,
    stop: threading.Event,
    failures: Failures | None = None,
    watch: Watch | None = None,
    worker: str = "",
    linger: float = LINGER,
) -> None:
    """Carry every item through all stages; return when all are collected.

    Args:
        items: taken one at a time as threads become free.
        stages: in order.
        result_of: called in a thread of the pool; turns a finished item into what is kept of it. Results wait for the
            collector by the hundred, so they must not hold what is large.
        collect: called in this thread with the results, in the order in which they finish.
        threads: of the pool.
        stop: when set, no further item is taken; those in flight are finished and collected, except those that have
            not reached a device yet.
        failures: which exceptions mean what. The first fatal one is raised here after draining.
        watch: called with each piece of work.
        worker: name of this process, for `watch`.
        linger: see fgfast.runner.flow.
    """
    outbox: Outbox[R] = Outbox()
    source = _Items(items)
    flow = Flow(
        stages,
        source,
        lambda finished: outbox.put(result_of(finished)),
        threads=threads,
        stop=stop,
        failures=failures,
        watch=watch,
        worker=worker,
        linger=linger,
    )
    errors: list[BaseException] = []

    def work() -> None:
        try:
            flow.run()
        except BaseException as error:
            errors.append(error)
        finally:
            outbox.close()

    thread = threading.Thread(target=work, name="fgfast-flow", daemon=True)
    thread.start()
    try:
        for batch in outbox.batches():
            collect(batch)
    except BaseException:
        stop.set()
        outbox.abandon()
        flow.wake()
        raise
    finally:
        thread.join()
    for error in (*errors, source.error):
        if error is not None:
            raise error


class _Items(Generic[T]):
    """An iterable as a source; remembers what it raised."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._ended = False
        self.error: Exception | None = None

    def take(self) -> T | None:
        """The next item; see Source."""
        if self._ended:
            return None
        try:
            return next(self._items)
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._ended, self.error = True, error
        return None

    def ended(self) -> bool:
        """Whether the iterable is at its end; see Source."""
        return self._ended
