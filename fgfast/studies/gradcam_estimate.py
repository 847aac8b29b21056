"""What a look at a study will take, before it starts: a step of each kind of model is measured.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fgfast.studies.gradcam_cell import loaders, of_batch, trained_model
from fgfast.studies.gradcam_look import ARMS, Gradcam

# Images of a measured step on a CPU, whose time grows with them; a GPU computes a whole batch at once.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What it will take.

    Attributes:
        cells: that are not finished.
        images: that each is shown, in all arms.
        seconds: on these devices, side by side.
    """

    cells: int
    images: int
    seconds: float


def estimate(look: Gradcam, devices: Sequence[str], threads: int) -> Estimate:
    """Measure the second of two steps of each kind of model, loading included, and add up.

    Raises:
        UsageError, SampleError, WeightsError: see `fgfast.studies.gradcam_cell.run_cell`.
    """
    todo = [cell for cell in look.grid.cells if not look.finished(cell)]
    images = sum(len(look.grid.usable(arm, look.grid.test)) for arm in ARMS)
    known: dict[tuple[object, ...], float] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(1 if devices[0] == "cpu" else before)
    try:
        for cell in todo:
            kind = (cell.backbone, cell.recipe, cell.strategy)
            if kind in known:
                continue
            model = trained_model(look.grid, cell).to(devices[0])
            count = look.batch if devices[0] != "cpu" else min(_FEW, look.batch)
            some = look.grid.test[:count].tolist()
            for _ in range(2):
                began = time.perf_counter()
                pair = loaders(look, replace(cell, train="x"), model, some, threads)
                for batch, other in zip(*(one.batches() for one in pair), strict=True):
                    of_batch(model, cell.strategy, batch, other, devices[0])
                known[kind] = (time.perf_counter() - began) / len(some)
    finally:
        torch.set_num_threads(before)
    seconds = sum(known[(cell.backbone, cell.recipe, cell.strategy)] for cell in todo) * images
    return Estimate(len(todo), images, seconds / max(1, min(len(devices), len(todo))))
