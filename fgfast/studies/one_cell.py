"""Trains a cell and tests it. The two know nothing of each other: a test set is opened once, after the training.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

import fgfast
from fgfast import seeds
from fgfast.models.files.states import load_state
from fgfast.studies import checkpoint
from fgfast.studies.cell import Cell
from fgfast.studies.figures import accuracy
from fgfast.studies.grid import CELL, WEIGHTS, EvaluationSet, Grid, file_of, write_json
from fgfast.studies.loading import Loader, Samples, mean_colour
from fgfast.studies.loop import Training
from fgfast.studies.models import Backbone, build, model_named
from fgfast.studies.predict import predicting
from fgfast.studies.predictions import Predictions, as_table
from fgfast.studies.splits import Indexes, holdout
from fgfast.studies.transforms import Prepare
from fgfast.studies.weights import find
from fgfast.writing import Target, make_folder, remove, write_file

log = logging.getLogger("fgfast")

CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
_COLUMNS = ("epoch", "loss", "validation")


def model_of(grid: Grid, cell: Cell, load: bool = True) -> Backbone:
    """Build the model of a cell with its initial weights, which depend on the cell's seed.

    Args:
        grid: the study.
        cell: the cell.
        load: whether weights are loaded; else they are random, or without a value under `torch.device("meta")`.
    """
    recipe = grid.recipes[cell.recipe]
    torch.manual_seed(seeds.number(cell.seed, "weights") % 2**63)
    return build(
        cell.backbone if load and cell.pretrained else model_named(cell.backbone),
        len(grid.pairs.classes),
        image_size=recipe.image_size or None,
        pretrained=cell.pretrained,
        drop_path=recipe.drop_path,
        pooling=cell.strategy.pooling,
        **grid.options,
    )


def check(grid: Grid) -> None:
    """Check what can be checked before hours of training: names, strategies, and where pretrained weights are.

    Raises:
        UsageError: a backbone is unknown, a strategy does not fit it, or its weights are not on this machine.
        MissingExtraError: timm is not installed.
    """
    seen = set()
    for cell in grid.cells:
        kind = (cell.backbone, cell.recipe, cell.strategy, cell.pretrained)
        if kind in seen:
            continue
        seen.add(kind)
        with torch.device("meta"):
            model = model_of(grid, replace(cell, pretrained=False), load=False)
        model.check(cell.strategy.within)
        if cell.pretrained:
            find(cell.backbone, model.timm.pretrained_cfg)


def run_cell(grid: Grid, cell: Cell, device: str, threads: int) -> Iterator[object]:
    """Train a cell and test it, from its last epoch on where it was begun; each thing yielded is a sign of life.

    Raises:
        UsageError: the training diverged, or the strategy does not fit the backbone.
        SampleError: an image cannot be loaded.
        OutputFailedError: the disk is full, read-only or failing.
    """
    started = time.perf_counter()
    folder = grid.folder(cell)
    make_folder(folder)
    remove(folder / CELL)  # of another recipe or other weights: its tables are replaced one by one
    model = model_of(grid, cell).to(device)
    yield None
    rows = yield from _train(grid, cell, model, device, threads)
    tested: dict[str, Any] = {}
    for test in grid.tests:
        found = yield from _tested(grid, cell, test, model, device, threads)
        if found is not None:
            write_table(folder / file_of(test.name), found)
            tested[test.name] = {"accuracy": accuracy(found), "images": len(found.keys)}
    if grid.keep_weights and grid.select == "last":
        checkpoint.write_tensors(folder / WEIGHTS, model.state_dict(), {})
    write_json(
        folder / CELL,
        {
            "name": cell.name,
            "digest": grid.digest(cell),
            "cell": asdict(cell),
            "recipe": dict(grid.recipes[cell.recipe].describe()),
            "source of the recipe": grid.recipes[cell.recipe].source,
            "initial weights": model.digest or "random",
            "train": len(grid.usable(cell.train, grid.train)),
            "tests": tested,
            "epochs": len(rows),
            "seconds": round(time.perf_counter() - started, 3),
            "device": device,
            "fgfast": fgfast.__version__,
            "torch": torch.__version__,
        },
    )
    # Only now: a training that was killed before goes on from its checkpoint, and from the best weights so far.
    if not grid.keep_weights:
        remove(folder / WEIGHTS)
    remove(folder / CHECKPOINT)


def _train(
    grid: Grid, cell: Cell, model: Backbone, device: str, threads: int
) -> Generator[object, None, list[list[Any]]]:
    """Train a model, which has the weights of the epoch that counts afterwards; return the rows of its log."""
    recipe, folder = grid.recipes[cell.recipe], grid.folder(cell)
    indexes, validating = grid.usable(cell.train, grid.train), None
    if grid.select == "best-val":
        indexes, validating = holdout(grid.pairs, indexes, cell.seed)
    loader = loader_of(grid, cell, model, indexes, threads, train=True)
    training = Training(model, recipe, cell.strategy, cell.seed, len(loader), device, grid.parts)
    about: dict[str, Any] = {"digest": grid.digest(cell), "weights": model.digest, "rows": [], "best": -1.0}
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    found = checkpoint.load(folder / CHECKPOINT, model, training.optimizer)
    if found is not None and all(found.get(name) == about[name] for name in ("digest", "weights")):
        about = found
    elif found is not None:  # of another recipe, other data or other initial weights
        model.load_state_dict(fresh)
        training = Training(model, recipe, cell.strategy, cell.seed, len(loader), device, grid.parts)
    for epoch in range(len(about["rows"]), recipe.epochs):
        losses = []
        for loss in training.epoch(epoch, loader.batches(epoch)):
            losses.append(loss)
            yield None
        right: float | str = ""
        if validating is not None:
            its = loader_of(grid, cell, model, validating, threads, train=False)
            right = accuracy((yield from predicting(model, its.batches(), cell.strategy, device)))
            if right > about["best"]:
                about["best"] = right
                checkpoint.write_tensors(folder / WEIGHTS, model.state_dict(), {})
        about["rows"].append([epoch, sum(losses) / len(losses), right])
        log.info("%s: epoch %d of %d, loss %.4f", cell.name, epoch + 1, recipe.epochs, about["rows"][-1][1])
        checkpoint.write(folder / CHECKPOINT, model, training.optimizer, about)
        _write_log(folder / LOG, about["rows"])
        yield None
    if validating is not None:
        model.load_state_dict(load_state((folder / WEIGHTS).path))
    return list(about["rows"])


def _tested(
    grid: Grid, cell: Cell, test: EvaluationSet, model: Backbone, device: str, threads: int
) -> Generator[object, None, Predictions | None]:
    """Open a test set; return the predictions, or None where no sample has its arm."""
    shown, indexes = grid.tested(test)
    if not len(indexes):
        return None
    strategy = cell.strategy if test.masked else cell.strategy.within
    shows = replace(grid, shown=shown), replace(cell, train=test.arm, strategy=strategy)
    loader = loader_of(*shows, model, indexes, threads, train=False)
    return (yield from predicting(model, loader.batches(), cell.strategy, device))


def loader_of(
    grid: Grid, cell: Cell, model: Backbone, indexes: Indexes, threads: int, train: bool, batch: int | None = None
) -> Loader:
    """Return the batches of some samples, as a cell shows and masks them to its model.

    Args:
        grid: the study.
        cell: its `train` is the arm that is shown, its strategy masks.
        model: whose input is made.
        indexes: of the samples.
        threads: that load ahead.
        train: whether to augment, and to change the order.
        batch: samples per batch, where it is not the recipe's number.
    """
    recipe = grid.recipes[cell.recipe]
    prepare = Prepare(model.cfg, recipe, train)
    colour = mean_colour(model.cfg.mean)
    shown = replace(grid.shown, fill=replace(grid.shown.fill, colour=colour))
    samples = Samples(shown, cell.train, indexes, prepare, cell.strategy, cell.seed, colour)
    return Loader(samples, batch or recipe.batch, train, threads)


def write_table(target: Target, found: Predictions) -> None:
    """Write predictions as Parquet."""
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(as_table(found), buffer, compression="zstd")
    write_file(target, buffer.getvalue())


def _write_log(target: Target, rows: list[list[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
    write_file(target, text.getvalue().encode())
