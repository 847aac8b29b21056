"""Runs items through stages on worker threads. Knows nothing of images.

Each worker takes the next item, carries it through all stages, and hands what is kept of it to the calling thread,
which collects results in batches. Taking is the workers' own act and the queue of results is bounded, so nothing
piles up. A stage's exception travels as a value with its item; only the exceptions named as fatal end the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Item = TypeVar("Item", contravariant=True)

# The collector is woken for so many results at once, and waits at most so long for them: one ledger transaction
# (a disk sync or two) is then spread over many samples, and a kill costs at most half a second of work.
_BATCH = 256
_BATCH_SECONDS = 0.5
# Workers wait when the collector is so far behind.
_MOST_WAITING = 4 * _BATCH


class Stage(Protocol[Item]):
    """One step of the work. Called from several threads at once; writes its result into the item."""

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, /) -> None: ...


@dataclass(slots=True)
class Finished(Generic[T]):
    """An item that needs no more work.

    Attributes:
        item: the item.
        stage: name of the last stage it entered.
        error: what that stage raised, or None when all went well.
        seconds: stage name -> seconds spent.
    """

    item: T
    stage: str = ""
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    items: Iterable[T],
    stages: Sequence[Stage[T]],
    close: Callable[[Finished[T]], R],
    collect: Callable[[list[R]], None],
    *,
    workers: int,
    stop: threading.Event,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Carry every item through all stages; return when all are collected.

    Args:
        items: taken one at a time as workers become free.
        stages: in order.
        close: called in the worker's thread; turns a finished item into what is kept of it. Results wait for the
            collector by the hundred, so they must not hold what is large.
        collect: called in this thread with the results, in the order in which they finish.
        workers: number of threads.
        stop: when set, no further item is taken; those under way are finished and collected.
        fatal: exceptions of a stage that end the run; the first is raised here after draining.
    """
    source = _Source(items)
    results: _Results[R] = _Results(workers)

    def work() -> None:
        end = _End(RuntimeError("a worker died"))
        try:
            end = _work(source, stages, close, results, stop, fatal)
        except BaseException as error:  # SystemExit and its like, out of somebody's extension
            stop.set()
            end = _End(RuntimeError(f"a worker was ended by {type(error).__name__}: {error}"))
        finally:
            results.end(end)

    threads = [threading.Thread(target=work, name=f"fgfast-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for batch in results.batches():
            collect(batch)
    except BaseException:
        stop.set()
        results.abandon()
        raise
    finally:
        for thread in threads:
            thread.join()
    for error in (*(end.error for end in results.ends), source.error):
        if error is not None:
            raise error


@dataclass(frozen=True, slots=True)
class _End:
    """A worker's last word: why it ended, where that was not for lack of items."""

    error: Exception | None = None


class _Results(Generic[R]):
    """Results on their way from the workers to the collector, who is woken for a batch and not for each of them."""

    def __init__(self, workers: int) -> None:
        self._changed = threading.Condition()
        self._waiting: list[R] = []
        self._workers = workers
        self._abandoned = False
        self.ends: list[_End] = []

    def put(self, result: R) -> None:
        """Add a result; waits while the collector is far behind."""
        with self._changed:
            while len(self._waiting) >= _MOST_WAITING and not self._abandoned:
                self._changed.wait()
            self._waiting.append(result)
            if len(self._waiting) >= _BATCH:
                self._changed.notify_all()

    def end(self, end: _End) -> None:
        """A worker's last word."""
        with self._changed:
            self.ends.append(end)
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody collects any more; workers must not wait."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def batches(self) -> Iterator[list[R]]:
        """What has come, when it is a batch or half a second has passed, until every worker has ended."""
        ended = False
        while not ended:
            with self._changed:
                self._changed.wait_for(
                    lambda: len(self._waiting) >= _BATCH or len(self.ends) == self._workers, timeout=_BATCH_SECONDS
                )
                batch, self._waiting = self._waiting, []
                ended = len(self.ends) == self._workers
                self._changed.notify_all()
            if batch:
                yield batch


class _Source(Generic[T]):
    """Hands out items to several threads; remembers what the iterable raised."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()
        self.error: Exception | None = None

    def take(self) -> T | None:
        with self._lock:
            if self.error is not None:
                return None
            try:
                return next(self._items, None)
            except Exception as error:
                self.error = error
                return None


def _work(
    source: _Source[T],
    stages: Sequence[Stage[T]],
    close: Callable[[Finished[T]], R],
    results: _Results[R],
    stop: threading.Event,
    fatal: tuple[type[Exception], ...],
) -> _End:
    while not stop.is_set():
        item = source.take()
        if item is None:
            break
        finished = _carry(item, stages)
        del item
        if isinstance(finished.error, fatal):
            stop.set()
            return _End(finished.error)
        try:
            results.put(close(finished))
        except Exception as error:  # a fault of `close` itself: nothing sensible can be recorded
            stop.set()
            return _End(error)
        del finished
    return _End()


def _carry(item: T, stages: Sequence[Stage[T]]) -> Finished[T]:
    done = Finished(item)
    for stage in stages:
        done.stage = stage.name
        start = time.perf_counter()
        try:
            stage(item)
        except Exception as error:
            done.error = error
            break
        finally:
            done.seconds[stage.name] = time.perf_counter() - start
    return done
