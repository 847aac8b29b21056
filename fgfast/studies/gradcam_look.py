"""A look at the cells of a finished study: which images, into which folder, what is finished."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgfast import seeds
from fgfast.files import read_regular
from fgfast.io.portable_paths import PortablePaths
from fgfast.pipeline.twin import folder_name
from fgfast.studies.arms import Fill, Shows
from fgfast.studies.cell import Arm, Cell
from fgfast.studies.grid import CELL, CELLS, Grid, check_out, digest_of, read_json, write_json
from fgfast.studies.opened import opened
from fgfast.studies.pairs import Pair, Pairs
from fgfast.studies.request import some_of_each
from fgfast.writing import Target, make_folder, remove_tree

ABOUT, SHEET = "gradcam.json", "sheet.safetensors"
ARMS: tuple[Arm, ...] = ("x", "mixed-rand")
"""What is shown: the stored images, and their subjects on backgrounds of others, of any class."""
SHEET_IMAGES = 8
"""Images of a sheet; each of another class, where there are so many."""
TILE = 128
"""Longer side in pixels of an image of a sheet."""
BATCH = 16
"""Images at a time, by default: gradients in a large model take about as much memory as its training."""
_MOST_CELL = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class Repainted:
    """Shows samples with noise in the place of their backgrounds; see `fgfast.studies.arms.Shown`."""

    shown: Shows
    fill: Fill

    @property
    def pairs(self) -> Pairs:
        return self.shown.pairs

    def show(self, arm: Arm, n: int) -> Pair:
        """Return what an arm shows of a sample, its background repainted at the stored size; the mask stays."""
        pair = self.shown.show(arm, n)
        return Pair(self.fill.over(pair, self.pairs.keys[n]), pair.mask)


@dataclass(frozen=True, slots=True, eq=False)
class Gradcam:
    """A look at the cells of a study. It is pickled for workers.

    Attributes:
        grid: the study; its `test` are the images that are looked at.
        out: the folder of what is found.
        not_run: (cell, why) of the study's cells that cannot be looked at.
        seed: of the noise, and of the choice of images for the sheets.
        batch: images at a time; figures may differ in their last bits with another number.
    """

    grid: Grid
    out: Path
    not_run: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    batch: int = BATCH

    def folder(self, cell: Cell) -> Target:
        """Return the folder of what is found of a cell."""
        return Target(self.out, f"{CELLS}/{cell.name}")

    def repainted(self, shown: Shows) -> Repainted:
        """Return what shows samples with repainted backgrounds."""
        return Repainted(shown, Fill("noise", seed=seeds.number(self.seed, "repainted") % 2**63))

    def sheet(self) -> list[int]:
        """Return the samples of the sheets: by a seeded draw, in turn from each class."""
        pairs = self.grid.pairs
        order = sorted(self.grid.test.tolist(), key=lambda n: seeds.number(self.seed, "sheet", pairs.keys[n]))
        taken: dict[int, int] = {}
        ranked = []
        for place, n in enumerate(order):
            label = int(pairs.labels[n])
            taken[label] = taken.get(label, 0) + 1
            ranked.append((taken[label], place, n))
        return sorted(n for _, _, n in sorted(ranked)[:SHEET_IMAGES])

    def data(self) -> dict[str, Any]:
        """Return what all figures depend on, as JSON has it."""
        pairs = self.grid.pairs
        return {
            "study": self.grid.name,
            "dataset": self.grid.dataset,
            "classes": list(pairs.classes),
            "pairs": pairs.digest,
            "test": digest_of(pairs.keys[n] for n in self.grid.test),
            "images": len(self.grid.test),
            "arms": list(ARMS),
            "seed": self.seed,
            "sheet": [pairs.keys[n] for n in self.sheet()],
        }

    def digest(self, cell: Cell) -> str:
        """Return the digest of all that the figures of a cell depend on; one that is trained anew has another."""
        trained = read_regular(self.grid.folder(cell).path / CELL, _MOST_CELL)
        return digest_of([self.data(), hashlib.sha256(trained).hexdigest()])

    def finished(self, cell: Cell) -> bool:
        """Whether a cell was looked at as it is now."""
        found = read_json(self.folder(cell).path / CELL)
        return found is not None and found.get("digest") == self.digest(cell)

    def check(self, overwrite: bool = False) -> None:
        """Check that the folder is empty, or holds this; nothing is written.

        Raises:
            OutputRefusedError: it holds something else, or the same of other images.
        """
        check_out(self.out, ABOUT, self.data(), overwrite)

    def open(self, overwrite: bool = False) -> None:
        """Make the folder ready, once it is locked; with `overwrite` all that was found is deleted."""
        self.check(overwrite)
        if overwrite:
            remove_tree(Target(self.out, CELLS))
        make_folder(Target(self.out, CELLS))
        of = PortablePaths(self.out, self.grid.out).path(self.grid.out.absolute())
        planned = [cell.name for cell in self.grid.cells]
        about = {**self.data(), "of": of, "planned": planned, "not run": [list(one) for one in self.not_run]}
        write_json(Target(self.out, ABOUT), json.loads(json.dumps(about)))


def plan(
    study: Path,
    run: Path | None = None,
    *,
    out: Path | None = None,
    root: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch: int = BATCH,
) -> Gradcam:
    """Plan a look at the cells of a study; nothing is written.

    Args:
        study: the folder of `fgfast study crossval` or `masking`.
        run: the run that it was trained on; None for the one that it names.
        out: the folder of what is found; None for STUDY_gradcam beside it.
        root: the folder of the run's data set, where it has moved.
        seed: see `Gradcam`.
        limit: at most so many of the test images, of each class alike.
        batch: see `Gradcam`.

    Raises:
        UsageError, OutputRefusedError, DatasetError: see `fgfast.studies.opened.opened`.
    """
    found = opened(study, run, root)
    grid = found.grid
    if limit is not None:
        grid = replace(grid, test=some_of_each(grid.test, grid.pairs.labels, limit))
    return Gradcam(grid, out or Path(f"{folder_name(study)}_gradcam"), found.not_run, seed, batch)
