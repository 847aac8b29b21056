"""The operators that Detic's graphs are made of: in eager and in ONNX Runtime, against the forms that PyTorch runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fgfast.backends.onnxruntime import OnnxRuntimeSession
from fgfast.export import detic, trace
from fgfast.export.translations import suppress
from fgfast.graphs import Contract, Port
from fgfast.models.detic.config import NANO
from fgfast.models.detic.grid import WindowGrid
from fgfast.models.detic.model import Detic
from fgfast.models.detic.suppression import nms
from fgfast.models.detic.windows import WindowPlan, apart

BOXES, LIMIT = 300, 64


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return suppress(boxes, scores, 0.5, LIMIT)


def in_onnx(graph: nn.Module, inputs: dict[str, Tensor], output: Tensor, folder: Path) -> OnnxRuntimeSession:
    ports = tuple(Port(name, trace.dtype_name(x), tuple(x.shape), "") for name, x in inputs.items())
    contract = Contract("test", ports, (Port("out", trace.dtype_name(output), tuple(output.shape), ""),))
    path = folder / "graph.onnx"
    trace.trace(graph, contract, tuple(inputs.values()), path)
    return OnnxRuntimeSession(path, contract)


def crowd(seed: int, alive: int, spread: float) -> dict[str, Tensor]:
    """Boxes that overlap more the smaller `spread`; every score occurs about three times; the rest is void."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(BOXES, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 20 + 20 * torch.rand(BOXES, 2, generator=generator)], 1)
    scores = torch.randint(1, 101, (BOXES,), generator=generator) / 100
    live = torch.arange(BOXES) < alive
    order = torch.randperm(BOXES, generator=generator)
    return {"boxes": (boxes * live[:, None])[order], "scores": (scores * live)[order]}


# More survive than are wanted, fewer do, a single one, none.
CROWDS = [(0, BOXES, 2000.0), (1, BOXES, 60.0), (2, 20, 2000.0), (3, 1, 50.0), (4, 0, 50.0)]


@pytest.fixture(scope="module")
def suppressing(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeSession:
    inputs = crowd(9, BOXES, 300.0)
    folder = tmp_path_factory.mktemp("suppress")
    return in_onnx(Suppress(), inputs, torch.zeros(LIMIT, dtype=torch.int64), folder)


@pytest.mark.parametrize(("seed", "alive", "spread"), CROWDS)
def test_suppression_of_fixed_size(suppressing: OnnxRuntimeSession, seed: int, alive: int, spread: float) -> None:
    inputs = crowd(seed, alive, spread)
    kept = nms(inputs["boxes"], inputs["scores"], 0.5, LIMIT)
    kept = kept[inputs["scores"][kept] > 0]
    expected = [*kept.tolist(), *[BOXES] * (LIMIT - len(kept))]
    assert suppress(inputs["boxes"], inputs["scores"], 0.5, LIMIT).tolist() == expected
    assert suppressing.run(inputs)["out"].tolist() == expected


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize(("height", "width"), [(14, 21), (10, 16), (5, 7)])
def test_windows_by_reshaping_are_those_by_index(height: int, width: int, shift: int) -> None:
    plan, grid = WindowPlan(2, height, width, shift), WindowGrid(height, width, shift)
    tokens = torch.randn(2, height * width, 3)
    slots = grid.split(tokens)
    assert torch.equal(grid.join(slots, 2), tokens.flatten(0, 1))
    valid = torch.tensor([[height, width], [max(height - 4, 1), width - 3]])
    filled, region = plan.limits(valid)
    here, mask = grid.limits(valid)
    # The plan lists windows kind by kind: bring both into the order of the first token of each.
    by_plan = (tokens.flatten(0, 1)[plan.token] * filled).view(-1, 49, 3)
    by_grid = grid.split(tokens * here).view(-1, 49, 3)
    window = (plan.image * grid.down + _window(plan.row, shift, grid.down)) * grid.across
    order = (window + _window(plan.column, shift, grid.across)).view(-1, 49)[:, 0].argsort()
    assert torch.equal(by_plan[order], by_grid)
    if mask is not None:
        inside = by_grid.abs().sum(2) > 0
        pairs = inside[:, :, None] & inside[:, None, :]
        assert torch.equal(apart(region)[order][pairs], mask[:, 0][pairs])


def _window(cell: Tensor, shift: int, count: int) -> Tensor:
    return (cell - shift) % (count * 7) // 7


def test_the_exported_form_is_the_model_and_leaves_it_alone() -> None:
    torch.manual_seed(0)
    model = Detic(NANO)
    part = detic.part(model, model, "detic_detector", (128, 160), 2)
    inputs = dict(part.cases())["wide"]
    boxes, scores = part.graph(*inputs.values())
    expected, expected_scores = detic.GRAPHS["detic_detector"](model)(*inputs.values())
    torch.testing.assert_close(boxes, expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-5)
    assert model.proposal_generator.suppress is nms
    assert not model.backbone.bottom_up.as_grid
    weights = {x.data_ptr() for x in model.parameters()}
    assert {x.data_ptr() for x in part.graph.parameters()} == weights


def test_cases_are_not_what_was_traced() -> None:
    nano = Detic(NANO)
    part = detic.part(nano, nano, "detic_heads", (128, 160))
    traced = dict(zip((port.name for port in part.contract.inputs), part.example, strict=True))
    for _, inputs in part.cases():
        assert inputs["vocabulary"].shape != traced["vocabulary"].shape
        part.contract.bind({name: (trace.dtype_name(x), x.shape) for name, x in inputs.items()})
