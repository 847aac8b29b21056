"""SAM's encoder in 8 bits: scales, the graph in ONNX Runtime, the check of its masks, and what is refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

torch = pytest.importorskip("torch", reason="models need the extra models")
onnx = pytest.importorskip("onnx", reason="exporting needs the extra export")
pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")
pytest.importorskip("onnxscript", reason="exporting needs the extra export")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from fgfast.backends import onnx_contents  # noqa: E402
from fgfast.backends.manifest import Manifest  # noqa: E402
from fgfast.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from fgfast.errors import GraphError, ParityError, UsageError  # noqa: E402
from fgfast.export import leftovers, make, quantise, quantise_graph, trace  # noqa: E402
from fgfast.export.check import smooth_noise  # noqa: E402
from fgfast.export.part import Part  # noqa: E402
from fgfast.export.quantise_check import MaskCheck, summary  # noqa: E402
from fgfast.export.quantise_sample import CalibrationSample, draw  # noqa: E402
from fgfast.export.quantise_scales import (  # noqa: E402
    LARGEST,
    LayerScales,
    best_range,
    calibrate,
    scales_of,
)
from fgfast.export.quantise_scales import quantise as quantised  # noqa: E402
from fgfast.graphs import Contract, Port  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.files import graph_files  # noqa: E402
from fgfast.models.sam.build import build_sam  # noqa: E402

SPEC = ModelSpec("sam_tiny256", "random:1")
STORED = {"fp8": TensorProto.FLOAT8E4M3FN, "int8": TensorProto.INT8}
PRECISIONS = tuple(STORED)


def photos(folder: Path, count: int = 8) -> Path:
    """A data set of smooth noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        pixels = smooth_noise(np.random.default_rng(n), 120 + 5 * n, 200 - 3 * n).numpy()
        Pillow.fromarray(pixels).save(folder / f"{n:02}.png")
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSample:
    return draw(str(photos(tmp_path_factory.mktemp("photos"))), 8, 256)


@pytest.fixture(scope="module")
def parts(sample: CalibrationSample) -> dict[str, Part]:
    return {
        precision: next(iter(quantise.parts(replace(SPEC, precision=precision), ["sam_image_encoder"], sample)))
        for precision in PRECISIONS
    }


@pytest.fixture(scope="module")
def plain(parts: dict[str, Part], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder in float16 before it is quantised; tracing it takes seconds."""
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    part = parts["int8"]
    trace.trace(part.graph, part.contract, part.example, path)
    return path


@pytest.fixture
def traced(plain: Path, parts: dict[str, Part], monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that neither calibrates nor traces again."""

    def copy(graph: Any, contract: Contract, example: Any, path: Path) -> Path:
        shutil.copy(plain.with_name("plain.onnx.data"), path.with_name("plain.onnx.data"))
        return Path(shutil.copy(plain, path))

    monkeypatch.setattr(trace, "trace", copy)
    monkeypatch.setattr(quantise, "parts", lambda spec, names, sample: iter([parts[spec.precision]]))


# --- scales ---------------------------------------------------------------------------------------------------------


def restored(values: torch.Tensor, scales: Any, precision: str) -> torch.Tensor:
    factor = torch.from_numpy(scales.astype(np.float32))
    return quantised(values, scales, precision).float() * (factor[:, None] if scales.ndim else factor)


def test_weights_come_back_within_half_a_step() -> None:
    """int8: half a step of the row's scale. e4m3: 2**-4 of each number, at least of the smallest normal one."""
    layer = torch.nn.Linear(64, 8)
    layer.weight.data = (
        torch.randn(8, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 1, 8)[:, None]
    )
    for precision in PRECISIONS:
        scales = scales_of({"a": layer}, {"a": 3.0}, precision)["a"]
        assert scales.weights.dtype == np.float16 and scales.weights.shape == ((8,) if precision == "int8" else ())
        error = (restored(layer.weight.data, scales.weights, precision) - layer.weight.data).abs()
        step = torch.from_numpy(scales.weights.astype(np.float32))
        if precision == "int8":
            assert (error <= step[:, None] / 2 * 1.0001).all()
        else:
            assert (error <= 2**-4 * torch.maximum(layer.weight.data.abs(), step * 2**-6) * 1.0001).all()


def test_scales_are_rounded_up_and_positive() -> None:
    """float16 has 11 bits: rounded down, the largest weight would be cut off. A dead row still has a scale."""
    layer = torch.nn.Linear(4, 3)
    for top in (0.7312, 1.0, 3.3333, 1e-6, 0.0):
        layer.weight.data = torch.full((3, 4), top)
        for precision in PRECISIONS:
            scales = scales_of({"a": layer}, {"a": top}, precision)["a"]
            for found in (scales.inputs, scales.weights):
                assert (found > 0).all()
                assert (found.astype(np.float64) * LARGEST[precision] >= float(layer.weight.data.max())).all()


def test_what_lies_beyond_the_range_is_cut_off_and_never_infinite() -> None:
    values, scale = torch.tensor([1e6, -1e6, 449.0, 0.0]), np.float16(1)[()]
    for precision in PRECISIONS:
        found = quantised(values, np.asarray(scale), precision).float().tolist()
        assert found == [LARGEST[precision], -LARGEST[precision], LARGEST[precision], 0]


def test_the_range_in_int8_leaves_out_a_few_outliers() -> None:
    counts = np.zeros(2048)
    counts[:128], counts[-1] = 1e5, 1
    assert best_range(counts, 127) < 0.5
    assert best_range(np.ones(2048), 127) == 1.0
    counts[-1] = 1e6  # no longer a few
    assert best_range(counts, 127) > 0.9


class Two(torch.nn.Module):
    """Two layers, the second of which sees what the first gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_calibration_sees_every_layers_input() -> None:
    model = Two()
    model.first.weight.data, model.first.bias.data = 10 * torch.eye(2), torch.zeros(2)
    inputs = [(torch.tensor([[1.0, -3.0]]),), (torch.tensor([[2.0, 0.5]]),)]
    assert calibrate(model, lambda: iter(inputs), "fp8") == {"first": 3.0, "second": 30.0}
    assert set(calibrate(model, lambda: iter(inputs), "int8")) == {"first", "second"}
    assert not model.first._forward_pre_hooks
    for bad in (float("nan"), float("inf")):
        given = [(torch.tensor([[1.0, bad]]),), (torch.tensor([[1.0, 1.0]]),)]
        with pytest.raises(GraphError, match="first has inputs that are not finite"):
            calibrate(model, lambda given=given: iter(given), "fp8")


# --- the graph ------------------------------------------------------------------------------------------------------


def one_layer(folder: Path, layer: torch.nn.Linear) -> tuple[Path, Contract]:
    """x -> float16 -> Gemm -> float32, as SAM's layers are exported."""
    half = [numpy_helper.from_array(p.detach().half().numpy(), f"a.{n}") for n, p in layer.named_parameters()]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("Gemm", ["half", "a.weight", "a.bias"], ["product"], transB=1),
            helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
        ],
        "one_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, layer.in_features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, layer.out_features])],
        half,
    )
    path = folder / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    ports = (Port("x", "float32", (5, layer.in_features)),), (Port("y", "float32", (5, layer.out_features)),)
    return path, Contract("one_layer", *ports)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_layer_computes_what_the_arithmetic_says(precision: str, tmp_path: Path) -> None:
    """In ONNX Runtime and in onnx's reference: the products of the rounded input and weight."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(48, 16)
    path, contract = one_layer(tmp_path, layer)
    x = torch.randn(5, 48)
    scales = scales_of({"a": layer}, {"a": float(x.abs().max())}, precision)
    quantise_graph.insert(path, tmp_path / "q.onnx", {"a": layer}, scales, precision)
    trace.inspect(tmp_path / "q.onnx", contract)
    onnx_contents.check(tmp_path / "q.onnx")
    weight = restored(layer.weight.data, scales["a"].weights, precision)
    # The input is float16, as its scale is, and so is the quotient of both before it is rounded to 8 bits.
    step = torch.from_numpy(scales["a"].inputs)
    narrow = quantised((x.half() / step).float(), np.asarray(np.float16(1)), precision).float() * step.float()
    wanted = narrow @ weight.T + layer.bias.data.half().float()
    session = OnnxRuntimeSession(tmp_path / "q.onnx", contract)
    found = session.run({"x": x})["y"]
    reference = torch.from_numpy(ReferenceEvaluator(str(tmp_path / "q.onnx")).run(None, {"x": x.numpy()})[0])
    for name, y in (("ONNX Runtime", found), ("onnx", reference)):
        # Dequantised numbers and results are float16, and onnx's reference adds up in it.
        torch.testing.assert_close(y, wanted, rtol=2e-3, atol=2e-3, msg=name)
    exact = x @ layer.weight.data.T + layer.bias.data
    assert (wanted - exact.detach()).abs().max() > 1e-3  # it was quantised


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_encoders_linear_layers_are_quantised_and_nothing_else(
    precision: str, parts: dict[str, Part], plain: Path, tmp_path: Path
) -> None:
    part, path = parts[precision], tmp_path / "q.onnx"
    assert part.quantisation is not None
    part.quantisation.insert(plain, path)
    trace.inspect(path, part.contract)  # the contract, ONNX's checker, TensorRT's rules
    onnx_contents.check(path)
    graph, before = (onnx.load_model(str(file)).graph for file in (path, plain))
    kept = [node.op_type for node in graph.node if "uantizeLinear" not in node.op_type]
    assert kept == [node.op_type for node in before.node]
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    eight = [node for node in gemms if node.input[0] in makers and makers[node.input[0]].op_type == "DequantizeLinear"]
    assert len(eight) == 4 * 4 and len(gemms) == len(eight) + 1  # the neck stays as it is
    for node in eight:
        x, weight = makers[node.input[0]], makers[node.input[1]]
        assert makers[x.input[0]].op_type == "QuantizeLinear" and weight.op_type == "DequantizeLinear"
        assert list(makers[x.input[0]].input[1:]) == list(x.input[1:])
        stored, scale = constants[weight.input[0]], constants[weight.input[1]]
        assert stored.data_type == STORED[precision] and scale.data_type == TensorProto.FLOAT16
        assert list(scale.dims) == ([stored.dims[0]] if precision == "int8" else [])
    assert not {f"{name}.weight" for name in part.quantisation.layers} & constants.keys()  # type: ignore[attr-defined]


def test_a_layer_that_is_not_in_the_graph_is_an_error(plain: Path, tmp_path: Path) -> None:
    scales = {"encoder.elsewhere": LayerScales(np.float16(1)[()], np.float16(1)[()])}
    with pytest.raises(GraphError, match=r"has no Gemm of its own for encoder\.elsewhere"):
        quantise_graph.insert(plain, tmp_path / "q.onnx", {"encoder.elsewhere": torch.nn.Linear(2, 2)}, scales, "fp8")


# --- the check of the masks -----------------------------------------------------------------------------------------


def planted(part: Part, factor: float) -> Part:
    """The part with one wrong scale: that of the input of the last MLP."""
    quantisation: Any = part.quantisation
    name = max(quantisation.scales)
    wrong = replace(quantisation.scales[name], inputs=np.asarray(quantisation.scales[name].inputs * np.float16(factor)))
    return replace(part, quantisation=replace(quantisation, scales={**quantisation.scales, name: wrong}))


class Fixed(torch.nn.Module):
    """A decoder whose mask is what the embedding says: everywhere its first channel is positive."""

    def forward(self, embeddings: Any, index: Any, boxes: Any) -> Any:
        logits = torch.nn.functional.interpolate(embeddings[:, :1], scale_factor=4)
        return logits, torch.ones(1, 1), torch.ones(1, 1)


def judged(sample: CalibrationSample, shares: list[float], batch: int = 3) -> Any:
    """The check on embeddings whose masks have these IoUs: rows of 16, of which a share is missing; 1 is no mask."""
    check, rows = MaskCheck(sample.held_out[: len(shares)], Fixed(), batch), iter(shares)

    def run(missing: bool) -> Any:
        def encode(inputs: Any) -> dict[str, Any]:
            out = torch.full((batch, 256, 16, 16), 1.0)
            for n in range(batch):
                share = next(rows, 0.0) if missing else 0.0
                out[n, :, :, : round(16 * np.nan_to_num(share, posinf=1))] = -1.0
                out[n] += 0 * share  # NaN where it is not finite
            return {"embeddings": out}

        return encode

    return check.compare(Contract("g", (), ()), run(True), run(False), check.cases(), {})


def test_the_mean_and_every_single_mask_count(sample: CalibrationSample) -> None:
    """Batches are filled up with the last image, which is judged once."""
    assert [record["iou"] for record in judged(sample, [0.0] * 4)] == [1.0] * 4
    with pytest.raises(ParityError, match=r"a least one of 0\.0"):
        judged(sample, [0.0] * 3 + [1.0])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ParityError, match=r"\(0\.000\)"):
            judged(sample, [0.0, bad, 0.0, 0.0])


def test_images_without_a_mask_prove_nothing(sample: CalibrationSample) -> None:
    check = MaskCheck(sample.held_out, Fixed(), 1)

    def empty(inputs: Any) -> dict[str, Any]:
        return {"embeddings": torch.full((1, 256, 16, 16), -1.0)}

    with pytest.raises(ParityError, match="0 of 4 held-out images have a mask, too few"):
        check.compare(Contract("g", (), ()), empty, empty, check.cases(), {})


# --- files ----------------------------------------------------------------------------------------------------------


def export(sample: CalibrationSample, out: Path) -> tuple[list[Path], list[str]]:
    lines: list[str] = []
    spec = replace(SPEC, precision="int8")
    return make.export(spec, graphs=["sam_image_encoder"], out=out, sample=sample, on_message=lines.append), lines


def test_an_accepted_export_says_how_it_was_made(traced: None, sample: CalibrationSample, tmp_path: Path) -> None:
    (path,), lines = export(sample, tmp_path)
    manifest = Manifest.read(path.with_suffix(".json"))
    assert not manifest.outdated and manifest.precision == "int8"
    facts = manifest.quantisation
    assert (facts["images"], facts["held_out"], facts["layers"]) == (4, 4, 16)
    assert facts["sample"] == sample.digest and facts["range"] == "least squared error"
    assert 0.99 <= facts["iou"]["mean"] < 1 and facts["iou"]["least"] >= 0.9
    assert "masks of 4 held-out images: mean IoU 0.99" in lines[-1]
    assert not {image.key for image in sample.calibrating} & {image.key for image in sample.held_out}
    assert not any(image.key in manifest.to_json() for image in sample.held_out)  # a manifest may go to others
    graph_files.Exported(path, manifest).verify()
    # Encoders for other batch sizes stay only with the same scales.
    leftovers.remove_other_scales(tmp_path, facts["scales"], lines.append)
    leftovers.remove_other_scales(path.parent, facts["scales"], lines.append)
    assert path.is_file()
    leftovers.remove_other_scales(path.parent, "0" * 64, lines.append)
    assert not path.exists() and "its scales come from another calibration" in lines[-1]


def test_a_wrong_scale_is_refused_and_nothing_is_left(
    traced: None, parts: dict[str, Part], sample: CalibrationSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "parts", lambda *given: iter([planted(parts["int8"], 1 / 256)]))
    with pytest.raises(ParityError) as refused:
        export(sample, tmp_path)
    message = str(refused.value)
    assert re.search(r"mean IoU of 0\.\d{4} and a least .* 4 held-out .* Worst: \d\d\.png \(0\.", message), message
    assert "It is refused: use --precision fp16" in message
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".onnx", ".json", ".bin", ".data")]


@pytest.mark.full
def test_vit_b_with_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error at full size. Random weights have no outliers as trained ones do: it says nothing about those."""
    everything = draw(str(photos(tmp_path / "photos")), 8, 1024)
    few = replace(everything, calibrating=everything.calibrating[:1], held_out=everything.held_out[:1])
    exact, half = (build_sam(ModelSpec("sam_vit_b", "random:1", precision)) for precision in ("fp32", "fp16"))
    wanted: list[torch.Tensor] = []
    for precision in PRECISIONS:
        part = quantise.encoder(half, exact, precision, few)
        assert part.quantisation is not None
        if not wanted:  # the graph in float16 is the same for both
            trace.trace(part.graph, part.contract, part.example, tmp_path / "plain.onnx")
            ((_, inputs),) = part.cases()
            with torch.inference_mode():
                wanted.append(part.reference(**inputs))
        part.quantisation.insert(tmp_path / "plain.onnx", tmp_path / "q.onnx")
        session, found = OnnxRuntimeSession(tmp_path / "q.onnx", part.contract), []

        def run(inputs: Any, session: Any = session, found: list[torch.Tensor] = found) -> Any:
            outputs = session.run(inputs)
            found.append(outputs["embeddings"])
            return outputs

        try:
            masks = str(summary(record["iou"] for record in part.parity(run)))
        except ParityError as refused:
            masks = f"refused: {refused}"
        session.close()
        error = float((found[0] - wanted[0]).square().mean().sqrt() / wanted[0].square().mean().sqrt())
        with capsys.disabled():
            print(f"\nViT-B, random weights, {precision}: rms error {error:.4f} of the embedding's rms; masks: {masks}")
        assert error < 0.2


# --- the sample -----------------------------------------------------------------------------------------------------


def test_a_sample_takes_the_annotated_box_or_the_middle(tmp_path: Path) -> None:
    folder = photos(tmp_path / "d", 9)
    (folder / "boxes.csv").write_text("path,x0,y0,x1,y1\n00.png,10,20,60,80\n")
    (folder / "03.png").write_bytes(b"no image")
    found = draw(str(folder), 32, 256)
    everything = [*found.calibrating, *found.held_out]
    assert sorted(image.key for image in everything) == [f"{n:02}.png" for n in range(9) if n != 3]
    first, second = everything[0], found.held_out[0]
    # 200 x 120 becomes 256 x 154.
    np.testing.assert_allclose(first.box, [12.8, 20 * 154 / 120, 76.8, 80 * 154 / 120], rtol=1e-5)
    assert tuple(first.size) == (154, 256) and not first.pixels[154:].any() and first.pixels[:154].any()
    height, width = second.size
    np.testing.assert_allclose(second.box, [0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height], rtol=1e-2)


def test_a_sample_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    folder = photos(tmp_path / "d", 10)
    before = draw(str(folder), 10, 256)
    assert draw(str(folder), 10, 256).digest == before.digest
    shutil.copy(folder / "00.png", folder / "01.png")
    assert draw(str(folder), 10, 256).digest != before.digest
    assert len(draw(str(folder), 8, 256).calibrating) == 4


def test_a_handful_of_images_is_not_enough(tmp_path: Path) -> None:
    folder = photos(tmp_path / "d", 7)
    with pytest.raises(UsageError, match=r"has 7 images that can be used, of 7 that were tried, .* needs 8"):
        draw(str(folder), 32, 256)
