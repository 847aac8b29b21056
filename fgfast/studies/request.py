"""What a person asks of a study, and the grid of cells that it makes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgfast.errors import MissingExtraError, UsageError
from fgfast.machine import available_cores
from fgfast.pipeline.twin import Twin, folder_name
from fgfast.studies.arms import Fill, Shown
from fgfast.studies.cell import Cell
from fgfast.studies.grid import EvaluationSet, Grid, Select
from fgfast.studies.pairs import RunPairs
from fgfast.studies.recipes import Recipe
from fgfast.studies.splits import train_and_test
from fgfast.studies.waterbirds import Groups, elsewhere, groups_of

# Workers on a CPU by default, at most: each holds a model and its optimiser.
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What every study takes.

    Attributes:
        run: the output folder of convert.
        out: of the study; None for RUN_STUDY in the current folder.
        root: the data set's folder, where it has moved.
        recipes: how is trained, by name.
        seeds: number of trainings of each kind, numbered from 0.
        seed: of splits and backgrounds.
        pretrained: whether weights are loaded; else they are random.
        test_share: test on this share of each class; None for the data set's own split.
        flagged: "use" or "skip" samples whose masks are flagged.
        fill: what takes the background's place in X_FG, of `fgfast.studies.arms.FILLS`.
        select: which epoch counts; see `Grid`.
        limit: at most so many images train, and test, of each class alike.
        parts: into how many parts a batch is divided.
        keep_weights: whether weights are kept.
        options: of timm.
        waterbirds: a run over Waterbirds, on which a study of CUB is tested, too.
        waterbirds_root: the folder of that data set, where it has moved.
    """

    run: Path
    out: Path | None = None
    root: Path | None = None
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    seeds: int = 3
    seed: int = 0
    pretrained: bool = True
    test_share: float | None = None
    flagged: str = "use"
    fill: str = "black"
    select: Select = "last"
    limit: int | None = None
    parts: int = 1
    keep_weights: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    waterbirds: Path | None = None
    waterbirds_root: Path | None = None

    def folder(self, study: str) -> Path:
        """Return the folder of a study."""
        return self.out or Path(f"{folder_name(self.run)}_{study}")


class Made(NamedTuple):
    """A study that can be carried out: its grid, the pairs of its run, and the groups of its test sets, if any."""

    grid: Grid
    pairs: RunPairs
    groups: Groups | None


def grid_of(request: Request, study: str, cells: Sequence[Cell], tests: Sequence[EvaluationSet]) -> Made:
    """Make the grid of a study of a run.

    Raises:
        OutputRefusedError: there is no run.
        UsageError: the run has no pairs, splits or classes for a study.
    """
    with Twin.open(request.run, request.root) as twin:
        pairs = RunPairs.of(twin, request.flagged)
        title, groups = twin.title, groups_of(twin, ("x", "x-unmasked"))
    train, test = train_and_test(pairs, request.seed, request.test_share)
    # Backgrounds come from the same split: that of this study, which is not always the data set's.
    pairs = pairs.divided(train, test)
    if request.limit is not None:
        train, test = (some_of_each(indexes, pairs.labels, request.limit) for indexes in (train, test))
    grid = Grid(
        name=study,
        dataset=title,
        cells=tuple(cells),
        recipes=request.recipes,
        tests=tuple(tests),
        shown=Shown(pairs, request.seed, Fill(request.fill, seed=request.seed)),
        train=train,
        test=test,
        out=request.folder(study),
        select=request.select,
        keep_weights=request.keep_weights,
        parts=request.parts,
        options=request.options,
        run=request.run.absolute(),
        test_share=request.test_share,
    )
    if request.waterbirds is None:
        return Made(grid, pairs, groups)
    trains = [pairs.keys[n] for n in train]
    others, more, groups = elsewhere(request.waterbirds, request.waterbirds_root, pairs, trains, request.flagged)
    return Made(replace(grid, elsewhere=others, tests=(*grid.tests, *more)), pairs, groups)


def some_of_each(indexes: Any, labels: Any, most: int) -> Any:
    """Return at most so many of some samples, in turn from each class; each class keeps one."""
    rank = np.zeros(len(indexes), np.int64)
    for label in np.unique(labels[indexes]):
        its = np.flatnonzero(labels[indexes] == label)
        rank[its] = np.arange(len(its))
    classes = len(np.unique(labels[indexes]))
    chosen = np.lexsort((labels[indexes], rank))[: max(most, classes)]
    return np.sort(indexes[chosen])


def devices_of(asked: str) -> tuple[str, ...]:
    """Return the devices of the workers.

    Args:
        asked: "auto": every GPU, or a worker for each core, at most 8; or names, separated by commas.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: there is no such device.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "studies", "a study") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        if count:
            return tuple(f"cuda:{n}" for n in range(count))
        return ("cpu",) * min(_MOST_WORKERS, available_cores())
    found = tuple("cuda:0" if name.strip() == "cuda" else name.strip() for name in asked.split(","))
    known = ("cpu", *(f"cuda:{n}" for n in range(count)))
    for name in found:
        if name not in known:
            raise UsageError(f"there is no device {name!r}; there are {', '.join(known)}")
    return found
