"""Detic in bfloat16 and float16 against the float32 numbers of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from parity.detic_golden import FULL, PORTABLE, Case, cases, difference, pair_up, scores, trace

from fgfast.tolerances import DETIC_BF16, DETIC_BF16_OVER_FLOOR, DETIC_FP16

CASES = [
    *cases("detic_nano_320", folders=(PORTABLE, FULL)),
    *(pytest.param(*case.values, id=case.id, marks=pytest.mark.full) for case in cases("detic_swint_320")),
]
ARRAYS = [
    *((f"swin/swin{n}", "features") for n in (1, 2, 3)),
    *((f"fpn/p{n}", "features") for n in (3, 4, 5, 6, 7)),
    *((f"centernet/{kind}_p{n}", "heads") for n in (3, 4, 5, 6, 7) for kind in ("heatmap_logits", "regression")),
    *((f"stage{n}/{kind}", "stages") for n in (0, 1, 2) for kind in ("pooled", "features", "deltas")),
]
TABLES = {"bf16": DETIC_BF16, "fp16": DETIC_FP16}


# Of module scope, so that tests are run case by case and each case is computed once.
@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="module", params=TABLES)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_arrays(case: Case, precision: str) -> None:
    ours, table = trace(case, precision), TABLES[precision]
    for name, kind in ARRAYS:
        full = f"{case.photo}/{name}"
        table[kind].check(difference(case.arrays, full, ours[name]), full)
    for name in (name for name in ours if ".block" in name):
        full = f"{case.photo}/{name}"
        table.get("blocks", table["features"]).check(difference(case.arrays, full, ours[name]), full)


def test_stored_boxes_are_refined_and_scored_alike(case: Case, precision: str) -> None:
    ours, stored, table = trace(case, precision), case.arrays, TABLES[precision]
    for n in range(3):
        name = f"{case.photo}/stage{n}/refined_boxes"
        off = np.abs(difference(stored, name, ours[f"stage{n}/refined_boxes"])).reshape(-1, 4).max(1)
        assert (off > table["boxes_px"].largest).mean() <= 0.02, name
    name = f"{case.photo}/scores_custom"
    table["scores"].check(difference(stored, name, scores(case, ours, "custom", fed=True)), name)


def test_most_proposals_stay(case: Case, precision: str) -> None:
    ours, table = trace(case, precision), TABLES[precision]
    stored = case.arrays[f"{case.photo}/proposals/boxes"]
    partner = pair_up(stored, ours["proposals/boxes"].numpy(), table["boxes_px"].largest)
    assert (partner < 0).mean() <= table["lost"].largest, table["lost"].reason
    kept = partner >= 0
    off = ours["proposals/scores"].numpy()[partner[kept]] - case.arrays[f"{case.photo}/proposals/scores"][kept]
    table["proposal_scores"].check(off.astype(np.float64), "proposals/scores")


def test_bf16_adds_little_to_the_rounding_of_the_weights(case: Case) -> None:
    ours, floor = trace(case, "bf16"), trace(case, "bf16-weights")
    for kind in ("features", "heads", "stages"):
        names = [f"{case.photo}/{name}" for name, of in ARRAYS if of == kind]
        total = [
            sum(float(np.square(difference(case.arrays, name, out[name.split("/", 1)[1]])).mean()) for name in names)
            for out in (ours, floor)
        ]
        ratio = (total[0] / total[1]) ** 0.5
        assert ratio <= DETIC_BF16_OVER_FLOOR, f"{kind}: {ratio:.2f} times the rms of rounding the weights alone"
