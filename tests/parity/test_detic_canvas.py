"""Batches and larger canvases: the reference's numbers where nothing is masked, the single image's where
it is.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.detic_golden import (
    Case,
    detic,
    difference,
    resized,
    settings,
    stack,
    vocabulary,
)
from parity.golden import FULL, PORTABLE
from parity.test_detic import check_sets
from torch import Tensor

from fgfast.models.detic import transform as selection
from fgfast.models.detic.canvas import needs_masking, own_canvas
from fgfast.models.detic.cascade import Refined, combine
from fgfast.models.detic.suppression import nms
from fgfast.models.detic.transform import select, to_stored
from fgfast.tolerances import DETIC_FP32

FILES = [
    pytest.param(PORTABLE, "nano", id="portable-nano"),
    pytest.param(FULL, "nano", id="full-nano"),
    pytest.param(FULL, "swint", id="full-swint", marks=pytest.mark.full),
]
PHOTOS = ("dog", "groceries_tall", "truck_wide")
models = pytest.mark.parametrize(("folder", "model"), FILES)


def case_of(folder: Path, model: str, photo: str = "dog") -> Case:
    case = Case(folder, f"detic_{model}_320_golden.npz", photo)
    assert case.arrays
    return case


@functools.lru_cache(maxsize=2)
def compute(case: Case, names: tuple[str, ...], canvas: tuple[int, int] | None, masked: bool) -> tuple[Any, ...]:
    """Pyramid, proposals and refined boxes of a batch of photos, with LVIS scores."""
    model = detic(case.folder, case.model)
    batch, sizes = stack([resized(case, name) for name in names], canvas=canvas)
    valid = own_canvas(sizes) if masked else None
    with torch.inference_mode():
        swin = model.backbone.bottom_up(batch, valid)
        pyramid = model.backbone.from_backbone(swin, valid)
        proposals = model.proposal_generator(pyramid, valid)
        stages = model.roi_heads(pyramid[:3], proposals.boxes, sizes, valid)
    return swin, pyramid, proposals, stages, sizes


def detections(case: Case, refined: Refined, sizes: Tensor, row: int, photo: str) -> tuple[np.ndarray, ...]:
    """What lvis_one_060 selects, in pixels of the stored photo."""
    size = tuple(sizes[row].tolist())
    found = select(refined.boxes[row], refined.scores[row], size, settings(case)["lvis_one_060"])
    stored_size = tuple(case.arrays[f"{photo}/input/original_size"].tolist())
    return tuple(value.numpy() for value in to_stored(found, size, stored_size)[:3])


def torchvision_nms(boxes: Tensor, scores: Tensor, overlap: float, limit: int, classes: Tensor) -> Tensor:
    """Class-wise suppression as the reference's torchvision does it on CPUs: up to 1000 boxes, classes are
    moved apart by
    adding class * (largest coordinate + 1), which rounds coordinates; ours is exact (DETIC.md, section 7)."""
    if boxes.numel() > 4000:
        return nms(boxes, scores, overlap, limit, classes)
    return nms(boxes + (classes * (boxes.max() + 1))[:, None], scores, overlap, limit)


@models
@pytest.mark.parametrize("extra", ["batch2", "square544"])
def test_without_masking_results_are_those_of_the_reference_on_that_canvas(
    folder: Path, model: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In square544 of the portable nano, two boxes of one class overlap by 0.49980: torchvision's shift makes
    # it 0.50007.
    monkeypatch.setattr(selection, "nms", torchvision_nms)
    case = case_of(folder, model)
    names = ("dog", "groceries_tall") if extra == "batch2" else ("dog",)
    canvas = (544, 544) if extra == "square544" else None
    _, pyramid, proposals, stages, sizes = compute(case, names, canvas, masked=False)
    stored = case.arrays
    assert [s * 8 for s in pyramid[0].shape[2:]] == stored[f"{extra}/padded_size"].tolist()
    for n, maps in enumerate(pyramid):
        DETIC_FP32["features"].check(difference(stored, f"{extra}/fpn/p{n + 3}", maps), f"{extra} p{n + 3}")
    for row, photo in enumerate(names):
        at = f"{extra}/{photo}"
        check_sets(
            f"{at}/proposals",
            (proposals.boxes[row].numpy(), proposals.scores[row].numpy()),
            (stored[f"{at}/proposal_boxes"], stored[f"{at}/proposal_scores"]),
        )
    refined = combine(stages, proposals.scores, vocabulary(case.folder, "lvis"))
    for row, photo in enumerate(names):
        expected = tuple(stored[f"{extra}/{photo}/lvis_one_060/{key}"] for key in ("boxes", "scores", "classes"))
        check_sets(f"{extra}/{photo}", detections(case, refined, sizes, row, photo), expected)


@models
@pytest.mark.parametrize("canvas", [None, (544, 544), (576, 704)], ids=["smallest", "square", "large"])
def test_with_masking_each_image_is_as_if_alone(folder: Path, model: str, canvas: tuple[int, int] | None) -> None:
    case = case_of(folder, model)
    stored = case.arrays
    swin, pyramid, proposals, stages, sizes = compute(case, PHOTOS, canvas, masked=True)
    for row, photo in enumerate(PHOTOS):
        for kind, maps, first in (("swin/swin", swin, 1), ("fpn/p", pyramid, 3)):
            for n, level in enumerate(maps):
                name = f"{photo}/{kind}{n + first}"
                height, width = stored[f"{name}/shape"][2:]
                ours = level[row : row + 1, :, :height, :width]
                DETIC_FP32["features"].check(difference(stored, name, ours), name)
        check_sets(
            f"{photo}/proposals",
            (proposals.boxes[row].numpy(), proposals.scores[row].numpy()),
            (stored[f"{photo}/proposals/boxes"], stored[f"{photo}/proposals/scores"]),
        )
    for words, setting in (("custom", "custom_one_050"), ("lvis", "lvis_one_060")):
        refined = combine(stages, proposals.scores, vocabulary(case.folder, words))
        for row, photo in enumerate(PHOTOS):
            size = tuple(sizes[row].tolist())
            found = select(refined.boxes[row], refined.scores[row], size, settings(case)[setting])
            original = tuple(stored[f"{photo}/input/original_size"].tolist())
            ours = tuple(value.numpy() for value in to_stored(found, size, original)[:3])
            expected = tuple(stored[f"{photo}/{setting}/{key}"] for key in ("boxes", "scores", "classes"))
            check_sets(f"{photo}/{setting}", ours, expected)


@models
def test_stages_on_a_larger_canvas_fed_with_the_stored_boxes(folder: Path, model: str) -> None:
    case = case_of(folder, model)
    stored = case.arrays
    _, pyramid, _, _, sizes = compute(case, PHOTOS, (576, 704), masked=True)
    heads = detic(case.folder, case.model).roi_heads
    for number in range(3):
        boxes = np.stack([stored[f"{photo}/stage{number}/input_boxes"] for photo in PHOTOS])
        with torch.inference_mode():
            stage = heads.stage(number, pyramid[:3], torch.from_numpy(boxes), own_canvas(sizes))
        for row, photo in enumerate(PHOTOS):
            for name in ("pooled", "features", "deltas"):
                full = f"{photo}/stage{number}/{name}"
                DETIC_FP32["stages"].check(difference(stored, full, getattr(stage, name)[row]), full)


def test_masking_is_needed_exactly_off_the_own_canvas() -> None:
    assert not needs_masking([(320, 480), (290, 470)], (320, 480))
    assert needs_masking([(320, 480), (288, 480)], (320, 480))
    assert needs_masking([(320, 480)], (352, 480))
