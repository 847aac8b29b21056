"""Single steps of Detic against the stored steps of the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parity.detic_golden import draw, state, vocabulary
from parity.golden import FULL, Golden
from parity.test_detic import check_boxes, check_sets

from fgfast.models.detic import roi
from fgfast.models.detic.canvas import PYRAMID_STRIDES
from fgfast.models.detic.cascade import STAGE_WEIGHTS, BoxPredictor, decode
from fgfast.models.detic.config import NANO
from fgfast.models.detic.proposals import Candidates, ProposalGenerator, level_candidates
from fgfast.models.detic.suppression import nms
from fgfast.models.detic.transform import Selection, resized_size, select
from fgfast.models.detic.vocabulary import class_logits
from fgfast.models.serving.batches import resized
from fgfast.tolerances import DETIC_FP32


@pytest.fixture(scope="module")
def stored() -> dict[str, NDArray[Any]]:
    return Golden(FULL, "ops").arrays


@pytest.mark.parametrize(("shorter", "longest"), [(800, 1333), (320, 533)])
def test_resized_sizes(stored: dict[str, NDArray[Any]], shorter: int, longest: int) -> None:
    ours = [resized_size(int(h), int(w), shorter, longest) for h, w in stored["sizes"]]
    np.testing.assert_array_equal(ours, stored[f"resize_shortest/{shorter}_{longest}"])


@pytest.mark.parametrize("size", [(20, 29), (37, 106), (61, 88)])
def test_resize(stored: dict[str, NDArray[Any]], size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(resized(stored["pil/input"], size), stored[f"pil/{size[0]}x{size[1]}"])


@pytest.mark.parametrize("form", [roi.pool_taps, roi.pool_dense])
def test_roi_align(stored: dict[str, NDArray[Any]], form: Any) -> None:
    shapes = ((1, 16, 64, 80), (1, 16, 32, 40), (1, 16, 16, 20))
    maps = [draw(FULL, f"ops.roi.p{n}", shape) for n, shape in zip((3, 4, 5), shapes, strict=True)]
    boxes = torch.from_numpy(stored["roi/boxes"])[None]
    levels = roi.levels_of(boxes)
    np.testing.assert_array_equal(levels[0].numpy(), stored["roi/level"])
    sizes = torch.tensor([shape[2:] for shape in shapes])[levels - 3]
    pooled = form(maps, boxes, levels, sizes)[0]
    DETIC_FP32["stages"].check((pooled.numpy() - stored["roi/pooled"]).reshape(-1).astype(np.float64), "roi/pooled")


def test_decode(stored: dict[str, NDArray[Any]]) -> None:
    boxes, deltas = (torch.from_numpy(stored[f"deltas/{name}"]) for name in ("boxes", "values"))
    for number, weights in enumerate(STAGE_WEIGHTS):
        name = f"deltas/stage{number}"
        check_boxes(name, decode(boxes, deltas, weights).numpy(), stored[name])


@pytest.mark.parametrize("name", ["agnostic_05", "agnostic_07", "agnostic_09", "classwise_05"])
def test_nms(stored: dict[str, NDArray[Any]], name: str) -> None:
    boxes, scores, classes = (torch.from_numpy(stored[f"nms/{key}"]) for key in ("boxes", "scores", "classes"))
    threshold = int(name[-1]) / 10
    kept = nms(boxes, scores, threshold, len(boxes), classes if name.startswith("class") else None)
    np.testing.assert_array_equal(kept.numpy(), stored[f"nms/keep_{name}"])


@pytest.mark.parametrize("name", ["config", "limited"])
def test_dense_outputs_to_proposals(stored: dict[str, NDArray[Any]], name: str) -> None:
    per_level, kept, overlap = stored[f"centernet/{name}/limits"].tolist()
    config = replace(NANO, level_candidates=int(per_level), proposals=int(kept), proposal_overlap=round(overlap, 6))
    found = []
    for n, (height, width) in enumerate(stored["centernet/level_shapes"].tolist()):
        heat = 3 * draw(FULL, f"ops.centernet.heatmap{n}", (1, 1, height, width)) - 6
        reach = (0.7 * draw(FULL, f"ops.centernet.regression{n}", (1, 4, height, width)) + 4).clamp(min=0)
        found.append(level_candidates(heat, reach, PYRAMID_STRIDES[n], None, config))
    candidates = Candidates(*(torch.cat(list(column), 1) for column in zip(*found, strict=True)))
    alive = candidates.scores[0] > 0
    best = ProposalGenerator(config).best(candidates)
    for prefix, boxes, scores in (
        ("pre_nms_", candidates.boxes[0][alive], candidates.scores[0][alive]),
        ("", best.boxes[0], best.scores[0]),
    ):
        expected = tuple(stored[f"centernet/{name}/{prefix}{key}"] for key in ("boxes", "scores"))
        check_sets(f"centernet/{name}/{prefix}", (boxes.numpy(), scores.numpy()), expected)


def test_predictors(stored: dict[str, NDArray[Any]]) -> None:
    words = vocabulary(FULL, "custom")
    np.testing.assert_allclose(words.numpy(), stored["classifier/zs_weight"], rtol=0, atol=1e-6)
    features = draw(FULL, "ops.classifier.features", (6, 128)).clamp(min=0)[None]
    weights = state(FULL, "nano")
    for number in range(3):
        predictor = BoxPredictor(NANO.box_features).requires_grad_(False)
        prefix = f"roi_heads.box_predictor.{number}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        predictor.load_state_dict(own)
        embeddings, deltas = predictor(features)
        for name, ours in (("logits", class_logits(embeddings, words)[0]), ("deltas", deltas[0])):
            full = f"classifier/stage{number}/{name}"
            DETIC_FP32["stages"].check((ours.numpy() - stored[full]).reshape(-1).astype(np.float64), full)


@pytest.mark.parametrize(
    ("name", "selection"),
    [
        ("all", Selection(0.3, one_class=False)),
        ("top10", Selection(0.3, one_class=False, limit=10)),
        ("one", Selection(0.5, one_class=True)),
    ],
)
def test_selection(stored: dict[str, NDArray[Any]], name: str, selection: Selection) -> None:
    boxes = torch.from_numpy(stored["final/boxes"])
    scores = torch.from_numpy(stored["final/scores_tied" if name == "one" else "final/scores"])
    height, width = stored["final/image_size"].tolist()
    found = select(boxes, scores, (height, width), selection)
    np.testing.assert_array_equal(found.boxes.numpy(), stored[f"final/{name}/boxes"])
    np.testing.assert_array_equal(found.scores.numpy(), stored[f"final/{name}/scores"])
    np.testing.assert_array_equal(found.classes.numpy(), stored[f"final/{name}/classes"])
    # The stored rows count only the rows whose boxes and scores are finite.
    finite = (torch.isfinite(boxes).all(1) & torch.isfinite(scores).all(1)).numpy()
    rows = np.flatnonzero(finite)[stored[f"final/{name}/row"]]
    np.testing.assert_array_equal(found.proposal_index.numpy(), rows)
