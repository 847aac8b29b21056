"""Recordings of PyTorch's graphs: what is recorded, and what runs without. CUDA's part is a fake."""

from __future__ import annotations

import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

import unit.fake_cuda as fake  # noqa: E402

from fgfast import graphs  # noqa: E402
from fgfast.backends import recording  # noqa: E402
from fgfast.backends.torch import TorchSession  # noqa: E402
from fgfast.errors import RecordingFailedError  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.detic import sessions, split  # noqa: E402
from fgfast.models.detic.build import build_detic  # noqa: E402
from fgfast.models.detic.canvas import CANVASES  # noqa: E402

INPUTS = {
    "embeddings": torch.zeros(1, 256, 16, 16),
    "image_index": torch.zeros(1, dtype=torch.int64),
    "boxes": torch.zeros(1, 4),
}


class Graph(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.runs, self.weight = 0, torch.nn.Parameter(torch.zeros(3))

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.runs += 1
        return torch.zeros(1, 1, 64, 64), torch.zeros(1, 1), torch.zeros(1, 1)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> TorchSession:
    fake.install(monkeypatch)
    return TorchSession(Graph(), graphs.sam_mask_decoder(256), "cuda:0", "recorded")


def test_a_graph_that_failed_before_runs_without_a_recording(
    session: TorchSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def refusal(what: str, device: Any) -> str:
        asked.append(what)
        return "it waits for the GPU (noted in a.json)"

    monkeypatch.setattr(recording, "refusal", refusal)
    monkeypatch.setattr(recording, "record", lambda *args: pytest.fail("recorded again"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            session.run(INPUTS)
    assert session._graph.runs == 2
    assert len(asked) == 1
    assert "sam_mask_decoder of 3 weights (float32) in PyTorch, recorded" in asked[0]
    assert caplog.text.count("runs without a recording: it waits for the GPU") == 1


def test_recordings_are_made_by_the_one_way(session: TorchSession, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Recorded:
        def replay(self) -> None:
            made.append("replayed")

    def record(what: str, run: Any, pool: Any) -> tuple[Any, Any]:
        made.append("recorded")
        return Recorded(), run()

    monkeypatch.setattr(recording, "refusal", lambda what, device: "")
    monkeypatch.setattr(recording, "record", record)
    for _ in range(2):
        session.run(INPUTS)
    assert made == ["recorded", "replayed", "replayed"]


def test_the_canvases_and_halves_of_a_model_share_the_memory_of_recordings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each held its own: seven canvases of two halves."""
    fake.install(monkeypatch)
    nano = build_detic(ModelSpec("detic_nano", "random:1"))
    pools: list[Any] = []

    class Half:
        def __init__(self, graph: Any, contract: Any, device: Any, form: str, pool: Any) -> None:
            pools.append(pool)

        def close(self) -> None: ...

    monkeypatch.setattr(split, "TorchSession", Half)
    for form in ("recorded", "recorded", "compiled+recorded+cudnn", "compiled"):
        canvases = sessions.detic_in_torch(nano, form)
        for canvas in CANVASES[:2]:
            canvases.session(canvas, 1).close()
    first, second, third, *others = (pools[n : n + 4] for n in range(0, 16, 4))
    assert all(len(set(of)) == 1 for of in (first, second, third))
    assert len({*first, *second, *third}) == 3
    assert others == [[None] * 4]


def test_a_recording_that_fails_ends_the_process(session: TorchSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*_: Any) -> Any:
        raise RecordingFailedError("it waits for the GPU")

    monkeypatch.setattr(recording, "refusal", lambda what, device: "")
    monkeypatch.setattr(recording, "record", record)
    with pytest.raises(RecordingFailedError):
        session.run(INPUTS)
