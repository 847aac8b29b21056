"""`fgfast study features`: how classes lie in a backbone's features, with and without background (Fig. 6).

Features of an arm are computed once and kept; a second call only measures and draws.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import torch

from fgfast.errors import UsageError, WeightsError
from fgfast.models.files.states import load_state
from fgfast.records import Float32
from fgfast.studies import checkpoint, trained_backbone
from fgfast.studies.cell import Arm, Cell, Strategy, plain_name
from fgfast.studies.feature_measures import Space
from fgfast.studies.grid import Grid, digest_of
from fgfast.studies.loading import Loader
from fgfast.studies.models import Backbone
from fgfast.studies.one_cell import loader_of, model_of
from fgfast.studies.recipes import Recipe
from fgfast.studies.splits import Indexes, holdout

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = "features"


@dataclass(frozen=True, slots=True)
class Extracted:
    """Features of an arm of one backbone: rows of `indexes`, (N, D) float32."""

    backbone: str
    arm: Arm
    values: Float32
    indexes: Indexes


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """A backbone that computes features of arms.

    Attributes:
        grid: the study.
        cell: that names the backbone.
        model: on its device, in evaluation mode.
        recipe: of the batches and of the resize: that of a trained cell's own training, else that of the study.
        strategy: masks nothing; pools as the backbone's own classifier does.
        indexes: the samples, (N,).
        device: of the model.
        threads: that load ahead.
    """

    grid: Grid
    cell: Cell
    model: Backbone
    recipe: Recipe
    strategy: Strategy
    indexes: Indexes
    device: str
    threads: int

    def digest(self, arm: Arm) -> str:
        """Return the digest of all that the features of an arm depend on: weights, images, masks, input."""
        weights = self.model.digest or f"random, seed {self.cell.seed}"
        seen = [self.recipe.resize, repr(self.model.cfg), self.strategy.pooling]
        name = plain_name(self.cell.backbone)
        return digest_of([self.grid.data(), name, weights, arm, self.indexes.tolist(), seen])

    def kept(self, arm: Arm) -> Float32 | None:
        """Return features of an earlier call; None where there are none, or of other data or another model."""
        from safetensors import SafetensorError, safe_open

        path = self.grid.folder(self.cell).path / file_of(arm)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("digest") != self.digest(arm):
                    return None
            rows: Float32 = load_state(path)[_ROWS].float().numpy()
        except (SafetensorError, WeightsError, KeyError):
            return None
        return rows if rows.ndim == 2 and len(rows) == len(self.indexes) else None

    def loader(self, arm: Arm, count: int | None = None) -> Loader:
        """Return the batches of an arm, of its first samples where a number is given; no strategy masks them."""
        grid = replace(self.grid, recipes={self.cell.recipe: self.recipe})
        shows = replace(self.cell, train=arm, strategy=self.strategy)
        return loader_of(grid, shows, self.model, self.indexes[:count], self.threads, train=False)

    def of_batch(self, x: Tensor) -> Tensor:
        """Return the features of a batch, (B, 3, H, W) float32 -> (B, D) float32, on the CPU."""
        with torch.inference_mode():
            return self.model.features(x.to(self.device), strategy=self.strategy).float().cpu()

    def computed(self, arm: Arm, stop: Event) -> Float32 | None:
        """Compute the features of an arm and keep them; None where it was stopped before.

        Raises:
            UsageError: a feature is no number; nothing is kept.
            SampleError: an image cannot be loaded.
            OutputFailedError: the disk is full, read-only or failing.
        """
        found, keys = list[Float32](), list[str]()
        for batch in self.loader(arm).batches():
            if stop.is_set():
                return None
            found.append(self.of_batch(batch.x).numpy())
            keys += batch.keys
        if keys != [self.grid.pairs.keys[n] for n in self.indexes]:
            raise UsageError(f"the features of {arm} are of other images than was asked")
        rows: Float32 = np.concatenate(found)
        if not np.isfinite(rows).all():
            raise UsageError(f"features of {arm} are no numbers (NaN or infinite): the weights may be damaged")
        target = self.grid.folder(self.cell) / file_of(arm)
        checkpoint.write_tensors(target, {_ROWS: torch.from_numpy(rows)}, {"digest": self.digest(arm)})
        return rows


def file_of(arm: Arm) -> str:
    """Return the name of the file of an arm's features."""
    return f"{arm}.safetensors"


def usable(grid: Grid, arms: Sequence[Arm]) -> Indexes:
    """Return the samples, of both splits, that have all arms: others would make arms of other images.

    Raises:
        UsageError: there is none left in a split, or a class that tests has none left that trains.
    """
    both = np.sort(np.concatenate([grid.train, grid.test]))
    for arm in arms:
        both = grid.usable(arm, both)
    train, test = (np.intersect1d(both, split) for split in (grid.train, grid.test))
    for name, its in (("train", train), ("test", test)):
        if not len(its):
            raise UsageError(f"no sample of the split {name} has all of {', '.join(arms)}: name fewer with --arm")
    labels = grid.pairs.labels
    return np.sort(np.concatenate([train, test[np.isin(labels[test], labels[train])]]))


def extraction_of(grid: Grid, cell: Cell, arms: Sequence[Arm], device: str, threads: int) -> Extraction:
    """Build a backbone: timm's, a file of weights, or what another study trained, by its cell's folder.

    Raises:
        UsageError: its weights are not there, or no sample has all arms.
        WeightsError: they are of another model.
        DatasetError: what a cell's folder says is not understood.
    """
    recipe, strategy = grid.recipes[cell.recipe], Strategy()
    if trained_backbone.is_cell(cell.backbone):
        trained = trained_backbone.trained_cell(Path(cell.backbone))
        trained.check_unseen(grid.pairs.digest, grid.test_share, grid.shown.seed)
        model = trained_backbone.built(trained, len(grid.pairs.classes))
        own, pooling = trained.recipe, trained.cell.strategy.pooling
        strategy = Strategy(pooling="patch" if pooling == "fg" else pooling)  # all cells, where nothing is masked
        recipe = replace(recipe, image_size=own.image_size, resize=own.resize)
    elif Path(cell.backbone).is_dir():
        raise UsageError(f"{cell.backbone} is no folder of a trained cell: name STUDY/cells/NAME, with its cell.json")
    else:
        model = model_of(grid, cell)
    return Extraction(grid, cell, model.to(device).eval(), recipe, strategy, usable(grid, arms), device, threads)


def by_arm(grid: Grid, cell: Cell, arms: Sequence[Arm], device: str, threads: int, stop: Event) -> Iterator[Extracted]:
    """Yield the features of each arm, computed, or kept by an earlier call, until it is stopped.

    Raises:
        UsageError, WeightsError, DatasetError, SampleError, OutputFailedError: see `extraction_of`, `Extraction`.
    """
    extraction = extraction_of(grid, cell, arms, device, threads)
    for arm in arms:
        values = extraction.kept(arm)
        if values is None:
            values = extraction.computed(arm, stop)
        if values is None:
            return
        yield Extracted(plain_name(cell.backbone), arm, values, extraction.indexes)


def space_of(grid: Grid, found: Extracted) -> Space:
    """Return the space of an arm: training and test samples, and the part of train that chooses."""
    train, test = (np.intersect1d(found.indexes, split) for split in (grid.train, grid.test))
    place = {int(n): row for row, n in enumerate(found.indexes.tolist())}
    fit, chosen = holdout(grid.pairs, train, grid.shown.seed)
    row_of = {int(n): row for row, n in enumerate(train.tolist())}
    values = [found.values[[place[int(n)] for n in some]] for some in (train, test)]
    rows = [np.array([row_of[int(n)] for n in some], np.int64) for some in (fit, chosen)]
    labels, keys = grid.pairs.labels, tuple(grid.pairs.keys[int(n)] for n in test)
    return Space(values[0], labels[train], values[1], labels[test], keys, rows[0], rows[1])
