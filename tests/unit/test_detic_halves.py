"""Detic as two exported graphs, with suppression between: against the model, and how its files are chosen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")
pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")
pytest.importorskip("onnxscript", reason="exporting needs the extra export")

import unit.fake_tensorrt as fake  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from fgfast import graphs, methods  # noqa: E402
from fgfast.backends import tensorrt_engine  # noqa: E402
from fgfast.backends.manifest import Manifest  # noqa: E402
from fgfast.errors import GraphError, UsageError  # noqa: E402
from fgfast.export import make  # noqa: E402
from fgfast.export.command import export  # noqa: E402
from fgfast.export.exportable import DETIC_SPLIT  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.detic import sessions  # noqa: E402
from fgfast.models.detic.build import build_detic  # noqa: E402
from fgfast.models.detic.graph import DetectorGraph  # noqa: E402
from fgfast.models.files import graph_files  # noqa: E402
from fgfast.records import Size  # noqa: E402
from fgfast.tolerances import DETIC_FP32  # noqa: E402

CANVAS = Size(96, 128)
BATCH, WORDS = 2, 5
SPEC = ModelSpec("detic_nano", "random:1", backend="onnxruntime", batch=BATCH)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds both halves of the smallest Detic."""
    cache = tmp_path_factory.mktemp("cache")
    make.export(
        SPEC, canvases=[CANVAS], graphs=DETIC_SPLIT, words=WORDS, out=cache / "graphs", on_message=lambda line: None
    )
    return cache


@pytest.fixture
def cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(exported, tmp_path / "cache")
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    nano(monkeypatch)
    # As on a GPU.
    monkeypatch.setattr(sessions, "in_two_graphs", lambda spec: spec.backend != "torch")
    return tmp_path / "cache"


def nano(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, replace(methods.method("detic"), name=SPEC.name)))
    monkeypatch.setattr(sessions, "LARGEST", CANVAS)
    monkeypatch.setattr(sessions, "LARGEST_TURNED", CANVAS)


def inputs(words: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(words)
    return {
        "pixels": torch.randint(0, 256, (BATCH, *CANVAS, 3), generator=generator, dtype=torch.uint8),
        "sizes": torch.tensor([CANVAS, (70, 90)]),
        "vocabulary": torch.nn.functional.normalize(torch.randn(512, words + 1, generator=generator), dim=0) * 50,
    }


@pytest.mark.parametrize("words", [1, 3, WORDS])
def test_both_halves_are_the_model(cache: Path, words: int) -> None:
    """Up to the words that the heads were made for."""
    found = sessions.canvases(SPEC, words)
    session = found.session(found.bucket(Size(70, 90)), 1)
    assert session.contract == found.contract(CANVAS) == graphs.detic_detector(CANVAS, BATCH)
    given = inputs(words)
    ours = session.run(given)
    boxes, scores = DetectorGraph(build_detic(replace(SPEC, backend="torch")))(*given.values())
    assert ours["scores"].shape == scores.shape == (BATCH, 256, words + 1)
    assert (scores > 0).any()
    # Equal scores may change places: rows are compared in the order of their best score.
    for row in range(BATCH):
        mine, theirs = (s[row].sum(-1).sort(descending=True, stable=True) for s in (ours["scores"], scores))
        DETIC_FP32["scores"].check((mine.values - theirs.values).numpy(), "scores")
        DETIC_FP32["boxes_px"].check((ours["boxes"][row][mine.indices] - boxes[row][theirs.indices]).numpy(), "boxes")
    session.close()


def test_more_words_are_refused_with_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"6 words, and detic_heads on 96x128 is exported for 5 at most: ") as error:
        sessions.canvases(SPEC, WORDS + 1)
    assert str(error.value).endswith("fgfast export detic_nano --precision fp32 --canvas 96x128 --words 6")
    found = sessions.canvases(SPEC)
    with pytest.raises(GraphError, match="exported for 5 words, and the vocabulary has 6"):
        found.session(CANVAS, BATCH).run(inputs(WORDS + 1))
    monkeypatch.setattr("fgfast.models.serving.exported._has_engine", lambda found, spec: True)
    with pytest.raises(UsageError, match="--backend tensorrt --batch 2 --words 6"):
        sessions.canvases(replace(SPEC, backend="tensorrt"), WORDS + 1)


def test_the_fewest_words_that_suffice_are_taken(cache: Path) -> None:
    make.export(SPEC, canvases=[CANVAS], graphs=("detic_heads",), words=2, on_message=lambda line: None)
    for words, wanted in ((1, 2), (2, 2), (3, WORDS)):
        ((_, heads),) = sessions._halves(SPEC, words)
        assert heads.path.name == f"detic_heads-p3-12x16-{wanted}words-b{BATCH}.onnx"


def test_a_missing_half_is_named_with_the_command(cache: Path) -> None:
    for path in cache.rglob("detic_heads*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"detic_heads is not in .*: fgfast export detic_nano --precision fp32"):
        sessions.graphs(SPEC)


def test_manifests_keep_what_is_fixed(exported: Path) -> None:
    found = {e.path.name: e for graph in DETIC_SPLIT for path in exported.rglob("*-fp32") for e in _in(graph, path)}
    backbone, heads = found["detic_backbone-96x128-b2.onnx"], found["detic_heads-p3-12x16-5words-b2.onnx"]
    assert backbone.canvas == heads.canvas == CANVAS
    contract = heads.manifest.contract
    assert not heads.manifest.outdated and not contract.free and contract.arguments["classes"] == WORDS + 1
    assert contract.signature() == graphs.detic_heads(**contract.arguments).signature()
    assert contract != graphs.detic_heads(**{**contract.arguments, "classes": "classes"})


def _in(graph: str, folder: Path) -> list[graph_files.Exported]:
    return graph_files.find(graph, folder)


def test_only_a_gpu_gets_two_graphs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("FGFAST_CACHE", str(cache))
    nano(monkeypatch)
    assert sessions.in_two_graphs(replace(SPEC, backend="tensorrt", device="cuda:0"))
    assert sessions.in_two_graphs(replace(SPEC, device="cuda:0"))
    assert not sessions.in_two_graphs(SPEC)
    assert not sessions.in_two_graphs(replace(SPEC, backend="torch", device="cuda:0"))
    for path in cache.rglob("detic_heads*"):
        path.unlink()
    assert not sessions.in_two_graphs(replace(SPEC, device="cuda:0"))


def test_defaults_for_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves, at the batch of a run on a GPU, for as many words as LVIS has."""
    asked: list[Any] = []

    def parts(spec: ModelSpec, canvases: Any, names: Any, *, words: int | None, sample: Any) -> list[Any]:
        asked.append((spec.batch, names, words))
        return []

    monkeypatch.setattr(make, "parts", parts)
    monkeypatch.setattr(make, "check_tensorrt", lambda precision: None)
    spec = ModelSpec(SPEC.name, "random:1")
    make.export(spec, backend="tensorrt", out=tmp_path)
    make.export(spec, out=tmp_path)
    make.export(replace(spec, batch=2), backend="tensorrt", words=3, out=tmp_path)
    assert asked == [(4, DETIC_SPLIT, 1203), (1, ("detic_detector",), None), (2, DETIC_SPLIT, 3)]


@pytest.mark.full
def test_the_command_builds_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fake, whose engines ONNX Runtime runs."""
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    nano(monkeypatch)
    trt: Any = fake.make()
    fake.install(monkeypatch, trt)
    monkeypatch.setattr(make, "choose_precision", lambda precision: precision)
    traced = make.trace.trace

    def trace(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            traced(*arguments)

    monkeypatch.setattr(make.trace, "trace", trace)
    command = ["detic_nano", "--precision", "fp32", "--model-weights", "random:1", "--canvas", "64x64", "--words", "3"]
    done = CliRunner().invoke(export, [*command, "--backend", "tensorrt"], catch_exceptions=False)
    written = [Path(line) for line in done.stdout.split()]
    found = [path.name for path in written if path.suffix == ".onnx"]
    assert found == ["detic_backbone-64x64-b4.onnx", "detic_heads-p3-8x8-3words-b4.onnx"]
    engines = [path for path in written if path.suffix == ".engine"]
    assert len(engines) == [name for name, _ in trt.calls].count("build") == 2
    for path in engines:
        manifest = Manifest.read(tensorrt_engine.manifest_of(path))
        assert not manifest.contract.free and manifest.contract.inputs[0].shape[0] == 4
        assert any("recorded" in one.get("case", "") for one in manifest.measured)
