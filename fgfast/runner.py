"""Runs items through stages on worker threads. Knows nothing of images.

Each worker takes the next item, carries it through all stages, and hands the result to the calling thread, which
collects results in batches. Taking is the workers' own act and the queue of results is bounded, so nothing piles up.
A stage's exception travels as a value with its item; only the exceptions named as fatal end the run.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)

# The collector is handed at most so many results at once, and waits at most so long for them: one ledger transaction
# (a disk sync or two) is then spread over many samples, and a kill costs at most half a second of work.
_BATCH = 256
_BATCH_SECONDS = 0.5


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
    collect: Callable[[list[Finished[T]]], None],
    *,
    workers: int,
    stop: threading.Event,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Carry every item through all stages; return when all are collected.

    Args:
        items: taken one at a time as workers become free.
        stages: in order.
        collect: called in this thread with the finished items, in the order in which they finish.
        workers: number of threads.
        stop: when set, no further item is taken; those under way are finished and collected.
        fatal: exceptions of a stage that end the run; the first is raised here after draining.
    """
    source = _Source(items)
    results: queue.Queue[Finished[T] | None] = queue.Queue(maxsize=4 * _BATCH)
    threads = [
        threading.Thread(target=_work, args=(source, stages, results, stop), name=f"fgfast-{n}", daemon=True)
        for n in range(workers)
    ]
    for thread in threads:
        thread.start()
    first_fatal: Exception | None = None
    try:
        for batch in _batches(results, workers):
            died = [f for f in batch if isinstance(f.error, fatal)]
            if died and first_fatal is None:
                first_fatal = died[0].error
                stop.set()
            collect([f for f in batch if not isinstance(f.error, fatal)])
    except BaseException:
        stop.set()
        _drain(results, threads)
        raise
    for thread in threads:
        thread.join()
    if first_fatal is not None:
        raise first_fatal
    if source.error is not None:
        raise source.error


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
    source: _Source[T], stages: Sequence[Stage[T]], results: queue.Queue[Finished[T] | None], stop: threading.Event
) -> None:
    while not stop.is_set():
        item = source.take()
        if item is None:
            break
        results.put(_carry(item, stages))
    results.put(None)


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


def _batches(results: queue.Queue[Finished[T] | None], workers: int) -> Iterator[list[Finished[T]]]:
    """Finished items, until every worker has said that it is through."""
    batch: list[Finished[T]] = []
    deadline = time.monotonic() + _BATCH_SECONDS
    while workers or batch:
        wait = max(0.0, deadline - time.monotonic())
        try:
            result = results.get(timeout=wait) if workers else None
            if result is not None:
                batch.append(result)
            elif workers:
                workers -= 1
        except queue.Empty:
            pass
        if batch and (not workers or len(batch) >= _BATCH or time.monotonic() >= deadline):
            yield batch
            batch = []
        if time.monotonic() >= deadline:
            deadline = time.monotonic() + _BATCH_SECONDS


def _drain(results: queue.Queue[Finished[T] | None], threads: Sequence[threading.Thread]) -> None:
    """Keep the queue from blocking workers until they have all seen the stop."""
    while any(thread.is_alive() for thread in threads):
        try:
            results.get(timeout=0.05)
        except queue.Empty:
            continue


def available_cores() -> int:
    """How many cores this process may use; the default number of workers."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # absent on macOS and Windows
        return os.cpu_count() or 1
