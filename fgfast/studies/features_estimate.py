"""What features will take, before they are computed: a batch of each backbone is measured, everything else is counted.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fgfast.studies.cell import Arm
from fgfast.studies.features import extraction_of
from fgfast.studies.grid import Grid

# Images of a measured step on a CPU, whose time grows with them; a GPU computes a whole batch at once.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What it will take.

    Attributes:
        backbones: of which an arm is not kept.
        images: to be computed, each arm's counted.
        seconds: for that; measures and maps are not in it.
        bytes: of the features on disk.
    """

    backbones: int
    images: int
    seconds: float
    bytes: int


def estimate(grid: Grid, arms: Sequence[Arm], device: str, threads: int) -> Estimate:
    """Measure the second of two batches of each backbone, loading included, and add up.

    Raises:
        UsageError, WeightsError, DatasetError, SampleError: see `fgfast.studies.features.extraction_of`.
    """
    backbones, images, seconds, size = 0, 0, 0.0, 0
    for cell in grid.cells:
        extraction = extraction_of(grid, cell, arms, device, threads)
        todo = [arm for arm in arms if extraction.kept(arm) is None]
        if not todo:
            continue
        some = extraction.loader(todo[0], _FEW if device == "cpu" else extraction.recipe.batch)
        for _ in range(2):
            began = time.perf_counter()
            for batch in some.batches():
                rows = extraction.of_batch(batch.x)
            step = (time.perf_counter() - began) / len(some.samples.indexes)
        count = len(extraction.indexes) * len(todo)
        backbones, images, seconds = backbones + 1, images + count, seconds + step * count
        size += count * rows.shape[1] * rows.element_size()
    return Estimate(backbones, images, seconds, size)
