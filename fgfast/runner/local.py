"""Runs within this process: of many items, for a debugger and for tests; of one item or batch in the calling thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

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


def run_item(stages: Sequence[Stage[T]], item: T) -> None:
    """Run one item through stages; the first exception ends it."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            for _ in stage(item) or ():
                pass
        elif stage.wants is None or stage.wants(item):
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
