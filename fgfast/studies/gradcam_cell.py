"""Looks at one trained cell: Grad-CAM, input gradients and a repainted background, image by image.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

import fgfast
from fgfast.errors import UsageError
from fgfast.models.files.states import check_state, load_state
from fgfast.studies import gradcam
from fgfast.studies.cell import Cell, Strategy
from fgfast.studies.gradcam_look import ARMS, SHEET, TILE, Gradcam
from fgfast.studies.gradcam_values import CLASSES, SHARES, TRUTHS, VALUES, Values, as_table
from fgfast.studies.grid import CELL, WEIGHTS, Grid, write_json
from fgfast.studies.layers import target_layer
from fgfast.studies.loading import Batch, Loader
from fgfast.studies.models import Backbone, build, model_named
from fgfast.studies.one_cell import loader_of
from fgfast.transfer import digest_of
from fgfast.writing import Target, make_folder, write_file

if TYPE_CHECKING:
    from torch import Tensor


def check(look: Gradcam) -> None:
    """Check before anything is written that each kind of model can be built, and has what its strategy needs.

    Raises:
        UsageError: timm has no such model, or does not take the study's options.
    """
    seen = set()
    for cell in look.grid.cells:
        kind = (cell.backbone, cell.recipe, cell.strategy)
        if kind not in seen:
            seen.add(kind)
            with torch.device("meta"):
                _built(look.grid, cell).check(cell.strategy.within)


def trained_model(grid: Grid, cell: Cell) -> Backbone:
    """Return the model of a cell with the weights that it was trained to, in evaluation mode.

    Raises:
        WeightsError: the file is damaged, or of another model.
        UsageError: timm has no such model any more.
    """
    model = _built(grid, cell)
    path = grid.folder(cell).path / WEIGHTS
    model.load_state_dict(check_state(load_state(path), model.state_dict(), source=path))
    model.eval().requires_grad_(False)
    return model


def _built(grid: Grid, cell: Cell) -> Backbone:
    return build(
        model_named(cell.backbone),
        len(grid.pairs.classes),
        image_size=grid.recipes[cell.recipe].image_size or None,
        pooling=cell.strategy.pooling,
        **grid.options,
    )


def of_batch(model: Backbone, strategy: Strategy, batch: Batch, repainted: Batch, device: str) -> dict[str, Any]:
    """Return what is seen of a batch: the columns of `Values`, (B,) each.

    Args:
        model: on its device.
        strategy: of the training.
        batch: images as their arm shows them, pixels masked where the strategy masks them.
        repainted: the same images, whose backgrounds were repainted before that.
        device: of the model.

    Raises:
        UsageError: the classifier does not read its target layer, or the two batches are of other images.
    """
    if batch.keys != repainted.keys:
        raise UsageError("an image is compared with another one's repainted background")
    x, mask, y = batch.x.to(device), batch.mask.to(device), batch.y.to(device)
    within = strategy.within
    before = gradcam.probabilities(model, x, mask, within)
    after = gradcam.probabilities(model, repainted.x.to(device), mask, within)
    found: dict[str, Any] = {
        "label": y,
        "prediction": before.argmax(1),
        "repainted_prediction": after.argmax(1),
        "probability": before.gather(1, y[:, None])[:, 0],
        "repainted_probability": after.gather(1, y[:, None])[:, 0],
        "area": mask.double().mean((1, 2, 3)),
    }
    cam = gradcam.looks(gradcam.maps(model, x, mask, y, within), mask)
    gradient = gradcam.looks(gradcam.input_gradients(model, x, mask, y, strategy), mask)
    for name, looks in (("cam", cam), ("gradient", gradient)):
        found |= {f"{name}_inside": looks.inside, f"{name}_evidence": looks.evidence, f"{name}_hit": looks.hit}
    return {name: values.cpu().numpy() for name, values in found.items()}


def run_cell(look: Gradcam, cell: Cell, device: str, threads: int) -> Iterator[object]:
    """Look at a cell; each thing yielded is a sign of life.

    Raises:
        UsageError: see `of_batch`.
        WeightsError: the weights are damaged, or another model's.
        SampleError: an image cannot be loaded.
        OutputFailedError: the disk is full, read-only or failing.
    """
    started = time.perf_counter()
    grid, folder = look.grid, look.folder(cell)
    make_folder(folder)
    model = trained_model(grid, cell).to(device)
    yield None
    keys: list[str] = []
    arms: list[str] = []
    parts: list[dict[str, NDArray[Any]]] = []
    for arm in ARMS:
        indexes = grid.usable(arm, grid.test)
        if not len(indexes):
            continue
        first, second = loaders(look, replace(cell, train=arm), model, indexes.tolist(), threads)
        for batch, other in zip(first.batches(), second.batches(), strict=True):
            parts.append(of_batch(model, cell.strategy, batch, other, device))
            keys += batch.keys
            arms += [arm] * len(batch.keys)
            yield None
    names = (*SHARES, *TRUTHS, *CLASSES)
    values = Values(tuple(keys), tuple(arms), {name: np.concatenate([part[name] for part in parts]) for name in names})
    _write_table(folder / VALUES, values)
    yield from _write_sheet(look, cell, model, device)
    layer, _ = target_layer(model, cell.strategy.pooling)
    write_json(
        folder / CELL,
        {
            "name": cell.name,
            "digest": look.digest(cell),
            "cell": asdict(cell),
            "weights": digest_of(grid.folder(cell).path / WEIGHTS),
            "layer": layer,
            "by construction": constructed(model, cell.strategy),
            "images": {arm: arms.count(arm) for arm in ARMS},
            "seconds": round(time.perf_counter() - started, 3),
            "device": device,
            "fgfast": fgfast.__version__,
            "torch": torch.__version__,
        },
    )


def constructed(model: Backbone, strategy: Strategy) -> dict[str, str]:
    """Say of each method whether masking alone puts its maps inside the mask; see `fgfast.studies.gradcam_tables`."""
    cam = "yes, late masking" if gradcam.by_construction(model, strategy) else "no"
    if cam == "no" and strategy.late and strategy.stage == "second-last":
        cam = "in part, late masking"
    return {"cam": cam, "gradient": "yes, early masking" if strategy.early else "no"}


def loaders(look: Gradcam, cell: Cell, model: Backbone, indexes: Sequence[int], threads: int) -> tuple[Loader, Loader]:
    """Return the batches of some samples as the cell's `train` shows them, and the same with repainted backgrounds."""
    some = np.array(indexes, np.int64)
    first = loader_of(look.grid, cell, model, some, threads, train=False, batch=look.batch)
    again = replace(first.samples, shown=look.repainted(first.samples.shown))
    return first, Loader(again, look.batch, False, threads)


def _write_table(target: Target, values: Values) -> None:
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(as_table(values), buffer, compression="zstd")
    write_file(target, buffer.getvalue())


def _write_sheet(look: Gradcam, cell: Cell, model: Backbone, device: str) -> Iterator[None]:
    """Write the images of a sheet as the model sees them, their masks, and the raw maps of their classes."""
    from safetensors.numpy import save

    first, _ = loaders(look, replace(cell, train="x"), model, look.sheet(), 1)
    pixels, masks, found = [], [], []
    for batch in first.batches():
        x, mask, y = batch.x.to(device), batch.mask.to(device), batch.y.to(device)
        found.append(gradcam.maps(model, x, mask, y, cell.strategy.within).float().cpu().numpy())
        pixels.append(_small(_levels(batch.x, model)))
        masks.append(_small((255 * batch.mask).round().to(torch.uint8)))
        yield None
    tensors = {
        "pixels": np.concatenate(pixels),
        "masks": np.concatenate(masks)[..., 0],
        "maps": np.concatenate(found),
    }
    write_file(look.folder(cell) / SHEET, save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))


def _levels(x: Tensor, model: Backbone) -> Tensor:
    """Return normalised pixels, (B, 3, H, W), as levels of 0..255, uint8."""
    mean, std = (torch.tensor(some).view(1, 3, 1, 1) for some in (model.cfg.mean, model.cfg.std))
    return ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _small(levels: Tensor) -> NDArray[np.uint8]:
    """Return images, (B, C, H, W) uint8, with sides of at most `TILE`, (B, h, w, C) uint8."""
    import cv2

    height, width = levels.shape[2:]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    arrays = np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())
    return np.stack([cv2.resize(one, size, interpolation=kind).reshape(size[1], size[0], -1) for one in arrays])
