"""Detic's golden fixtures: where they lie, and the same quantities as fgfast computes them."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parity.golden import FULL, PORTABLE, Golden, goldenweights
from PIL import Image
from torch import Tensor

from fgfast.methods import Precision
from fgfast.models.detic import checkpoint
from fgfast.models.detic.canvas import own_canvas
from fgfast.models.detic.cascade import combine
from fgfast.models.detic.config import NANO, SWIN_B, SWIN_T, DeticConfig
from fgfast.models.detic.model import Detic
from fgfast.models.detic.transform import Selection, resized_size
from fgfast.models.detic.vocabulary import class_logits, classifier
from fgfast.models.serving import batches
from fgfast.models.serving.canvases import canvas_of
from fgfast.models.serving.pixels import NormalisedImages
from fgfast.records import Size, UInt8

_CONFIGS = {config.name: config for config in (NANO, SWIN_T, SWIN_B)}


@dataclass(frozen=True)
class Case:
    """One photo of one fixture file."""

    folder: Path
    file: str
    photo: str

    @property
    def model(self) -> str:
        """nano, swint or swinb."""
        return self.file.split("_")[1]

    @property
    def config(self) -> DeticConfig:
        """Of the model, with the edges this file was made with."""
        config = _CONFIGS[self.model]
        return replace(config, shorter_edge=320, longest_edge=533) if "_320_" in self.file else config

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays of the file."""
        return Golden(self.folder, self.file.removesuffix("_golden.npz")).arrays

    def __str__(self) -> str:
        where = "portable-" if self.folder == PORTABLE else ""
        return f"{where}{self.file.removeprefix('detic_').removesuffix('_golden.npz')}-{self.photo}"


def cases(*files: str, folders: tuple[Path, ...] = (FULL,)) -> list[Any]:
    """Pytest parameters: every photo that each file may hold; those at full size are marked."""
    found = []
    for folder in folders:
        for file in files:
            photos = ["dog", "groceries_tall", "truck_wide"]
            for photo in photos[:2] if file == "detic_swinb_320" else photos:
                marks = [] if "_320" in file else [pytest.mark.full]
                case = Case(folder, f"{file}_golden.npz", photo)
                found.append(pytest.param(case, id=str(case), marks=marks))
    return found


def draw(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """A standard draw of the fixtures, float32."""
    return torch.from_numpy(goldenweights(folder).tensor(f"golden.{name}", shape))


def state(folder: Path, model: str) -> dict[str, Tensor]:
    """The random weights of a model, without the constants."""
    manifest = folder / f"detic_{model}_manifest.json"
    if not manifest.exists():
        pytest.skip(f"no {manifest}; set FGFAST_GOLDEN to the folder of the full golden fixtures")
    keys = json.loads(manifest.read_text())["keys"]
    tensor = goldenweights(folder).tensor
    return {key: torch.from_numpy(tensor(key, e["shape"])) for key, e in keys.items() if e["generated"]}


@functools.lru_cache(maxsize=2)
def detic(folder: Path, name: str, precision: str = "fp32") -> Detic:
    """The model with the folder's weights. "bf16-weights" rounds the weights only, arithmetic stays in
    float32.
    """
    model = Detic(_CONFIGS[name])
    checkpoint.load(model, state(folder, name))
    if precision.endswith("-weights"):
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
        return model.set_precision("fp32")
    exact: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    return model.set_precision(exact[precision])


@functools.lru_cache(maxsize=4)
def vocabulary(folder: Path, name: str) -> Tensor:
    """ "lvis" or "custom" as (512, C + 1) float32; skips where LVIS's embeddings are absent."""
    if name == "custom":
        rows = draw(folder, "text_embeddings.8", (3, 512)).double()
        return classifier((rows / rows.norm(dim=1, keepdim=True)).float())
    path = FULL / "data" / "lvis_v1_clip_a+cname.npy"
    if not path.exists():
        pytest.skip(f"no {path}; set FGFAST_GOLDEN to the folder of the full golden fixtures")
    return classifier(torch.from_numpy(np.load(path)))


def photo(case: Case, name: str | None = None) -> UInt8:
    """A photo, (h, w, 3) uint8 RGB, as stored."""
    with Image.open(case.folder / "images" / f"{name or case.photo}.png") as file:
        return np.array(file.convert("RGB"))


def resized(case: Case, name: str | None = None) -> UInt8:
    """A photo resized for the case's model."""
    pixels, config = photo(case, name), case.config
    return batches.resized(pixels, resized_size(*pixels.shape[:2], config.shorter_edge, config.longest_edge))


def stack(images: list[UInt8], canvas: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Resized images as one normalised batch (B, 3, H, W) float32, on the smallest canvas by default; their sizes."""
    sizes = [Size(*image.shape[:2]) for image in images]
    pixels = torch.zeros(len(images), *(canvas or canvas_of(sizes)), 3, dtype=torch.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return NormalisedImages(torch.device("cpu"))(pixels, torch.tensor(sizes)).contiguous(), torch.tensor(sizes)


def settings(case: Case) -> dict[str, Selection]:
    """The stored selection settings."""
    stored = case.arrays
    return {
        key.split("/")[1]: Selection(threshold=float(value[0]), one_class=bool(value[1]))
        for key, value in stored.items()
        if key.startswith("settings/")
    }


@functools.lru_cache(maxsize=4)
def trace(case: Case, precision: str = "fp32", masked: bool = False) -> dict[str, Tensor]:
    """Everything the fixture stores of one photo up to the refined boxes, under the fixture's names without
    the photo.

    The stages are fed with the stored boxes; "boxes" and "proposals/..." are those of the whole model.
    """
    model = detic(case.folder, case.model, precision)
    batch, sizes = stack([resized(case)])
    valid = own_canvas(sizes) if masked else None
    out: dict[str, Tensor] = {"input/tensor": batch, "input/image_sizes": sizes}
    with torch.inference_mode(), _hooks(model, out):
        swin = model.backbone.bottom_up(batch, valid)
        pyramid = model.backbone.from_backbone(swin, valid)
        out |= {f"swin/swin{n + 1}": value for n, value in enumerate(swin)}
        out |= {f"fpn/p{n + 3}": value for n, value in enumerate(pyramid)}
        for n, maps in enumerate(pyramid):
            at_level = None if valid is None else _at_level(valid, n)
            heat, distances = model.proposal_generator.centernet_head(maps, n, at_level)
            out[f"centernet/heatmap_logits_p{n + 3}"] = heat[0]
            out[f"centernet/regression_p{n + 3}"] = distances
        candidates = model.proposal_generator.candidates(pyramid, valid)
        alive = candidates.scores[0] > 0
        order = candidates.scores[0][alive].argsort(descending=True)
        out["proposals/pre_nms_boxes"] = candidates.boxes[0][alive][order]
        out["proposals/pre_nms_scores"] = candidates.scores[0][alive][order]
        proposals = model.proposal_generator.best(candidates)
        out["proposals/boxes"], out["proposals/scores"] = proposals.boxes[0], proposals.scores[0]
        out |= _stages(case, model, pyramid, valid)
        whole = model.roi_heads(pyramid[:3], proposals.boxes, sizes, valid)
        out["boxes"] = whole[-1].refined_boxes[0]
        for n, stage in enumerate(whole):
            out[f"embeddings{n}"] = stage.embeddings[0]
    return out


def scores(case: Case, out: dict[str, Tensor], name: str, fed: bool) -> Tensor:
    """(256, C + 1) float32: final scores for a vocabulary, of the stages fed with stored boxes or of the
    whole model.
    """
    words = vocabulary(case.folder, name)
    prefix = "fed_embeddings" if fed else "embeddings"
    logits = torch.stack([class_logits(out[f"{prefix}{n}"][None], words) for n in range(3)])
    proposal = torch.from_numpy(case.arrays[f"{case.photo}/proposals/scores"]) if fed else out["proposals/scores"]
    return torch.sqrt(logits.sigmoid().mean(0)[0] * proposal[:, None])


def _stages(case: Case, model: Detic, pyramid: list[Tensor], valid: Tensor | None) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    stages = []
    for n in range(3):
        boxes = torch.from_numpy(case.arrays[f"{case.photo}/stage{n}/input_boxes"])[None]
        stage = model.roi_heads.stage(n, pyramid[:3], boxes, valid)
        stages.append(stage)
        for name in ("level", "pooled", "features", "deltas", "refined_boxes"):
            out[f"stage{n}/{name}"] = getattr(stage, name)[0]
        out[f"fed_embeddings{n}"] = stage.embeddings[0]
    proposal = torch.from_numpy(case.arrays[f"{case.photo}/proposals/scores"])[None]
    out["scores_custom"] = combine(stages, proposal, vocabulary(case.folder, "custom")).scores[0]
    return out


def _at_level(valid: Tensor, level: int) -> Tensor:
    size = valid // 8
    for _ in range(level):
        size = (size + 1) // 2
    return size


class _hooks:  # noqa: N801  (used as a context only)
    """Collects the outputs of blocks and patch mergings."""

    def __init__(self, model: Detic, out: dict[str, Tensor]) -> None:
        swin = model.backbone.bottom_up
        named = {"patch_embed": swin.patch_embed}
        for n, layer in enumerate(swin.layers):
            named |= {f"layer{n}.block{b}": block for b, block in enumerate(layer.blocks)}
            if layer.downsample is not None:
                named[f"layer{n}.downsample"] = layer.downsample
        self.named, self.out = named, out

    def __enter__(self) -> None:
        def keep(name: str) -> Any:
            def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
                nchw = output.permute(0, 3, 1, 2) if output.ndim == 4 else output
                self.out[f"swin/{name}"] = nchw

            return hook

        self.handles = [module.register_forward_hook(keep(name)) for name, module in self.named.items()]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def difference(stored: dict[str, NDArray[Any]], name: str, ours: Tensor) -> NDArray[np.float64]:
    """Ours minus the stored array, flat: of the whole array or of the sample that was stored."""
    array = ours.float().numpy()
    if name in stored:
        assert array.shape == stored[name].shape, (name, array.shape, stored[name].shape)
        return (array.astype(np.float64) - stored[name]).reshape(-1)
    assert array.shape == tuple(stored[f"{name}/shape"]), (name, array.shape, stored[f"{name}/shape"])
    sample = np.ascontiguousarray(array).reshape(-1)[:: int(stored[f"{name}/stride"])]
    return sample.astype(np.float64) - stored[f"{name}/sample"]


def pair_up(boxes: NDArray[Any], others: NDArray[Any], limit: float, same: NDArray[Any] | None = None) -> Any:
    """For each of `boxes` (N, 4) the nearest of `others` (M, 4) by largest difference: (N,) index, -1 beyond
    `limit` px.

    Args:
        same: (N, M) bool, which pairs may meet at all.
    """
    if not len(others):
        return np.full(len(boxes), -1)
    distance = np.abs(boxes[:, None].astype(np.float64) - others[None]).max(-1)
    if same is not None:
        distance = np.where(same, distance, np.inf)
    nearest = distance.argmin(1)
    return np.where(distance[np.arange(len(boxes)), nearest] <= limit, nearest, -1)
