"""What a study will take, before it starts: steps are measured, everything else is counted.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from fgfast.studies.cell import Cell
from fgfast.studies.grid import Grid
from fgfast.studies.loading import Batch, Loader
from fgfast.studies.loop import Training
from fgfast.studies.one_cell import loader_of, model_of
from fgfast.studies.predict import predict

# On a CPU a step of so many samples is measured first, and one of a whole batch where that takes no longer than this
# many seconds: few samples take longer each.
_FEW, _AFFORDABLE = 4, 5.0
# Steps of which the median counts, after one that is not counted.
_STEPS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a study will take.

    Attributes:
        cells: number of cells that are not finished.
        epochs: of them together.
        seconds: on these devices, side by side.
        bytes: on disk, for weights, and for checkpoints of those trained at a time.
    """

    cells: int
    epochs: int
    seconds: float
    bytes: int


def estimate(grid: Grid, devices: Sequence[str], loaders: int) -> Estimate:
    """Measure a step of each kind of training, and of loading, and add up.

    Raises:
        UsageError: a strategy does not fit its backbone, or weights are not on this machine.
        SampleError: the first images cannot be loaded.
    """
    todo = [cell for cell in grid.cells if not grid.finished(cell)]
    known: dict[tuple[object, ...], tuple[float, float, int]] = {}
    seconds, size, largest = 0.0, 0, 0
    for cell in todo:
        kind = (cell.backbone, cell.recipe, cell.strategy)
        if kind not in known:
            known[kind] = _measured(grid, cell, devices[0], loaders)
        training, testing, weights = known[kind]
        recipe = grid.recipes[cell.recipe]
        seconds += training * recipe.epochs * len(grid.usable(cell.train, grid.train))
        seconds += testing * sum(len(grid.tested(test)[1]) for test in grid.tests)
        size += weights * grid.keep_weights
        largest = max(largest, weights)
    epochs = sum(grid.recipes[cell.recipe].epochs for cell in todo)
    side_by_side = max(1, min(len(devices), len(todo)))
    return Estimate(len(todo), epochs, seconds / side_by_side, size + 3 * largest * side_by_side)


def _measured(grid: Grid, cell: Cell, device: str, loaders: int) -> tuple[float, float, int]:
    """Return seconds per sample of training and of testing, loading included, and bytes of the weights."""
    recipe = grid.recipes[cell.recipe]
    model = model_of(grid, replace(cell, pretrained=False)).to(device)
    some = grid.usable(cell.train, grid.train)[: recipe.batch]
    training = Training(model, recipe, cell.strategy, cell.seed, 1, device, grid.parts)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        for indexes in (some[:_FEW], some) if device == "cpu" else (some,):
            load = loader_of(grid, cell, model, indexes, 1, train=True, batch=len(indexes))
            (batch,) = load.batches()
            seconds = _median(partial(_step, training, batch), device)
            step = seconds / len(indexes)
            test = _median(partial(predict, model, [batch], cell.strategy, device), device) / len(indexes)
            loading = _median(partial(_load, load), "cpu") / len(indexes) / max(1, loaders)
            if step * len(some) > _AFFORDABLE:
                break
    finally:
        torch.set_num_threads(threads)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if device == "cpu":  # loads and computes by turns
        return step + loading, test + loading, size
    return max(step, loading), max(test, loading), size


def _step(training: Training, batch: Batch) -> None:
    for _ in training.epoch(0, [batch]):
        pass


def _load(loader: Loader) -> None:
    for _ in loader.batches():
        pass


def _median(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(_STEPS + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
