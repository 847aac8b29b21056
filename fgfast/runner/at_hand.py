"""Batches and items in the calling thread: for one image, for tests, and to try a device out before a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgfast.runner.stages import BatchedStage, SlotModel, Stage, T


def filled_slot(model: SlotModel, rows: Sequence[tuple[Any, ...]]) -> Any:
    """A new slot whose first rows hold these inputs, all of one bucket, at most as many as the bucket's rows."""
    slot = model.slot(model.bucket(*rows[0]))
    for row, inputs in enumerate(rows):
        model.fill(slot, row, *inputs)
    return slot


def compute(model: SlotModel, slot: Any, rows: int) -> None:
    """Launch the first `rows` rows of a slot and wait for them."""
    model.launch(slot, rows)
    model.wait(slot)


def run_batch(model: SlotModel, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The results of these inputs, computed as one batch; in the order of the rows."""
    slot = filled_slot(model, rows)
    compute(model, slot, len(rows))
    return [model.read(slot, row) for row in range(len(rows))]


def run_item(stages: Sequence[Stage[T]], item: T) -> None:
    """Carry one item through stages; the first exception ends it."""
    for stage in stages:
        if not isinstance(stage, BatchedStage):
            stage(item)
        elif stage.wants(item):
            (result,) = run_batch(stage.model, [stage.inputs(item)])
            stage.store(item, result)


def warm_up(model: SlotModel, inputs: tuple[Any, ...], memory: tuple[type[Exception], ...]) -> None:
    """Compute one full batch of the same inputs, so that what is compiled or recorded at first use is.

    Where the device's memory does not suffice, the model goes on with smaller shapes, as in a run.

    Args:
        model: what computes it.
        inputs: per row.
        memory: exceptions that mean that the memory did not suffice.
    """
    rows = model.rows(model.bucket(*inputs))
    try:
        run_batch(model, [inputs] * rows)
    except memory:
        model.shrink()
