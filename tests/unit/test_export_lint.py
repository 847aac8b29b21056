"""What TensorRT takes and what it does not: each rule once kept and once broken; and which operators are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ml_dtypes = pytest.importorskip("ml_dtypes")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fgfast.export.lint import OPSETS, TABLE, Breach, lint  # noqa: E402
from fgfast.export.lint_checks import CHECKS, NMS_MOST, TOPK_MOST  # noqa: E402

F32, F16, BF16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
I8, I64, I32 = TensorProto.INT8, TensorProto.INT64, TensorProto.INT32
BOOL, U8, U16 = TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16

# A node: operator, inputs, outputs, attributes. An input: type and shape; a constant: its value.
Node = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]
Inputs = Mapping[str, tuple[int, Sequence[int | str] | None]]


def many(nodes: Sequence[Node], inputs: Inputs, constants: Mapping[str, Any] | None = None, opset: int = 20) -> Any:
    """A model whose outputs are those of its last node."""
    graph = helper.make_graph(
        [helper.make_node(op, given, made, **attributes) for op, given, made, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in nodes[-1][2] if name],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def one(op: str, inputs: Inputs, constants: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """A model of one node, which takes the inputs, then the constants, or what `given` lists."""
    opset, given = more.pop("opset", 20), more.pop("given", (*inputs, *(constants or {})))
    made = [f"y{n}" for n in range(more.pop("outputs", 1))]
    return many([(op, given, made, more)], inputs, constants, opset)


def f32(*shape: int | str) -> tuple[int, Sequence[int | str]]:
    return F32, shape


HEADS = f32(1, 2, "n", 8)
QKV = {"q": HEADS, "k": HEADS, "v": HEADS}
IMAGE = {"x": f32(1, 3, 32, 32)}
BOXES = {"boxes": f32(1, 100, 4), "scores": f32(1, 20, 100)}
SCALES = {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2, 2])}
ROW = {"x": f32("n", 8)}
INT = np.int64

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def eight(dtype: Any = E4M3, scale: Any = 0.5, zero: float = 0, kind: int = F16, last: str = "") -> Any:
    """A model of x -> QuantizeLinear -> DequantizeLinear -> y, with another last node where one is named."""
    steps = np.float16(scale)
    constants = {"s": steps, "z": np.full(steps.shape, zero).astype(dtype)}
    final = (last, ["q"], ["y"], {}) if last else ("DequantizeLinear", ["q", "s", "z"], ["y"], {})
    return many([("QuantizeLinear", ["x", "s", "z"], ["q"], {}), final], {"x": (kind, [8, 3])}, constants, 23)


def stored(scale: Any, dtype: Any = np.int8, axis: int = 0) -> Any:
    """A model of a weight of 3 x 8 in 8 bits."""
    steps = np.float16(scale)
    constants = {"w": np.zeros((3, 8), dtype), "s": steps, "z": np.zeros(steps.shape, dtype)}
    return many([("DequantizeLinear", ["w", "s", "z"], ["y"], {"axis": axis})], {}, constants, 23)


PAIRS: dict[str, tuple[Any, Any, str]] = {
    # name: (a good model, a bad one, a piece of the message)
    "opset": (one("Relu", ROW), one("Relu", ROW, opset=26), "opset 26"),
    "types of all inputs": (
        one("And", {"a": (BOOL, [8]), "b": (BOOL, [8])}),
        one("MatMul", {"a": (I32, [8, 8]), "b": (I32, [8, 8])}),
        "a is int32; bfloat16, float, float16 are allowed",
    ),
    "types of one input": (
        one("Resize", IMAGE, SCALES),
        one("Resize", {"x": (I32, [1, 3, 32, 32])}, SCALES),
        "x is int32; bfloat16, float, float16 are allowed",
    ),
    "one type": (
        one("Mul", {"a": f32(8), "b": f32(8)}),
        one("Mul", {"a": f32(8), "b": (F16, [8])}),
        "the inputs are a float, b float16",
    ),
    "double": (one("Relu", ROW), one("Cast", ROW, to=F64), "y0 is double"),
    "uint16": (one("Cast", {"x": (I32, [8])}, to=F32), one("Cast", {"x": (U16, [8])}, to=F32), "x is uint16"),
    "attention has four axes": (
        one("Attention", {**QKV, "m": f32(1, 1, "n", "n")}, opset=23),
        one("Attention", {**QKV, "m": f32("n", "n")}, opset=23),
        "attn_mask has rank 2",
    ),
    "attention broadcasts over batch and heads": (
        one("Attention", {**QKV, "m": (BOOL, [1, 1, "n", "n"])}, opset=23),
        one("Attention", {**QKV, "m": (BOOL, [1, 1, 1, "n"])}, opset=23),
        "size 1 for any number of queries",
    ),
    "attention's mask": (
        one("Attention", {**QKV, "m": (BOOL, [1, 1, "n", "n"])}, opset=23),
        one("Attention", {**QKV, "m": (F16, [1, 1, "n", "n"])}, opset=23),
        "attn_mask is float16",
    ),
    "attention's heads": (
        one("Attention", QKV, opset=23),
        one("Attention", {**QKV, "v": f32(1, 2, "n", 4)}, opset=23),
        "heads of size [8, 8, 4]",
    ),
    "attention has no past": (
        one("Attention", QKV, opset=23),
        one("Attention", {**QKV, "p": HEADS}, given=("q", "k", "v", "", "p"), opset=23),
        "past_key, past_value or nonpad_kv_seqlen is given",
    ),
    "attention's outputs": (
        one("Attention", QKV, opset=23),
        one("Attention", QKV, outputs=3, opset=23),
        "there are 3 outputs",
    ),
    "attention's softcap": (
        one("Attention", QKV, softcap=0.0, opset=23),
        one("Attention", QKV, softcap=30.0, opset=23),
        "softcap is 30",
    ),
    "axis of a running sum": (
        one("CumSum", ROW, {"axis": INT(0)}),
        one("CumSum", {**ROW, "axis": (I64, [])}),
        "axis is computed",
    ),
    "factors of a product": (
        one("Gemm", {"a": f32(2, 3), "b": f32(3, 4)}, alpha=0.5),
        one("Gemm", {"a": (F16, [2, 3]), "b": (F16, [3, 4])}, alpha=0.5),
        "alpha is 0.5 with float16",
    ),
    "sampling an image": (
        one("GridSample", {**IMAGE, "g": f32(1, 5, 5, 2)}),
        one("GridSample", {**IMAGE, "g": f32(1, 5, 5, 2)}, mode="linear"),
        "takes for nearest",
    ),
    "sampling as it used to be called": (
        one("GridSample", {**IMAGE, "g": f32(1, 5, 5, 2)}, mode="bilinear", opset=16),
        one("GridSample", {"x": f32(1, 3, 4, 4, 4), "g": f32(1, 5, 5, 5, 3)}),
        "rank 5",
    ),
    "sampling in one type": (
        one("GridSample", {**IMAGE, "g": f32(1, 5, 5, 2)}),
        one("GridSample", {**IMAGE, "g": (F16, [1, 5, 5, 2])}),
        "must have one type",
    ),
    "layer normalization": (
        one("LayerNormalization", ROW, {"s": np.ones(8, np.float32)}),
        one("LayerNormalization", ROW, {"s": np.ones(8, np.float32)}, outputs=2),
        "there are 2 outputs",
    ),
    "suppression's bound": (
        one("NonMaxSuppression", BOXES, {"most": INT([10])}),
        one("NonMaxSuppression", {**BOXES, "most": (I64, [1])}),
        "max_output_boxes_per_class",
    ),
    "suppression's candidates": (
        one("NonMaxSuppression", BOXES, {"most": INT([10])}),
        one("NonMaxSuppression", {"b": f32(1, 100, 4), "s": f32(1, 1203, 100)}, {"most": INT([10])}),
        f"there are 120300 pairs of class and box; TensorRT ignores those beyond {NMS_MOST}",
    ),
    "reduction": (
        one("ReduceMax", ROW, {"axes": INT([1])}),
        one("ReduceMax", {**ROW, "axes": (I64, [1])}),
        "axes is computed",
    ),
    "resizing": (
        one("Resize", IMAGE, SCALES, mode="linear", coordinate_transformation_mode="half_pixel"),
        one("Resize", IMAGE, SCALES, mode="cubic"),
        "mode is 'cubic'; allowed are nearest, linear",
    ),
    "resizing with a filter": (
        one("Resize", IMAGE, SCALES, mode="linear", antialias=0),
        one("Resize", IMAGE, SCALES, mode="linear", antialias=1),
        "antialias is 1",
    ),
    "resizing's coordinates": (
        one("Resize", IMAGE, SCALES, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        one("Resize", IMAGE, SCALES, coordinate_transformation_mode="half_pixel_symmetric"),
        "half_pixel_symmetric",
    ),
    "resizing some axes": (
        one("Resize", IMAGE, SCALES, axes=[0, 1, 2, 3]),
        one("Resize", IMAGE, {**SCALES, "scales": np.float32([2, 2])}, axes=[2, 3]),
        "axes are [2, 3]",
    ),
    "squeezing": (one("Squeeze", {"x": f32(1, 8)}), one("Squeeze", {"x": f32("n", 8)}), "no axes for shape (?, 8)"),
    "squeezing some axes": (
        one("Squeeze", {"x": f32(1, "n")}, {"axes": INT([0])}),
        one("Squeeze", {"x": f32(1, "n"), "axes": (I64, [1])}),
        "axes is computed",
    ),
    "unsqueezing": (
        one("Unsqueeze", ROW, {"axes": INT([0])}),
        one("Unsqueeze", {**ROW, "axes": (I64, [1])}),
        "axes is computed",
    ),
    "the best": (
        one("TopK", {"x": f32("n")}, {"k": INT([TOPK_MOST])}, outputs=2),
        one("TopK", {"x": f32("n")}, {"k": INT([TOPK_MOST + 1])}, outputs=2),
        f"K is {TOPK_MOST + 1}, and must be at most {TOPK_MOST}",
    ),
    "as many as there are": (
        one("TopK", {"x": f32(1, 100), "k": (I64, [1])}, outputs=2),
        one("TopK", {"x": f32(1, "n"), "k": (I64, [1])}, outputs=2),
        "K is not a constant",
    ),
    "the best in order": (
        one("TopK", ROW, {"k": INT([5])}, outputs=2),
        one("TopK", ROW, {"k": INT([5])}, outputs=2, sorted=0),
        "sorted is 0",
    ),
    "the best along an axis": (
        one("TopK", {"x": f32(2, 2, 2, 2, 9)}, {"k": INT([5])}, outputs=2),
        one("TopK", {"x": f32(9, 2, 2, 2, 2)}, {"k": INT([5])}, outputs=2, axis=0),
        "only the last four are allowed",
    ),
    "scales are positive": (eight(), eight(scale=0.0), "the scale of q is not positive everywhere"),
    "zero points are zero": (eight(np.int8), eight(np.int8, zero=1), "the zero point of q is not 0, and must be"),
    "types of quantised values": (eight(), eight(E5M2), "x is quantised to float8e5m2; float8e4m3fn, int8 are allowed"),
    "a scale has the type of its data": (eight(), eight(kind=F32), "the inputs are x float, s float16"),
    "an input has one scale": (
        eight(np.int8),
        eight(np.int8, scale=[0.5, 0.5, 0.5]),
        "x has a scale of shape (3); only weights in int8 may have more than one",
    ),
    "weights have a scale per row": (
        stored([0.5, 0.25, 0.5]),
        stored([0.5, 0.25, 0.5], axis=1),
        "w has a scale of shape (3), and must have one per row of its axis",
    ),
    "weights in float8 have one scale": (
        stored(0.5, E4M3),
        stored([0.5, 0.25, 0.5], E4M3),
        "w has a scale of shape (3); only weights in int8 may have more than one",
    ),
    "scales are constants": (
        eight(),
        one("DequantizeLinear", {"x": (I8, [8]), "s": (F16, [])}, {"z": np.int8(0)}, opset=23),
        "the scale of x is computed or absent",
    ),
    "quantised values are dequantised": (
        eight(np.int8),
        eight(np.int8, last="Relu"),
        "q is int8 and goes into Relu; only DequantizeLinear may take it",
    ),
    "quantised values do not enter": (
        eight(np.int8),
        one("DequantizeLinear", {"x": (I8, [8])}, {"s": np.float16(1), "z": np.int8(0)}, opset=23),
        "x is int8, and only QuantizeLinear and constants give that",
    ),
    "bytes that enter": (
        one("Cast", {"x": (U8, ["n"])}, to=F16),
        one("Cast", {"x": (U8, ["n"])}, to=BF16),
        "goes into Cast to bfloat16; only a Cast to float, float16 may take it",
    ),
    "bytes inside": (
        many([("Cast", ["x"], ["b"], {"to": F32}), ("Relu", ["b"], ["y"], {})], {"x": (U8, ["n"])}),
        many([("Cast", ["x"], ["b"], {"to": U8}), ("Cast", ["b"], ["y"], {"to": F32})], ROW),
        "uint8 inside the graph",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rule(name: str) -> None:
    good, bad, piece = PAIRS[name]
    assert lint(good) == []
    messages = [breach.message for breach in lint(bad)]
    assert sum(piece in message for message in messages) == 1, messages


def clamped(low: Sequence[str], values: Mapping[str, Any]) -> Any:
    """A level computed in float32, cast to int64 and counted from 2, as feature pyramids do."""
    nodes: list[Node] = [
        ("Floor", ["x"], ["f"], {}),
        ("Clip", ["f", *low], ["c"], {}),
        ("Cast", ["c"], ["i"], {"to": I64}),
        ("Sub", ["i", "two"], ["y"], {}),
    ]
    return many(nodes, {"x": f32("n")}, {"two": INT(2), **values})


SIZES: dict[str, tuple[Any, bool]] = {
    # Arithmetic on int64: is it allowed?
    "what enters": (one("Add", {"x": (I64, ["n"])}, {"c": INT(1)}), False),
    "what enters as int32": (one("Add", {"x": (I32, ["n"])}, {"c": np.int32(1)}), True),
    "what enters, as an index": (one("Gather", {"x": f32(8, 2), "i": (I64, ["n"])}), True),
    "what enters, compared": (one("Less", {"x": (I64, ["n"])}, {"c": INT(1)}), True),
    "sizes": (many([("Shape", ["x"], ["s"], {}), ("Mul", ["s", "s"], ["y"], {})], ROW), True),
    "positions of the best": (
        many([("TopK", ["x", "k"], ["v", "i"], {}), ("Add", ["i", "k"], ["y"], {})], ROW, {"k": INT([5])}),
        True,
    ),
    "counted truths": (
        many([("Cast", ["x"], ["i"], {"to": I64}), ("ReduceSum", ["i"], ["y"], {})], {"x": (BOOL, ["n"])}),
        True,
    ),
    "widened int32": (
        many([("Cast", ["x"], ["i"], {"to": I64}), ("Mul", ["i", "i"], ["y"], {})], {"x": (I32, ["n"])}),
        True,
    ),
    "clamped": (clamped(["lo", "hi"], {"lo": np.float32(2), "hi": np.float32(5)}), True),
    "clamped on one side": (clamped(["lo"], {"lo": np.float32(2)}), False),
    "clamped and computed with": (
        many(
            [
                ("Clip", ["x", "lo", "hi"], ["a"], {}),
                ("Exp", ["a"], ["b"], {}),
                ("Cast", ["b"], ["i"], {"to": I64}),
                ("Add", ["i", "i"], ["y"], {}),
            ],
            {"x": f32("n")},
            {"lo": np.float32(2), "hi": np.float32(5)},
        ),
        False,
    ),
    "through Gather and Concat": (
        many(
            [
                ("Gather", ["x", "c"], ["a"], {}),
                ("Concat", ["a", "c"], ["b"], {"axis": 0}),
                ("Mul", ["b", "b"], ["y"], {}),
            ],
            {"x": (I64, ["n"])},
            {"c": INT([1])},
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_int64(name: str) -> None:
    model, allowed = SIZES[name]
    breaches = lint(model)
    if allowed:
        assert breaches == []
    else:
        assert [b.operator for b in breaches] == [model.graph.node[-1].op_type]
        assert "calculates with the int64" in breaches[0].message


def test_arithmetic_is_reported_once() -> None:
    nodes: list[Node] = [("Add", ["x", "c"], ["a"], {}), ("Mul", ["a", "c"], ["b"], {}), ("Sub", ["b", "c"], ["y"], {})]
    assert [b.operator for b in lint(many(nodes, {"x": (I64, ["n"])}, {"c": INT(1)}))] == ["Add"]


def test_a_breach_names_its_node() -> None:
    model = one("Resize", IMAGE, SCALES, mode="cubic")
    model.graph.node[0].name = "neck/up"
    assert lint(model) == [
        Breach(
            "neck/up", "Resize", "mode is 'cubic'; allowed are nearest, linear. Resample with MatMul by fixed weights"
        )
    ]
    model.graph.node[0].name = ""
    assert lint(model)[0].node == "y0"


def conditional() -> Any:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "branch", [], [helper.make_tensor_value_info("r", F32, ["n", 8])]
    )
    return one("If", {"c": (BOOL, []), **ROW}, given=("c",), then_branch=branch, else_branch=branch)


def of_another_domain() -> Any:
    model = many([("BiasGelu", ["x"], ["a"], {"domain": "com.microsoft"})], ROW)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def with_function() -> Any:
    model = one("Twice", ROW, domain="ours")
    model.opset_import.append(helper.make_opsetid("ours", 1))
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    model.functions.append(helper.make_function("ours", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))
    return model


@pytest.mark.parametrize(
    ("model", "operator"),
    [
        (one("Erf", ROW), "Erf"),
        (one("Unique", {"x": f32(8)}), "Unique"),
        (of_another_domain(), "com.microsoft::BiasGelu"),
        (conditional(), "If"),
        (with_function(), "ours::Twice"),
    ],
)
def test_other_operators_are_one_breach(model: Any, operator: str) -> None:
    """Whether TensorRT has them or not."""
    (breach,) = lint(model)
    assert breach.operator == operator.rpartition(":")[2]
    assert breach.message.startswith(
        f"operator {operator} is not among those fgfast's graphs use; look it up in onnx-tensorrt's docs/operators.md"
    )


def test_what_cannot_be_inferred() -> None:
    model = many([("BiasGelu", ["x"], ["a"], {"domain": "com.microsoft"}), ("Relu", ["a"], ["y"], {})], ROW)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    messages = [b.message for b in lint(model)]
    assert ["is not among" in m or "cannot be inferred" in m for m in messages] == [True, True]


def test_weights_are_never_read(tmp_path: Path) -> None:
    model = many([("MatMul", ["x", "w"], ["y"], {})], ROW, {"w": np.zeros((8, 4), np.float32)})
    path = tmp_path / "graph.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    assert lint(onnx.load_model(path, load_external_data=False)) == []


def test_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = many([("MatMul", ["x", "w"], ["y"], {})], ROW, {"w": np.zeros((8, 1 << 16), np.float32)})
    before, infer, seen = model.SerializeToString(), onnx.shape_inference.infer_shapes, []

    def watch(light: Any, **more: Any) -> Any:
        seen.append(light.ByteSize())
        return infer(light, **more)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", watch)
    assert lint(model) == []
    assert seen[0] < 1000
    assert model.SerializeToString() == before


def test_the_table_has_operators_of_onnx_only() -> None:
    for op, row in TABLE.items():
        schema = onnx.defs.get_schema(op, OPSETS[-1], "")
        assert schema.max_input > max(row.data or (-1,)), op
    assert set(CHECKS) <= set(TABLE)


@pytest.mark.full
def test_every_row_is_met_by_an_exported_graph(tmp_path: Path) -> None:
    """So that the table does not grow stale. These graphs have all the operators; tracing them lints them, too."""
    pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    import torch
    from unit.test_export_quantise import one_layer

    from fgfast.export import detic, grounding_dino, quantise_graph, trace
    from fgfast.export.quantise_scales import scales_of
    from fgfast.models.detic.config import NANO
    from fgfast.models.detic.model import Detic
    from fgfast.models.grounding_dino import small
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    nano, network = Detic(NANO), small.network(0).requires_grad_(False).eval()
    parts = (
        detic.part(nano, nano, "detic_detector", (128, 160)),
        grounding_dino.part(network, (224, 256), precision="fp16"),
    )
    met = set()
    for part in parts:
        path = tmp_path / f"{part.contract.graph}.onnx"
        trace.trace(part.graph, part.contract, part.example, path)
        met |= {node.op_type for node in onnx.load_model(path, load_external_data=False).graph.node}
    layer = torch.nn.Linear(48, 16)
    path, contract = one_layer(tmp_path, layer)
    scales = scales_of({"a": layer}, {"a": 1.0}, "fp8")
    quantise_graph.insert(path, tmp_path / "q.onnx", {"a": layer}, scales, "fp8")
    trace.inspect(tmp_path / "q.onnx", contract)
    met |= {node.op_type for node in onnx.load_model(tmp_path / "q.onnx").graph.node}
    assert met == set(TABLE)
