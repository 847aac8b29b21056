"""Detic against the reference's stored numbers, in float32, image by image on its own canvas."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from parity.detic_golden import (
    FULL,
    PORTABLE,
    Case,
    cases,
    difference,
    pair_up,
    resized,
    scores,
    settings,
    trace,
)

from fgfast.models.detic.transform import Selected, select, to_stored
from fgfast.tolerances import DETIC_BOX_SHARE, DETIC_FP32

CASES = [
    *cases("detic_nano_320", folders=(PORTABLE, FULL)),
    *cases("detic_swint_320", "detic_swinb_320", "detic_swinb"),
]
# Boxes: 0.01 px plus a share of their size. Matching looks within 2 px (README).
MATCH_PX = 2.0
both_modes = pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])


# Of module scope, so that tests are run case by case and each case is computed once.
@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


def check(case: Case, masked: bool, prefix: str, kind: str) -> None:
    """Every stored array whose name starts with the prefix, whole or sampled."""
    ours, stored = trace(case, masked=masked), case.arrays
    names = {
        key.split("/", 1)[1].removesuffix("/shape")
        for key in stored
        if key.startswith(f"{case.photo}/{prefix}") and (key.endswith("/shape") or f"{key}/shape" not in stored)
    }
    names = {name for name in names if name.rsplit("/", 1)[-1] not in ("sample", "stride", "stats")}
    names = {name for name in names if not name.endswith(("channel_mean", "channel_std"))}
    assert names
    for name in sorted(names):
        full = f"{case.photo}/{name}"
        DETIC_FP32[kind].check(difference(stored, full, ours[name]), full)
        for statistic, value in (("channel_mean", torch.mean), ("channel_std", torch.std)):
            if f"{full}/{statistic}" in stored:
                extra = {"correction": 0} if statistic == "channel_std" else {}
                mine = value(ours[name].double(), dim=(0, 2, 3), **extra).numpy()
                DETIC_FP32[kind].check(mine - stored[f"{full}/{statistic}"], f"{full}/{statistic}")


def check_boxes(name: str, ours: np.ndarray, stored: np.ndarray) -> None:
    """Boxes in the same order: 0.01 px plus 1e-5 of their size."""
    size = np.abs(stored[:, 2:] - stored[:, :2]).max(1, keepdims=True)
    excess = np.abs(ours.astype(np.float64) - stored) - DETIC_BOX_SHARE * size
    DETIC_FP32["boxes_px"].check(np.maximum(excess, 0).reshape(-1), name)


def check_sets(name: str, ours: tuple[np.ndarray, ...], stored: tuple[np.ndarray, ...]) -> np.ndarray:
    """(boxes, scores[, classes]) in any order: the same boxes, none lost or gained. Returns our index of
    each stored one.
    """
    same = ours[2][None] == stored[2][:, None] if len(ours) > 2 else None
    partner = pair_up(stored[0], ours[0], MATCH_PX, same)
    assert len(ours[0]) == len(stored[0]), f"{name}: {len(ours[0])} boxes, not {len(stored[0])}"
    assert (partner >= 0).all(), f"{name}: {(partner < 0).sum()} of {len(partner)} stored boxes lost"
    assert len(set(partner.tolist())) == len(partner), f"{name}: two stored boxes have one partner"
    check_boxes(name, ours[0][partner], stored[0])
    DETIC_FP32["scores"].check((ours[1][partner] - stored[1]).astype(np.float64), name)
    return partner


def test_resizing_gives_the_same_bytes(case: Case) -> None:
    pixels, stored = resized(case), case.arrays
    np.testing.assert_array_equal(pixels.shape[:2], stored[f"{case.photo}/input/image_sizes"][0])
    digest = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)
    np.testing.assert_array_equal(digest, stored[f"{case.photo}/input/resized_sha256"])


def test_input_tensor(case: Case) -> None:
    name = f"{case.photo}/input/tensor"
    DETIC_FP32["input"].check(difference(case.arrays, name, trace(case)["input/tensor"]), name)


@both_modes
def test_backbone(case: Case, masked: bool) -> None:
    check(case, masked, "swin/", "features")


@both_modes
def test_pyramid(case: Case, masked: bool) -> None:
    check(case, masked, "fpn/", "features")


@both_modes
def test_heads(case: Case, masked: bool) -> None:
    check(case, masked, "centernet/", "heads")


@both_modes
def test_candidates_and_proposals(case: Case, masked: bool) -> None:
    ours, stored = trace(case, masked=masked), case.arrays
    for kind in ("proposals/pre_nms_", "proposals/"):
        check_sets(
            f"{case.photo}/{kind}",
            (ours[f"{kind}boxes"].numpy(), ours[f"{kind}scores"].numpy()),
            (stored[f"{case.photo}/{kind}boxes"], stored[f"{case.photo}/{kind}scores"]),
        )


@both_modes
@pytest.mark.parametrize("number", [0, 1, 2])
def test_stage_fed_with_the_stored_boxes(case: Case, number: int, masked: bool) -> None:
    ours, stored, stage = trace(case, masked=masked), case.arrays, f"stage{number}"
    np.testing.assert_array_equal(ours[f"{stage}/level"].numpy(), stored[f"{case.photo}/{stage}/level"])
    for name in ("pooled", "features", "deltas"):
        full = f"{case.photo}/{stage}/{name}"
        DETIC_FP32["stages"].check(difference(stored, full, ours[f"{stage}/{name}"]), full)
    full = f"{case.photo}/{stage}/refined_boxes"
    check_boxes(full, ours[f"{stage}/refined_boxes"].numpy(), stored[full])


@pytest.mark.parametrize("words", ["custom", "lvis"])
def test_logits_and_scores_of_the_stored_boxes(case: Case, words: str) -> None:
    from parity.detic_golden import vocabulary

    from fgfast.models.detic.vocabulary import class_logits

    ours, stored = trace(case), case.arrays
    matrix = vocabulary(case.folder, words)
    for number in range(3):
        name = f"{case.photo}/stage{number}/logits_{words}"
        logits = class_logits(ours[f"fed_embeddings{number}"], matrix)
        DETIC_FP32["stages"].check(difference(stored, name, logits), name)
        if words == "lvis":
            best = logits[:, :-1].max(1).values
            DETIC_FP32["stages"].check((best.numpy() - stored[f"{name}/row_max"]).astype(np.float64), name)
            named = torch.from_numpy(stored[f"{name}/row_argmax"]).long()
            at_stored = logits.gather(1, named[:, None])[:, 0]
            assert float((best - at_stored).max()) <= DETIC_FP32["stages"].largest
    name = f"{case.photo}/scores_{words}"
    DETIC_FP32["scores"].check(difference(stored, name, scores(case, ours, words, fed=True)), name)


def selected(case: Case, setting: str, fed: bool, masked: bool = False) -> tuple[Selected, Selected]:
    """What a setting selects, in the resized frame and in pixels of the stored photo."""
    ours = trace(case, masked=masked)
    boxes = ours["stage2/refined_boxes"] if fed else ours["boxes"]
    size = tuple(ours["input/image_sizes"][0].tolist())
    stored_size = tuple(case.arrays[f"{case.photo}/input/original_size"].tolist())
    found = select(boxes, scores(case, ours, setting.split("_")[0], fed), size, settings(case)[setting])
    return found, to_stored(found, size, stored_size)


@pytest.mark.parametrize("fed", [True, False], ids=["stored-boxes", "whole-model"])
@pytest.mark.parametrize(
    "setting", ["lvis_one_060", "lvis_all_002", "custom_one_050", "custom_all_050", "custom_all_002"]
)
def test_detections(case: Case, setting: str, fed: bool) -> None:
    stored, name = case.arrays, f"{case.photo}/{setting}"
    in_frame, found = selected(case, setting, fed)
    expected = tuple(stored[f"{name}/{key}"] for key in ("boxes", "scores", "classes"))
    partner = check_sets(name, tuple(value.numpy() for value in found[:3]), expected)
    # Boxes clipped to nothing are stored in the resized frame only, where scores and classes are not.
    frame = stored[f"{name}/boxes_resized_frame"]
    assert len(in_frame.boxes) == len(frame)
    full = [(boxes[:, 2:] > boxes[:, :2]).all(1) for boxes in (in_frame.boxes.numpy(), frame)]
    ours = tuple(value.numpy()[full[0]] for value in in_frame[:3])
    check_sets(f"{name}/boxes_resized_frame", ours, (frame[full[1]], *expected[1:]))
    assert (np.diff(found.scores.numpy()) <= 0).all()
    index = found.proposal_index.numpy()[partner]
    if not fed:
        to_stored_row = pair_up(
            trace(case)["proposals/boxes"].numpy(), stored[f"{case.photo}/proposals/boxes"], MATCH_PX
        )
        index = to_stored_row[index]
    np.testing.assert_array_equal(index, stored[f"{name}/proposal_index"])
