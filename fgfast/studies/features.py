"""`fgfast study features`: how classes lie in a backbone's features, with and without background (Fig. 6).

Features of an arm are computed once and kept; a second call only measures and draws.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fgfast.errors import UsageError, WeightsError
from fgfast.models.files.states import check_state, load_state
from fgfast.records import Float32
from fgfast.studies import checkpoint
from fgfast.studies.cell import Arm, Cell, plain_name
from fgfast.studies.feature_measures import Space
from fgfast.studies.grid import CELL, WEIGHTS, Grid
from fgfast.studies.models import Backbone
from fgfast.studies.one_cell import loader_of, model_of
from fgfast.studies.splits import Indexes, holdout

_ROWS = "features"


@dataclass(frozen=True, slots=True)
class Extracted:
    """Features of an arm of one backbone: rows of `indexes`, (N, D) float32."""

    backbone: str
    arm: Arm
    values: Float32
    indexes: Indexes


def usable(grid: Grid, arms: Sequence[Arm]) -> Indexes:
    """Return the samples, of both splits, that have all arms: others would make arms of other images.

    Raises:
        UsageError: there is none left in a split.
    """
    both = np.sort(np.concatenate([grid.train, grid.test]))
    for arm in arms:
        both = grid.usable(arm, both)
    for name, split in (("train", grid.train), ("test", grid.test)):
        if not len(np.intersect1d(both, split)):
            raise UsageError(f"no sample of the split {name} has all of {', '.join(arms)}")
    return both


def backbone_of(grid: Grid, cell: Cell) -> Backbone:
    """Build the backbone of a cell: timm's, a file of weights, or what another study trained, by its cell's folder.

    Raises:
        UsageError: its weights are not there.
        WeightsError: they are of another model.
    """
    folder = Path(cell.backbone)
    if not (folder / CELL).is_file():
        return model_of(grid, cell)
    about = json.loads((folder / CELL).read_bytes())
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder} has no weights: that study was told --no-weights")
    trained = Cell("features", about["cell"]["backbone"], recipe=cell.recipe, seed=cell.seed, pretrained=False)
    model = model_of(grid, trained, load=False)
    try:
        model.load_state_dict(check_state(load_state(folder / WEIGHTS), model.state_dict(), source=folder / WEIGHTS))
    except RuntimeError as error:
        raise WeightsError(folder / WEIGHTS, f"does not fit {about['cell']['backbone']}: {error}") from error
    model.digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return model


def by_arm(grid: Grid, cell: Cell, arms: Sequence[Arm], device: str, loaders: int) -> Iterator[Extracted]:
    """Yield the features of each arm, computed, or kept by an earlier call.

    Raises:
        SampleError: an image cannot be loaded.
        OutputFailedError: the disk is full, read-only or failing.
    """
    model = backbone_of(grid, cell).to(device).eval()
    indexes = usable(grid, arms)
    name = plain_name(cell.backbone)
    for arm in arms:
        about = [grid.data(), name, model.digest or f"random, seed {cell.seed}", arm, indexes.tolist()]
        about.append(dict(grid.recipes[cell.recipe].describe()))
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        target = grid.folder(cell) / f"{arm}.safetensors"
        values = _kept(target.path, digest)
        if values is None:
            values = _computed(grid, cell, arm, model, indexes, device, loaders)
            checkpoint.write_tensors(target, {_ROWS: torch.from_numpy(values)}, {"digest": digest})
        yield Extracted(name, arm, values, indexes)


def _kept(path: Path, digest: str) -> Float32 | None:
    """Return features of an earlier call; None where they are of other data or another model."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("digest") != digest:
                return None
        rows: Float32 = load_state(path)[_ROWS].float().numpy()
    except (SafetensorError, WeightsError, KeyError):
        return None
    return rows


def _computed(
    grid: Grid, cell: Cell, arm: Arm, model: Backbone, indexes: Indexes, device: str, loaders: int
) -> Float32:
    from dataclasses import replace

    loader = loader_of(grid, replace(cell, train=arm), model, indexes, loaders, train=False)
    found = []
    for batch in loader.batches():
        with torch.inference_mode():
            found.append(model.features(batch.x.to(device), batch.mask.to(device)).float().cpu().numpy())
    rows: Float32 = np.concatenate(found)
    return rows


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
