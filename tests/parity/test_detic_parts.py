"""What the fixtures do not show: loading, suppression against the definition, fixed shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from parity.detic_golden import state
from parity.golden import PORTABLE
from torch import Tensor, nn

from fgfast.errors import WeightsError
from fgfast.models.detic.canvas import own_canvas
from fgfast.models.detic.checkpoint import load
from fgfast.models.detic.config import NANO
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates, best
from fgfast.models.detic.suppression import nms, overlaps
from fgfast.models.detic.vocabulary import classifier


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return state(PORTABLE, "nano")


def test_unused_parts_of_a_checkpoint_may_be_there_or_not(weights: dict[str, Tensor]) -> None:
    assert any("mask_head" in key for key in weights)
    load(Detic(NANO), weights | {"roi_heads.box_predictor.1.cls_score.zs_weight": torch.zeros(512, 7)})
    load(Detic(NANO), {key: value for key, value in weights.items() if "mask_head" not in key})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.top_block.p6.bias": None}, "backbone.top_block.p6.bias is missing"),
        ({"backbone.top_block.p8.bias": torch.zeros(64)}, "backbone.top_block.p8.bias is unknown"),
        ({"backbone.top_block.p6.bias": torch.zeros(65)}, r"p6.bias is \(65,\), not \(64,\)"),
        ({"roi_heads.mask_head.other.weight": torch.zeros(1)}, "roi_heads.mask_head.other.weight is unknown"),
        (
            {
                "backbone.bottom_up.layers.0.blocks.0.attn.relative_position_index": torch.zeros(
                    49, 49, dtype=torch.int64
                )
            },
            "contains other numbers",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    weights: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    changed = {key: value for key, value in (weights | change).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        load(Detic(NANO), changed)


@pytest.mark.parametrize("limit", [5, 60, 3000])
@pytest.mark.parametrize("kinds", [1, 3])
def test_suppression_is_greedy(limit: int, kinds: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    corner = torch.rand(1500, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(1500, 2, generator=generator) * 40], 1)
    scores = (torch.rand(1500, generator=generator) * 200).round() / 200
    classes = torch.randint(kinds, (1500,), generator=generator)
    hit = (overlaps(boxes, boxes) > 0.6) & (classes[:, None] == classes)
    expected: list[int] = []
    for n in scores.sort(descending=True, stable=True).indices.tolist():
        if not hit[expected, n].any():
            expected.append(n)
    assert nms(boxes, scores, 0.6, limit, classes).tolist() == expected[:limit]


def test_empty_boxes_do_not_suppress() -> None:
    assert nms(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5, 10).tolist() == [1, 2, 0]


class Everything(nn.Module):
    """The model with a stand-in for suppression, the one step whose result varies in length."""

    def __init__(self, model: Detic) -> None:
        super().__init__()
        self.model = model
        model.proposal_generator.suppress = lambda _boxes, scores, _overlap, limit: scores.topk(limit).indices

    def forward(self, images: Tensor, sizes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        refined = self.model(images, sizes, words, True)
        return refined.boxes, refined.scores


@pytest.mark.parametrize(("limit", "count"), [(6, 10), (20, 10), (3, 5)])
def test_every_suppression_gives_the_same_proposals(limit: int, count: int) -> None:
    """One returns what it kept, that of GPUs fills up with N to min(limit, N)."""
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * 20
    alive = torch.arange(count) < count - 2
    boxes = torch.cat([corner, corner + 10], 1) * alive[:, None]
    candidates = Candidates(boxes[None], (torch.rand(count, generator=generator) * alive)[None])
    config = replace(NANO, proposals=limit)

    def as_on_a_gpu(boxes: Tensor, scores: Tensor, overlap: float, limit: int) -> Tensor:
        kept = nms(boxes, scores, overlap, limit)
        return nn.functional.pad(kept, (0, min(limit, len(boxes)) - len(kept)), value=len(boxes))

    found = [best(candidates, suppress, config) for suppress in (nms, as_on_a_gpu)]
    kept = nms(*(part[0] for part in candidates), config.proposal_overlap, limit)
    assert len(kept) < count
    for boxes, scores in found:
        assert boxes.shape == (1, limit, 4) and scores.shape == (1, limit)
        assert torch.equal(boxes[0, : len(kept)], candidates.boxes[0, kept])
        assert torch.equal(scores[0, : len(kept)], candidates.scores[0, kept])
        assert not boxes[0, len(kept) :].any() and not scores[0, len(kept) :].any()


@pytest.mark.full
def test_the_masked_model_has_fixed_shapes_and_can_be_exported(weights: dict[str, Tensor]) -> None:
    model = Detic(NANO)
    load(model, weights)
    words = classifier(torch.randn(3, 512, generator=torch.Generator().manual_seed(0)))
    images = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    whole = Everything(model.set_precision("fp32"))
    with torch.no_grad():
        # The windows are laid out before tracing, so that the graph holds them as constants.
        whole(images, torch.tensor([[128, 160]]), words)
        program = torch.export.export(whole, (images, torch.tensor([[128, 160]]), words), strict=False)
        for size in ([100, 150], [128, 96]):
            sizes = torch.tensor([size])
            images[:, :, size[0] :], images[:, :, :, size[1] :] = 0, 0
            for ours, exported in zip(whole(images, sizes, words), program.module()(images, sizes, words), strict=True):
                torch.testing.assert_close(exported, ours, rtol=1e-4, atol=1e-2)
    assert own_canvas(torch.tensor([[100, 150]])).tolist() == [[128, 160]]
