"""Graphs as sessions: in PyTorch as they stand and compiled, in ONNX Runtime from what `fgfast export` wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")
pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")
pytest.importorskip("onnxscript", reason="exporting needs the extra export")

from parity.in_slots import alone  # noqa: E402

from fgfast import graphs, methods  # noqa: E402
from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.backends.session import zeros  # noqa: E402
from fgfast.backends.torch import TorchSession  # noqa: E402
from fgfast.errors import GraphError, ParityError, UsageError  # noqa: E402
from fgfast.export import make  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.files import graph_files  # noqa: E402
from fgfast.models.sam.build import build_sam  # noqa: E402
from fgfast.models.sam.graph import MaskDecoderGraph  # noqa: E402
from fgfast.models.sam.segmenter import finish  # noqa: E402
from fgfast.models.sam.sessions import segmenter  # noqa: E402
from fgfast.models.serving import backend, speed  # noqa: E402
from fgfast.records import Image  # noqa: E402

MODEL, WEIGHTS = "sam_tiny256", "random:1"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the tiny SAM's graphs."""
    cache = tmp_path_factory.mktemp("cache")
    make.export(ModelSpec(MODEL, WEIGHTS), out=cache / "graphs", on_message=lambda line: None)
    return cache


@pytest.fixture
def cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder that the test may spoil."""
    import shutil

    shutil.copytree(exported, tmp_path / "cache")
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    tiny = replace(methods.method("sam_vit_b"), name=MODEL)
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, tiny))
    return tmp_path / "cache"


def decoder_inputs(pairs: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(pairs)
    return {
        "embeddings": torch.randn(2, 256, 16, 16, generator=generator),
        "image_index": torch.arange(pairs) % 2,
        "boxes": torch.rand(pairs, 4, generator=generator) * 100 + torch.tensor([0, 0, 100, 100]),
    }


def test_backends_agree_for_any_number_of_boxes(cache: Path) -> None:
    torch_side = segmenter(ModelSpec(MODEL, WEIGHTS, backend="torch")).decoder
    onnx_side = segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime")).decoder
    for pairs in (1, 2, 5):
        ours, theirs = onnx_side.run(decoder_inputs(pairs)), torch_side.run(decoder_inputs(pairs))
        assert list(ours) == ["logits", "quality", "stability"]
        assert ours["logits"].shape == (pairs, 1, 64, 64)
        torch.testing.assert_close(ours["logits"], theirs["logits"], rtol=0, atol=3e-4)
        torch.testing.assert_close(ours["quality"], theirs["quality"], rtol=0, atol=1e-5)


def test_segmenters_of_both_backends_give_the_same_masks(cache: Path) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = (segmenter(ModelSpec(MODEL, WEIGHTS, backend=which)) for which in ("onnxruntime", "torch"))
    for size, box in (((120, 90), (10, 10, 60, 60)), ((120, 90), (0, 0, 90, 110)), ((64, 200), (5, 5, 45, 45))):
        image = Image(generator.integers(0, 255, (*size, 3), np.uint8))
        a, b = (finish(alone(model, image, np.array(box, np.float32)), *size) for model in (ours, theirs))
        assert a.bits.shape == b.bits.shape == size
        assert (a.bits != b.bits).sum() <= 1e-4 * a.bits.size


@pytest.mark.parametrize("make_session", ["torch", "onnxruntime"])
def test_inputs_that_break_the_contract_are_refused(cache: Path, make_session: str) -> None:
    session = segmenter(ModelSpec(MODEL, WEIGHTS, backend=make_session)).decoder
    inputs = decoder_inputs(3)
    with pytest.raises(GraphError, match="boxes is float64"):
        session.run({**inputs, "boxes": inputs["boxes"].double()})
    with pytest.raises(GraphError, match=r"boxes is float32 .*must be .*'pairs': 2"):
        session.run({**inputs, "image_index": inputs["image_index"][:2], "boxes": inputs["boxes"]})
    session.run(zeros(session.contract, {"images": 1, "pairs": 2}, session.device))
    with pytest.raises(GraphError, match=r"the sizes \['images', 'pairs'\] must be given"):
        zeros(session.contract, {}, session.device)


def test_outputs_belong_to_the_caller(cache: Path) -> None:
    session = segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime")).decoder
    first = session.run(decoder_inputs(2))["logits"]
    kept = first.clone()
    session.run(decoder_inputs(5))
    assert torch.equal(first, kept)
    session.close()
    assert torch.equal(first, kept)


def test_inputs_of_any_strides(cache: Path) -> None:
    session = segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime")).decoder
    inputs = decoder_inputs(3)
    turned = inputs["embeddings"].permute(0, 1, 3, 2)
    straight = session.run({**inputs, "embeddings": turned.contiguous()})
    assert torch.equal(session.run({**inputs, "embeddings": turned})["logits"], straight["logits"])


def test_forms_of_pytorch() -> None:
    sam = build_sam(ModelSpec("sam_tiny256", WEIGHTS))
    contract = graphs.sam_mask_decoder(256)
    with pytest.raises(GraphError, match=r"no form 'quick'.*eager, compiled, recorded"):
        TorchSession(MaskDecoderGraph(sam), contract, form="quick")
    with pytest.raises(GraphError, match="cannot be recorded on cpu"):
        TorchSession(MaskDecoderGraph(sam), contract, form="recorded")
    session = TorchSession(MaskDecoderGraph(sam), contract)
    session.close()
    with pytest.raises(GraphError, match="closed"):
        session.run(decoder_inputs(1))


COMPILED = """
import sys
import torch
from torch._dynamo.utils import counters
from fgfast import graphs
from fgfast.backends.torch import TorchSession

class Twice(torch.nn.Module):
    def forward(self, embeddings, image_index, boxes):
        logits = torch.einsum("ichw->ihw", embeddings)[image_index][:, None].repeat(1, 1, 4, 4).tanh()
        return logits, boxes[:, :1].sin(), boxes[:, 1:2]

inputs = {
    "embeddings": torch.randn(2, 256, 16, 16, generator=torch.Generator().manual_seed(0)),
    "image_index": torch.arange(3) % 2,
    "boxes": torch.ones(3, 4),
}
plain, compiled = (
    TorchSession(Twice(), graphs.sam_mask_decoder(256), form=form).run(inputs)["logits"]
    for form in ("eager", "compiled")
)
torch.testing.assert_close(plain, compiled, rtol=0, atol=1e-5)
print(counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.full
def test_what_was_compiled_is_kept_in_the_cache_folder(tmp_path: Path) -> None:
    """A second process finds what the first compiled."""
    environment = {**os.environ, "FGFAST_CACHE": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        hits.append(int(done.stdout))
    assert hits == [0, 1]
    assert (tmp_path / "compiled").is_dir()


def test_a_file_that_changed_after_its_check_is_refused(cache: Path) -> None:
    where = graph_files.folder(MODEL, WEIGHTS, "fp32")
    (decoder,) = graph_files.find("sam_mask_decoder", where)
    weights = next(where / name for name in decoder.manifest.files if name.startswith("weights-"))
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(GraphError, match="is not the file that was checked after the export; export the model again"):
        segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime"))


def test_a_graph_of_another_contract_does_not_count(cache: Path) -> None:
    manifest = graph_files.folder(MODEL, WEIGHTS, "fp32") / "sam_mask_decoder.json"
    facts = json.loads(manifest.read_text())
    refused = {"version": 0}, {"arguments": {}}, {"arguments": {"side": 1024, "masks": 1}}
    for change, reason in zip(refused, ("version 0", "an older fgfast", "other inputs or outputs"), strict=True):
        manifest.write_text(json.dumps({**facts, "contract": {**facts["contract"], **change}}))
        message = rf"sam_mask_decoder.*{reason}.*; export it again\): fgfast export sam_tiny256 --precision fp32"
        with pytest.raises(UsageError, match=message):
            segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime"))


def test_auto_takes_what_was_measured_faster_here_and_measures_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def seconds(session, rounds: int = 3) -> float:
        measured.append(session.backend)
        return {"torch": 2.0, "onnxruntime": 1.0}[session.backend]

    monkeypatch.setattr(speed, "seconds_of", seconds)
    for _ in range(2):
        chosen, why = backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "auto")
        assert chosen == "onnxruntime"
        assert why == "measured on this machine: torch 2.00 s, onnxruntime 1.00 s per image"
    assert measured == ["torch", "onnxruntime"]
    (cache / "measured.json").unlink()
    monkeypatch.setattr(speed, "seconds_of", lambda session: {"torch": 0.5, "onnxruntime": 1.0}[session.backend])
    assert backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "auto")[0] == "torch"


def test_times_are_those_of_runs(cache: Path) -> None:
    session = segmenter(ModelSpec(MODEL, WEIGHTS, backend="onnxruntime")).encoder
    assert 0 < speed.seconds_of(session, rounds=1) < 10


def test_what_is_asked_for_and_not_there_is_an_error_that_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="fgfast export sam_vit_b --precision fp32"):
        backend.choose_backend([ModelSpec("sam_vit_b", "random:1", "fp32")], "onnxruntime")
    with pytest.raises(UsageError, match=r"TensorRT|tensorrt"):
        backend.choose_backend([ModelSpec("sam_vit_b", "random:1", "fp32")], "tensorrt")
    chosen, why = backend.choose_backend([ModelSpec("sam_vit_b", "random:1", "fp32")], "auto")
    assert chosen == "torch"
    assert "fgfast export sam_vit_b" in why
    with pytest.raises(UsageError, match=r"no CUDAExecutionProvider.*onnxruntime-gpu"):
        OnnxRuntimeSession(tmp_path / "none.onnx", graphs.sam_mask_decoder(), "cpu", provider="cuda")
    with pytest.raises(GraphError, match=r"none\.onnx cannot be read"):
        OnnxRuntimeSession(tmp_path / "none.onnx", graphs.sam_mask_decoder())


@pytest.mark.full
def test_bf16_graphs_are_not_taken_on_a_cpu(cache: Path) -> None:
    make.export(ModelSpec(MODEL, WEIGHTS, "bf16"), out=cache / "graphs", on_message=lambda line: None)
    chosen, why = backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "bf16")], "auto")
    assert chosen == "torch"
    assert "computes bf16 on GPUs only" in why
    with pytest.raises(UsageError, match="use --precision fp32 or --backend torch"):
        backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "bf16")], "onnxruntime")


def test_a_damaged_graph_makes_auto_take_pytorch(cache: Path) -> None:
    where = graph_files.folder(MODEL, WEIGHTS, "fp32")
    (where / "sam_mask_decoder.onnx").write_bytes(b"")
    chosen, why = backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "auto")
    assert chosen == "torch"
    assert "export the model again" in why


def test_doctor_does_not_measure(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "seconds_of", lambda session: pytest.fail("measured"))
    chosen, why = backend.choose_backend([ModelSpec(MODEL, WEIGHTS, "fp32")], "auto", measure=False)
    assert chosen == "torch"
    assert "a run measures first which backend is faster" in why


def test_weights_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / name / "checkpoint").mkdir(parents=True)
        (tmp_path / name / "checkpoint" / "model.safetensors").write_bytes(content)
    first, second = (graph_files.identity("grounding_dino_tiny", str(tmp_path / n / "checkpoint")) for n in "ab")
    assert first.startswith("sha256 ")
    assert first != second


def test_an_export_that_was_killed_does_not_stop_the_next(cache: Path) -> None:
    where = graph_files.folder(MODEL, WEIGHTS, "fp32")
    (where / "sam_mask_decoder.json").unlink()
    left = where / ".sam_mask_decoder.1.part"
    left.mkdir()
    os.utime(left, (0, 0))
    make.export(ModelSpec(MODEL, WEIGHTS), out=cache / "graphs", on_message=lambda line: None)
    assert len(graph_files.find("sam_mask_decoder", where)) == 1
    assert not left.exists()


def test_an_export_that_differs_from_pytorch_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph whose constants are wrong: the check names the output, and nothing stays behind."""
    parts = list(make.parts(ModelSpec(MODEL, WEIGHTS), (), ("sam_image_encoder",)))

    def wrong(*args, **more):
        encoder = parts[0]
        with torch.no_grad():
            encoder.graph.images.mean += 1.0
        yield encoder

    monkeypatch.setattr(make, "parts", wrong)
    with pytest.raises(ParityError, match=r"sam_image_encoder, .*: embeddings is off by .* is allowed"):
        make.export(ModelSpec(MODEL, WEIGHTS), out=tmp_path, on_message=lambda line: None)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"] == []


@pytest.mark.full
def test_graphs_left_over_from_earlier_exports_are_removed(cache: Path) -> None:
    where = graph_files.folder(MODEL, WEIGHTS, "fp32")
    (where / "weights-0000.bin").write_bytes(b"old")
    before = {p.name for p in where.iterdir() if not p.name.endswith(".lock")} - {"weights-0000.bin"}
    make.export(ModelSpec(MODEL, WEIGHTS), out=cache / "graphs", on_message=lambda line: None)
    assert {p.name for p in where.iterdir() if not p.name.endswith((".checked", ".lock"))} == before


def test_zeros_say_which_size_is_missing() -> None:
    with pytest.raises(GraphError, match=r"sam_mask_decoder has shapes that vary: the sizes \['pairs'\] must be given"):
        zeros(graphs.sam_mask_decoder(256), {"images": 1}, torch.device("cpu"))
