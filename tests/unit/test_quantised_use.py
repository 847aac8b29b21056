"""Quantised graphs in use: which devices, backends and manifests are taken, and what is said where they are not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast import methods  # noqa: E402
from fgfast.backends.manifest import Manifest  # noqa: E402
from fgfast.config import Settings  # noqa: E402
from fgfast.errors import UsageError  # noqa: E402
from fgfast.graphs import sam_image_encoder, sam_mask_decoder  # noqa: E402
from fgfast.methods import ModelSpec, plain_precision  # noqa: E402
from fgfast.models.files import checkpoints, graph_files  # noqa: E402
from fgfast.models.sam import sessions  # noqa: E402
from fgfast.models.serving import backend, devices  # noqa: E402
from fgfast.models.serving.exported import exported  # noqa: E402
from fgfast.pipeline import choices, plan  # noqa: E402

GOOD = {"iou": {"mean": 0.995, "least": 0.95}, "scales": "ab" * 32}


def manifest(precision: str = "fp8", quantisation: Any = GOOD, contract: Any = None) -> Manifest:
    made = contract or sam_image_encoder(256, 1)
    return Manifest(made, "sam_vit_b", "random:1", precision, 23, {}, {"g.onnx": "0" * 64}, {}, [], quantisation)


@pytest.mark.parametrize(
    ("quantisation", "why"),
    [
        ({}, "its manifest does not say that its masks were checked"),
        ({"iou": {"mean": 0.995}}, "does not say that its masks were checked"),
        ({"iou": {"mean": "0.995", "least": True}}, "does not say that its masks were checked"),
        ({"iou": {"mean": 0.9899, "least": 0.95}}, "mean IoU 0.9899, least 0.9500; 0.99 and 0.9 are needed"),
        ({"iou": {"mean": 0.995, "least": 0.89}}, "least 0.8900"),
        ({"iou": {"mean": math.nan, "least": 0.95}}, "differ too much"),
    ],
)
def test_a_graph_whose_masks_were_not_checked_is_not_used(
    quantisation: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    spec = ModelSpec("sam_vit_b", "random:1", "fp8", backend="tensorrt")
    folder = graph_files.folder(spec.name, spec.weights, spec.precision)
    folder.mkdir(parents=True)
    (folder / "sam_image_encoder-b1.onnx").write_bytes(b"")
    (folder / "g.onnx").write_bytes(b"")
    beside = folder / "sam_image_encoder-b1.json"
    manifest().write(beside)
    assert len(exported(spec, "sam_image_encoder")) == 1
    manifest(quantisation=quantisation).write(beside)
    with pytest.raises(UsageError) as refused:
        exported(spec, "sam_image_encoder")
    assert why in str(refused.value)
    assert str(refused.value).endswith("fgfast export sam_vit_b --precision fp8 --calibrate DATASET --backend tensorrt")


def test_only_quantised_graphs_need_a_check_of_masks(tmp_path: Path) -> None:
    for made in (manifest("fp16", {}), manifest("int8", {}, sam_mask_decoder(256))):
        made.write(tmp_path / "m.json")
        assert not Manifest.read(tmp_path / "m.json").outdated
        assert "quantisation" not in json.loads((tmp_path / "m.json").read_text())


def on_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


@pytest.mark.parametrize(
    ("precision", "too_old", "enough"), [("fp8", (8, 6), (8, 9)), ("fp8", (8, 0), (9, 0)), ("int8", (7, 0), (7, 5))]
)
def test_devices_must_have_the_precision(
    precision: str, too_old: tuple[int, int], enough: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=f"{precision} needs NVIDIA GPUs .*, not cpu: use --precision auto"):
        devices.choose_precision(precision, ("cpu",))
    on_gpu(monkeypatch, too_old)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fake GPU")
    with pytest.raises(UsageError, match=rf"cuda:1 \(Fake GPU, compute capability {too_old[0]}.{too_old[1]}\)"):
        devices.choose_precision(precision, ("cuda:1",))
    on_gpu(monkeypatch, enough)
    assert devices.choose_precision(precision, ("cuda:0", "cuda:1")) == (precision, "as requested")


@pytest.mark.parametrize("asked", ["torch", "onnxruntime"])
def test_other_backends_are_refused(asked: str) -> None:
    spec = ModelSpec("sam_vit_b", "random:1", "fp8", "cuda:0")
    with pytest.raises(UsageError, match="--precision fp8 runs in TensorRT only: use --backend tensorrt, or"):
        backend.choose_backend([spec], asked)
    with pytest.raises(UsageError, match="fp8 is a precision of exported graphs"):
        checkpoints.check_spec(spec, ("sam_vit_b",))


def test_auto_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector, which is not quantised, comes first in a run."""
    checked: list[tuple[str, str]] = []
    specs = [
        ModelSpec("detic", precision="fp16", device="cuda:0"),
        ModelSpec("sam_vit_b", "random:1", "int8", "cuda:0"),
    ]
    monkeypatch.setattr(backend, "check", lambda specs: checked.extend((s.precision, s.backend) for s in specs))
    assert backend.choose_backend(specs, "auto") == ("tensorrt", "the only one that runs int8")
    assert checked == [("fp16", "tensorrt"), ("int8", "tensorrt")]

    def fail(specs: Any) -> None:
        raise UsageError("no engine")

    monkeypatch.setattr(backend, "check", fail)
    with pytest.raises(UsageError, match="no engine"):
        backend.choose_backend(specs, "auto")


def test_only_the_segmenter_is_quantised() -> None:
    settings = Settings(detector="detic", segmenter="sam_vit_l", precision="fp8", backend="tensorrt")
    assert settings.spec("detic", "cuda:0").precision == "fp16"
    assert settings.spec("sam_vit_l", "cuda:0").precision == "fp8"
    assert [plain_precision(p) for p in methods.PRECISIONS] == ["fp32", "bf16", "fp16", "fp16", "fp16"]


def test_the_scales_are_part_of_a_runs_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calibrations of the same weights give other masks, which no other part of a fingerprint tells."""
    settings = Settings(
        detector="center", segmenter="sam_vit_b", model_weights="random:1", precision="fp8", backend="tensorrt"
    )
    graph = graph_files.Exported(Path("g.onnx"), manifest())
    monkeypatch.setattr(sessions, "graphs", lambda spec: [graph, graph])
    assert choices.quantised_graphs(settings) == {"scales": {"sam_vit_b": "ab" * 8}}
    assert choices.quantised_graphs(replace(settings, precision="fp16")) == {}
    assert plan.quantised_graphs is choices.quantised_graphs


@pytest.mark.parametrize(
    ("model", "precision", "given", "why"),
    [
        ("sam_vit_b", "fp8", False, "--precision fp8 needs images to find its scales on: --calibrate DATASET"),
        ("sam_vit_b", "fp32", True, "a calibration has no effect with fp32: use --precision fp8, or omit --calibrate"),
        ("detic", "int8", False, "int8 quantises SAM's image encoder, .* fgfast export detic --precision fp16"),
    ],
)
def test_what_an_export_needs(model: str, precision: Any, given: bool, why: str) -> None:
    pytest.importorskip("onnxscript")
    from fgfast.export import make
    from fgfast.export.exportable import graphs_of

    with pytest.raises(UsageError, match=why):
        make.check_sample(ModelSpec(model, precision=precision), graphs_of(model), given)
    make.check_sample(ModelSpec("sam_vit_b", precision="fp8"), ("sam_mask_decoder",), False)
    assert make.choose_precision("fp8") == "fp8"  # written on any machine, run on a GPU
