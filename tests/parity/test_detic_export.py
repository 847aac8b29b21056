"""Detic's exported graphs in ONNX Runtime on the CPU, against the reference's stored numbers."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.detic_golden import FULL, PORTABLE, Case, detic, difference, pair_up, resized, settings, vocabulary
from parity.test_detic import check_sets
from torch import Tensor

from fgfast.backends.onnxruntime import OnnxRuntimeSession
from fgfast.export import detic as detic_export
from fgfast.export import trace, widen
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates
from fgfast.models.detic.transform import select, to_stored
from fgfast.models.serving.canvases import canvas_of
from fgfast.tolerances import DETIC_BF16, DETIC_FP16, DETIC_FP32

full = pytest.mark.full
TABLES = {"fp32": DETIC_FP32, "fp16": DETIC_FP16, "bf16": DETIC_BF16}
SETTINGS = ("lvis_one_060", "lvis_all_002", "custom_one_050", "custom_all_050", "custom_all_002")
# Larger than any photo's own, and no multiple of 7 tokens on any map.
LARGER = (576, 704)


def parameters(*rows: tuple[Path, str, tuple[str, ...], tuple[int, int] | None, bool]) -> pytest.MarkDecorator:
    """(folder, file, photos, canvas or None for the first photo's own, whether only in the full run)."""
    found = []
    for folder, file, photos, canvas, long in rows:
        where = "portable-" if folder == PORTABLE else ""
        name = f"{where}{file}-{'+'.join(photos)}-{'larger' if canvas else 'own'}"
        found.append(pytest.param(folder, file, photos, canvas, id=name, marks=[full] if long else []))
    return pytest.mark.parametrize(("folder", "file", "photos", "canvas"), found)


def case_of(folder: Path, file: str, photo: str) -> Case:
    case = Case(folder, f"detic_{file}_golden.npz", photo)
    assert case.arrays
    return case


def model_of(case: Case, precision: str) -> Detic:
    return detic(case.folder, case.model, precision)


@functools.lru_cache(maxsize=2)
def session(
    folder: Path, model: str, name: str, canvas: tuple[int, int], batch: int, precision: str = "fp32"
) -> OnnxRuntimeSession:
    """A graph, exported and loaded; in bfloat16, which ONNX Runtime lacks on the CPU, as widened."""
    network = detic(folder, model, precision)
    part = detic_export.part(network, detic(folder, model), name, canvas, batch)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "graph.onnx"
        trace.trace(part.graph, part.contract, part.example, path)
        if precision == "bf16":
            path = widen.widen(path, Path(work) / "widened.onnx")
        return OnnxRuntimeSession(path, part.contract)


def photographs(case: Case, photos: tuple[str, ...], canvas: tuple[int, int] | None) -> dict[str, Tensor]:
    """Photos on a canvas, with noise beyond them."""
    images = [resized(case, photo) for photo in photos]
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    height, width = canvas or canvas_of(sizes)
    pixels = np.random.default_rng(0).integers(0, 256, (len(photos), height, width, 3), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return {"pixels": torch.from_numpy(pixels), "sizes": torch.tensor(sizes)}


def check_detections(case: Case, setting: str, boxes: Tensor, scores: Tensor, size: list[int]) -> None:
    """What a setting selects from a graph's outputs for one photo, in pixels of the stored photo."""
    stored, name = case.arrays, f"{case.photo}/{setting}"
    height, width = stored[f"{case.photo}/input/original_size"].tolist()
    chosen = select(boxes, scores, (size[0], size[1]), settings(case)[setting])
    found = to_stored(chosen, (size[0], size[1]), (height, width))
    expected = tuple(stored[f"{name}/{key}"] for key in ("boxes", "scores", "classes"))
    check_sets(name, tuple(value.numpy() for value in found[:3]), expected)


@parameters(
    (PORTABLE, "nano_320", ("dog", "groceries_tall"), LARGER, True),  # tests/unit/test_detic_halves.py is the quick one
    (FULL, "nano_320", ("groceries_tall", "truck_wide"), LARGER, True),
    (FULL, "nano_320", ("dog",), None, True),
    (FULL, "swint_320", ("truck_wide",), None, True),
    (FULL, "swint_320", ("dog", "groceries_tall"), LARGER, True),
    (FULL, "swinb_320", ("dog", "groceries_tall"), None, True),
    (FULL, "swinb", ("dog",), None, True),
    (FULL, "swinb", ("groceries_tall", "truck_wide"), (1088, 1344), True),
)
def test_detections(folder: Path, file: str, photos: tuple[str, ...], canvas: tuple[int, int] | None) -> None:
    case = case_of(folder, file, photos[0])
    inputs = photographs(case, photos, canvas)
    graph = session(folder, case.model, "detic_detector", tuple(inputs["pixels"].shape[1:3]), len(photos))
    for words in ("custom", "lvis"):
        # A photo of the portable set alone is checked with the names that need no other file.
        if words == "lvis" and folder == PORTABLE and not FULL.exists():
            continue
        outputs = graph.run({**inputs, "vocabulary": vocabulary(folder, words)})
        for row, photo in enumerate(photos):
            for setting in (setting for setting in SETTINGS if setting.startswith(words)):
                size = inputs["sizes"][row].tolist()
                check_detections(
                    replace(case, photo=photo), setting, outputs["boxes"][row], outputs["scores"][row], size
                )


@parameters(
    (PORTABLE, "nano_320", ("dog",), None, True),
    (FULL, "swint_320", ("truck_wide", "dog"), LARGER, True),
)
def test_split_form(folder: Path, file: str, photos: tuple[str, ...], canvas: tuple[int, int] | None) -> None:
    case = case_of(folder, file, photos[0])
    inputs = photographs(case, photos, canvas)
    shape = tuple(inputs["pixels"].shape[1:3])
    backbone, heads = (session(folder, case.model, f"detic_{n}", shape, len(photos)) for n in ("backbone", "heads"))
    found = backbone.run(inputs)
    candidates = Candidates(found["candidates"], found["candidate_scores"])
    boxes, scores = model_of(case, "fp32").proposal_generator.best(candidates)
    outputs = heads.run(
        {
            **{name: found[name] for name in ("p3", "p4", "p5")},
            "proposals": boxes,
            "proposal_scores": scores,
            "sizes": inputs["sizes"],
            "vocabulary": vocabulary(folder, "custom"),
        }
    )
    for row, photo in enumerate(photos):
        stored, one = case.arrays, replace(case, photo=photo)
        for n in (3, 4, 5):
            name = f"{photo}/fpn/p{n}"
            height, width = stored[f"{name}/shape"][2:]
            maps = found[f"p{n}"][row : row + 1, :, :height, :width]
            DETIC_FP32["features"].check(difference(stored, name, maps), name)
        check_sets(
            f"{photo}/proposals",
            (boxes[row].numpy(), scores[row].numpy()),
            (stored[f"{photo}/proposals/boxes"], stored[f"{photo}/proposals/scores"]),
        )
        for setting in (setting for setting in SETTINGS if setting.startswith("custom")):
            size = inputs["sizes"][row].tolist()
            check_detections(one, setting, outputs["boxes"][row], outputs["scores"][row], size)


HALF = [
    pytest.param(PORTABLE, "nano_320", "bf16", id="portable-nano-bf16", marks=full),
    pytest.param(PORTABLE, "nano_320", "fp16", id="portable-nano-fp16", marks=full),
    pytest.param(FULL, "swint_320", "bf16", id="swint-bf16", marks=full),
    pytest.param(FULL, "swint_320", "fp16", id="swint-fp16", marks=full),
]


@pytest.mark.parametrize(("folder", "file", "precision"), HALF)
def test_half_precision(folder: Path, file: str, precision: str) -> None:
    """The split form, whose second half is fed with the stored proposals: those of half precision are others."""
    case, table = case_of(folder, file, "truck_wide"), TABLES[precision]
    inputs, stored = photographs(case, (case.photo,), None), case.arrays
    shape = tuple(inputs["pixels"].shape[1:3])
    backbone, heads = (session(folder, case.model, f"detic_{n}", shape, 1, precision) for n in ("backbone", "heads"))
    found = backbone.run(inputs)
    for n in (3, 4, 5):
        name = f"{case.photo}/fpn/p{n}"
        table["features"].check(difference(stored, name, found[f"p{n}"].float()), name)
    alive = found["candidate_scores"][0] > 0
    partner = pair_up(
        stored[f"{case.photo}/proposals/boxes"], found["candidates"][0][alive].numpy(), table["boxes_px"].largest
    )
    assert (partner < 0).mean() <= table["lost"].largest, table["lost"].reason
    outputs = heads.run(
        {
            **{name: found[name] for name in ("p3", "p4", "p5")},
            "proposals": torch.from_numpy(stored[f"{case.photo}/proposals/boxes"])[None],
            "proposal_scores": torch.from_numpy(stored[f"{case.photo}/proposals/scores"])[None],
            "sizes": inputs["sizes"],
            "vocabulary": vocabulary(folder, "custom"),
        }
    )
    boxes, scores = (
        np.abs(difference(stored, f"{case.photo}/{name}", ours[0])).reshape(256, -1).max(1)
        for name, ours in (("stage2/refined_boxes", outputs["boxes"]), ("scores_custom", outputs["scores"]))
    )
    off = (boxes > table["boxes_px"].largest) | (scores > table["scores"].largest)
    assert off.mean() <= table["lost"].largest, table["lost"].reason
