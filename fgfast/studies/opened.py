"""A finished study, opened again with its run: the same test images, its trained cells and where their weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import DatasetError, UsageError
from fgfast.io.portable_paths import resolved
from fgfast.pipeline.twin import Twin
from fgfast.studies.arms import Fill, Shown
from fgfast.studies.grid import CELL, STUDY, WEIGHTS, EvaluationSet, Grid, digest_of
from fgfast.studies.pairs import FLAGGED, RunPairs
from fgfast.studies.predictions import Predictions
from fgfast.studies.recipes import Recipe
from fgfast.studies.splits import Indexes, train_and_test
from fgfast.studies.stored import stored, understood

# Beginnings of options of timm that make it read files, or fetch them.
_NOT_FROM_FILES = ("pretrained", "checkpoint", "cache_dir")
# Side of a model's input in pixels: more than any model of timm takes.
_LARGEST_INPUT = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A study that can be looked at further.

    Attributes:
        grid: the cells that have weights, their recipes, the samples, those that test; none trains.
        not_run: (cell, why), of the others.
    """

    grid: Grid
    not_run: tuple[tuple[str, str], ...]


def opened(folder: Path, run: Path | None = None, root: Path | None = None) -> Opened:
    """Open the folder of a study, which may be anybody's.

    Args:
        folder: of `fgfast study crossval` or `masking`.
        run: the run that it was trained on; None for the one that it names.
        root: the folder of the run's data set, where it has moved.

    Raises:
        OutputRefusedError: the folder holds no study, or there is no run.
        DatasetError: a file is not understood.
        UsageError: no cell has weights, or the run is not the one that the study was trained on, or has changed.
    """
    found = stored(folder).study
    about = understood(folder / STUDY, about_of)
    if run is None and not about["run"]:
        raise UsageError(f"{folder} does not say which run it was trained on: name the run after it")
    cells, recipes = [], dict[str, Recipe]()
    not_run = list(found.not_run)
    for one in found.trained:
        place = folder / "cells" / one.cell.name
        if not (place / WEIGHTS).is_file():
            not_run.append((one.cell.name, "its weights were not kept; train it without --no-weights"))
            continue
        recipe = understood(place / CELL, recipe_of)
        if recipes.setdefault(one.cell.recipe, recipe) != recipe:
            raise DatasetError(place / CELL, f"has another recipe {one.cell.recipe!r} than the cells before it")
        cells.append(one.cell)
    if not cells:
        why = f": {not_run[0][0]}, {not_run[0][1]}" if not_run else ""
        raise UsageError(f"no training in {folder} is finished and has its weights{why}")
    place = run or resolved(about["run"], folder)
    pairs = _pairs(place, root, about["pairs"])
    pairs = pairs.divided(*train_and_test(pairs, about["backgrounds"], about["test share"]))
    shown = Shown(pairs, about["backgrounds"], Fill(about["fill"], seed=about["backgrounds"]))
    tests = [one.tests["x"] for one in found.trained if "x" in one.tests]
    grid = Grid(
        name=found.name,
        dataset=found.dataset,
        cells=tuple(cells),
        recipes=recipes,
        tests=(EvaluationSet("x", "x"),),
        shown=shown,
        train=np.zeros(0, np.int64),
        test=_test(folder, pairs, tests, about["test"]),
        out=folder,
        options=about["options"],
        run=place,
    )
    return Opened(grid, tuple(not_run))


def about_of(found: dict[str, Any]) -> dict[str, Any]:
    if names := [name for name in found["options"] if name.startswith(_NOT_FROM_FILES)]:
        raise ValueError(f"options of timm that name files are not taken from a study: {', '.join(names)}")
    return {
        "run": str(found.get("run", "")),
        "pairs": str(found["pairs"]),
        "test": str(found["test"]),
        "backgrounds": int(found["backgrounds"]),
        "test share": None if found.get("test share") is None else float(found["test share"]),
        "fill": str(found["fill"]["name"]),
        "options": {str(name): value for name, value in found["options"].items()},
    }


def recipe_of(found: dict[str, Any]) -> Recipe:
    recipe = Recipe(**found["recipe"], source=str(found["source of the recipe"]))
    if not 0 <= int(recipe.image_size) <= _LARGEST_INPUT or not 0 <= float(recipe.resize) <= 2 or recipe.batch > 1e6:
        raise ValueError(f"the input of a model has a side of at most {_LARGEST_INPUT} pixels")
    return recipe


def _pairs(run: Path, root: Path | None, digest: str) -> RunPairs:
    """Return the pairs of the run, with or without flagged ones, as the study had them."""
    with Twin.open(run, root) as twin:
        for flagged in FLAGGED:
            pairs = RunPairs.of(twin, flagged)
            if pairs.digest == digest:
                return pairs
    left = next((f" ({key}: {why})" for key, why in pairs.left_out.items()), "")
    raise UsageError(
        f"{run} is not the run that the study was trained on, or its images or masks have changed since{left}: name "
        "the run, or train the study again"
    )


def _test(folder: Path, pairs: RunPairs, tested: Sequence[Predictions], digest: str) -> Indexes:
    """Return the indexes of the samples that test: those that were predicted on X."""
    place = {key: n for n, key in enumerate(pairs.keys)}
    keys = next((some.keys for some in tested), ())
    found = np.array(sorted(place[key] for key in keys if key in place), np.int64)
    if digest_of(pairs.keys[n] for n in found) != digest:
        raise DatasetError(folder, "has no predictions on X of its test images, which say what they are")
    return found
