"""Runs within this process: of many items, for a debugger and for tests; of one item or batch in the calling thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from fgfast.runner.flow import LINGER, Flow
from fgfast.runner.queues import Items, Outbox
from fgfast.runner.stages import BatchedStage, Failures, Finished, SlotModel, Stage, T, Watch

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
    """Run every item through all stages; return when all are collected.

    Args:
        items: taken one at a time as threads become free.
        stages: in order.
        result_of: turns a finished item into the result to keep; called in a thread of the pool. Hundreds of results
            wait for the collector, so they must not hold anything large.
        collect: called in this thread with the results, in the order in which they finish.
        threads: number of threads in the pool.
        stop: when set, no further item is taken; those in flight are finished and collected, except those that have
            not reached a device yet.
        failures: the meaning of exceptions. The first fatal one is raised here after draining.
        watch: called with each piece of work.
        worker: name of this process, for `watch`.
        linger: see fgfast.runner.flow.
    """
    outbox: Outbox[R] = Outbox()
    source = Items(items)
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

    def work() -> None:
        flow.run()
        if source.error is not None:
            raise source.error

    def end() -> None:
        stop.set()
        flow.wake()

    outbox.collect(work, collect, end, "fgfast-flow")


class _Inbox(Generic[T]):
    """Items that are handed in one by one, as the source of a flow (see fgfast.runner.queues.Source)."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._closed = False

    def put(self, item: T) -> None:
        """Hand in an item."""
        self._waiting.append(item)

    def close(self) -> None:
        """Hand in no more."""
        self._closed = True

    def take(self) -> T | None:
        """Return the next item, or None."""
        return self._waiting.popleft() if self._waiting else None

    def ended(self) -> bool:
        """Whether there will never be another item."""
        return self._closed and not self._waiting


def in_order(
    items: Iterable[T], stages: Sequence[Stage[T]], *, threads: int, failures: Failures | None = None
) -> Iterator[Finished[T]]:
    """Run every item through all stages and yield the finished ones in the order of the items.

    Items are taken in the calling thread, a bounded number ahead of the one that is yielded. Closing the iterator ends
    the run; what is on a device is waited for.

    Args:
        items: distinct objects.
        stages: in order.
        threads: number of threads in the pool.
        failures: the meaning of exceptions. The first fatal one is raised here.
    """
    inbox: _Inbox[T] = _Inbox()
    finished: dict[int, Finished[T]] = {}
    changed, stop, over = threading.Condition(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def done(result: Finished[T]) -> None:
        with changed:
            finished[id(result.item)] = result
            changed.notify_all()

    flow = Flow(stages, inbox, done, threads=threads, stop=stop, failures=failures)

    def work() -> None:
        try:
            flow.run()
        except BaseException as error:
            errors.append(error)
        with changed:
            over.set()
            changed.notify_all()

    thread = threading.Thread(target=work, name="fgfast-flow", daemon=True)
    thread.start()
    source, expected, more = iter(items), deque[int](), True
    try:
        while True:
            # Twice what is in flight: some items finish before earlier ones.
            if more and len(expected) < 2 * flow.limit:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    inbox.close()
                else:
                    expected.append(id(item))
                    inbox.put(item)
                    del item
                flow.wake()
            if not more and not expected:
                return
            with changed:
                if not more or len(expected) >= 2 * flow.limit:
                    changed.wait_for(lambda: expected[0] in finished or over.is_set())
                result = finished.pop(expected[0], None) if expected else None
                if result is None and over.is_set():
                    raise errors[0] if errors else RuntimeError("the flow ended before its items")
            if result is not None:
                expected.popleft()
                yield result
                del result
    finally:
        stop.set()
        inbox.close()
        flow.wake()
        thread.join()


def run_item(stages: Sequence[Stage[T]], item: T) -> None:
    """Run one item through stages; the first exception ends it."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            stage(item)
        elif stage.wants(item):
            (result,) = run_batch(stage.model, [stage.inputs(item)])
            stage.store(item, result)


def run_batch(model: SlotModel, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Compute inputs as one batch; return their results in the order of the rows."""
    slot = filled_slot(model, rows)
    compute(model, slot, len(rows))
    return [model.read(slot, row) for row in range(len(rows))]


def filled_slot(model: SlotModel, rows: Sequence[tuple[Any, ...]]) -> Any:
    """Return a new slot whose first rows hold these inputs, which share a bucket and fit into its rows."""
    slot = model.slot(model.bucket(*rows[0]))
    for row, inputs in enumerate(rows):
        model.fill(slot, row, *inputs)
    return slot


def compute(model: SlotModel, slot: Any, rows: int) -> None:
    """Launch the first `rows` rows of a slot and wait for them."""
    model.launch(slot, rows)
    model.wait(slot)


def warm_up(model: SlotModel, inputs: tuple[Any, ...], memory: tuple[type[Exception], ...]) -> None:
    """Compute one full batch of the same inputs, so that everything compiled or recorded at first use exists.

    Where the device has not enough memory, the model continues with smaller shapes, as in a run.

    Args:
        model: the model.
        inputs: the inputs of each row.
        memory: exceptions that mean that the device has not enough memory.
    """
    rows = model.rows(model.bucket(*inputs))
    slot = filled_slot(model, [inputs] * rows)
    try:
        compute(model, slot, rows)
    except memory:
        model.shrink()
