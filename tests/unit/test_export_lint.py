"""What TensorRT takes and what it does not: each rule once kept and once broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, inliner, numpy_helper  # noqa: E402

from fgfast.export import lint as module  # noqa: E402
from fgfast.export.lint import NMS_MOST, OPSETS, TOPK_MOST, Breach, lint  # noqa: E402

F32, F16, BF16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
I64, I32, BOOL, U8, U16 = TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16

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
ROI = {**IMAGE, "rois": f32("n", 4), "index": (I64, ["n"])}
BOXES = {"boxes": f32(1, 100, 4), "scores": f32(1, 20, 100)}
SCALES = {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2, 2])}
ROW = {"x": f32("n", 8)}
INT = np.int64
LSTM = {"x": f32(3, 1, 4), "w": f32(2, 20, 4), "r": f32(2, 20, 5)}
BOTH = {"hidden_size": 5, "direction": "bidirectional"}

PAIRS: dict[str, tuple[Any, Any, str]] = {
    # name: (good, bad, a piece of what is said)
    "opset": (one("Relu", ROW), one("Relu", ROW, opset=26), "opset 26"),
    "types of one input": (one("Mish", ROW), one("Mish", {"x": (BF16, [8])}, opset=22), "allowed are float, float16"),
    "types of all inputs": (
        one("And", {"a": (BOOL, [8]), "b": (BOOL, [8])}),
        one("MatMul", {"a": (I32, [8, 8]), "b": (I32, [8, 8])}),
        "a is int32; allowed are bfloat16, float, float16",
    ),
    "types that are made": (
        one("ConstantOfShape", {}, {"shape": INT([2])}),
        one("HannWindow", {}, {"size": INT(8)}, output_datatype=BF16),
        "y0 is bfloat16",
    ),
    "one type": (
        one("Pow", {"a": f32(8), "b": f32(8)}),
        one("Pow", {"a": f32(8), "b": (F16, [8])}),
        "takes a float, b float16",
    ),
    "not an operator": (one("Gelu", ROW), one("Unique", {"x": f32(8)}), "not an operator of TensorRT"),
    "double": (one("Relu", ROW), one("Cast", ROW, to=F64), "y0 is double"),
    "uint16": (one("Cast", {"x": (I32, [8])}, to=F32), one("Cast", {"x": (U16, [8])}, to=F32), "x is uint16"),
    "string": (one("Identity", ROW), one("Identity", {"x": (TensorProto.STRING, [8])}), "x is string"),
    "cast": (one("Cast", ROW, to=BF16), one("Cast", ROW, to=TensorProto.INT8), "casts to int8"),
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
        "past_key is given",
    ),
    "attention's outputs": (
        one("Attention", QKV, opset=23),
        one("Attention", QKV, outputs=3, opset=23),
        "has 3 outputs",
    ),
    "attention's softcap": (
        one("Attention", QKV, softcap=0.0, opset=23),
        one("Attention", QKV, softcap=30.0, opset=23),
        "softcap is 30",
    ),
    "dilated pooling": (
        one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[1, 1]),
        one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2]),
        "dilations are [2, 2]",
    ),
    "pooling's axes": (
        one("AveragePool", IMAGE, kernel_shape=[2, 2]),
        one("AveragePool", {"x": f32(1, 3, 32)}, kernel_shape=[2]),
        "rank 3",
    ),
    "where the maximum was": (
        one("MaxPool", IMAGE, kernel_shape=[2, 2]),
        one("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2),
        "Indices",
    ),
    "norm of a pool": (
        one("LpPool", IMAGE, kernel_shape=[2, 2]),
        one("LpPool", IMAGE, kernel_shape=[2, 2], p=3),
        "p is 3",
    ),
    "norm": (one("LpNormalization", ROW, p=1), one("LpNormalization", ROW, p=3), "p is 3"),
    "batch normalization": (
        one("BatchNormalization", IMAGE, dict.fromkeys("sbmv", np.ones(3, np.float32)), given="xsbmv"),
        one(
            "BatchNormalization",
            IMAGE,
            dict.fromkeys("sbmv", np.ones(3, np.float32)),
            given="xsbmv",
            training_mode=1,
            outputs=3,
        ),
        "training mode",
    ),
    "constants": (
        many([("Constant", [], ["c"], {"value_float": 1.0}), ("Add", ["x", "c"], ["y"], {})], ROW),
        many([("Constant", [], ["c"], {"value_string": "a"}), ("Relu", ["x"], ["y"], {})], ROW),
        "value_string",
    ),
    "axis of a running sum": (
        one("CumSum", ROW, {"axis": INT(0)}),
        one("CumSum", {**ROW, "axis": (I64, [])}),
        "axis is computed",
    ),
    "deformed convolution": (
        one(
            "DeformConv",
            {**IMAGE, "w": f32(4, 3, 1, 1), "o": f32(1, 2, 34, 34)},
            kernel_shape=[1, 1],
            pads=[1, 1, 1, 1],
        ),
        one(
            "DeformConv",
            {**IMAGE, "w": f32(4, 3, 1, 1), "o": f32(1, 2, 33, 33)},
            kernel_shape=[1, 1],
            pads=[1, 1, 0, 0],
        ),
        "pads are [1, 1, 0, 0]",
    ),
    "quantization": (
        one("DequantizeLinear", {"x": (TensorProto.INT8, [8])}, {"s": np.float32(1), "z": np.int8(0)}),
        one("DequantizeLinear", {"x": (TensorProto.INT8, [8])}, {"s": np.float32(1), "z": np.int8(3)}),
        "zero point",
    ),
    "dropout": (
        one("Dropout", ROW, {"r": np.float32(0.5), "t": np.bool_(False)}),
        one("Dropout", ROW, {"r": np.float32(0.5), "t": np.bool_(True)}),
        "training mode",
    ),
    "einsum": (
        one("Einsum", {"a": f32(2, 3), "b": f32(3, 4)}, equation="ij,jk->ik"),
        one("Einsum", {"a": f32(2, 3), "b": f32(3, 4)}, equation="Ij,jk->Ik"),
        "['I']",
    ),
    "unit matrix": (one("EyeLike", {"x": f32(4, 4)}), one("EyeLike", {"x": f32("n", 4)}), "shape is (?, 4)"),
    "gathering": (
        one("GatherND", {**IMAGE, "i": (I64, ["n", 2])}),
        one("GatherND", {**IMAGE, "i": (I64, ["n", "m"])}),
        "(?, ?)",
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
        "allowed is one type",
    ),
    "hardmax": (one("Hardmax", ROW), one("Hardmax", {"x": f32(8, "n")}), "known size of axis -1"),
    "layer normalization": (
        one("LayerNormalization", ROW, {"s": np.ones(8, np.float32)}),
        one("LayerNormalization", ROW, {"s": np.ones(8, np.float32)}, outputs=2),
        "has 2 outputs",
    ),
    "suppression's bound": (
        one("NonMaxSuppression", BOXES, {"most": INT([10])}),
        one("NonMaxSuppression", {**BOXES, "most": (I64, [1])}),
        "max_output_boxes_per_class",
    ),
    "suppression's candidates": (
        one("NonMaxSuppression", BOXES, {"most": INT([10])}),
        one("NonMaxSuppression", {"b": f32(1, 100, 4), "s": f32(1, 1203, 100)}, {"most": INT([10])}),
        f"there are 120300 pairs of class and box, allowed are {NMS_MOST}",
    ),
    "one-hot": (
        one("OneHot", {"i": (I64, ["n"])}, {"d": INT(5), "v": np.float32([0, 1])}),
        one("OneHot", {"i": (I64, ["n"]), "d": (I64, [])}, {"v": np.float32([0, 1])}),
        "depth is computed",
    ),
    "reduction": (
        one("ReduceMax", ROW, {"axes": INT([1])}),
        many([("Identity", ["a"], ["axes"], {}), ("ReduceMax", ["x", "axes"], ["y"], {})], ROW, {"a": INT([1])}),
        "axes is computed",
    ),
    "resizing": (
        one("Resize", IMAGE, SCALES, mode="linear", coordinate_transformation_mode="half_pixel"),
        one("Resize", IMAGE, SCALES, mode="cubic"),
        "mode is 'cubic', allowed are nearest, linear",
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
    "a recurrent network": (
        one("LSTM", LSTM, **BOTH),
        one("LSTM", LSTM, **BOTH, activations=["Sigmoid", "Tanh", "Tanh", "Tanh", "Tanh", "Tanh"]),
        "the same in both directions",
    ),
    "a recurrent network's layout": (one("LSTM", LSTM, **BOTH), one("LSTM", LSTM, **BOTH, layout=1), "layout is 1"),
    "aligned regions": (
        one("RoiAlign", ROI, sampling_ratio=0, output_height=7, output_width=7),
        one("RoiAlign", ROI, output_height=7, output_width=7),
        "sampling_ratio is not written",
    ),
    "boxes of regions": (
        one("RoiAlign", ROI, sampling_ratio=2),
        one("RoiAlign", {**ROI, "rois": f32("n", "m")}, sampling_ratio=2),
        "boxes have shape (?, ?)",
    ),
    "scattering": (
        one("ScatterND", {"x": f32(8), "i": (I64, ["n", 1]), "u": f32("n")}),
        one("ScatterND", {"x": f32(8), "i": (I64, ["n", 1]), "u": f32("n")}, reduction="add"),
        "reduction is 'add'",
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
    "Fourier": (
        one("STFT", {"x": f32(1, 64, 1)}, {"step": INT(4), "window": np.ones(16, np.float32)}),
        one("STFT", {"x": f32(1, 64, 1), "step": (I64, [])}, {"window": np.ones(16, np.float32)}),
        "frame_step is computed",
    ),
    "a cache": (
        one("TensorScatter", {"p": HEADS, "u": HEADS}, opset=24),
        one("TensorScatter", {"p": HEADS, "u": HEADS}, axis=1, opset=24),
        "axis 1",
    ),
    "the best": (
        one("TopK", {"x": f32("n")}, {"k": INT([TOPK_MOST])}, outputs=2),
        one("TopK", {"x": f32("n")}, {"k": INT([TOPK_MOST + 1])}, outputs=2),
        f"K is {TOPK_MOST + 1}, allowed is {TOPK_MOST}",
    ),
    "as many as there are": (
        one("TopK", {"x": f32(1, 100), "k": (I64, [1])}, outputs=2),
        one("TopK", {"x": f32(1, "n"), "k": (I64, [1])}, outputs=2),
        "no bound that can be seen",
    ),
    "as many as there are, but not too many": (
        many(
            [
                ("Shape", ["x"], ["n"], {"start": 1}),
                ("Min", ["n", "m"], ["k"], {}),
                ("TopK", ["x", "k"], ["y", "z"], {}),
            ],
            {"x": f32(1, "n")},
            {"m": INT([1000])},
        ),
        many(
            [
                ("Shape", ["x"], ["n"], {"start": 1}),
                ("Max", ["n", "m"], ["k"], {}),
                ("TopK", ["x", "k"], ["y", "z"], {}),
            ],
            {"x": f32(1, "n")},
            {"m": INT([1000])},
        ),
        "no bound that can be seen",
    ),
    "the best in order": (
        one("TopK", ROW, {"k": INT([5])}, outputs=2),
        one("TopK", ROW, {"k": INT([5])}, outputs=2, sorted=0),
        "sorted is 0",
    ),
    "the best along an axis": (
        one("TopK", {"x": f32(2, 2, 2, 2, 9)}, {"k": INT([5])}, outputs=2),
        one("TopK", {"x": f32(9, 2, 2, 2, 2)}, {"k": INT([5])}, outputs=2, axis=0),
        "allowed are the last four",
    ),
    "rotation": (
        one("RotaryEmbedding", {"x": HEADS, "c": f32(9, 4), "s": f32(9, 4), "p": (I64, [1, "n"])}, opset=23),
        one("RotaryEmbedding", {"x": HEADS, "c": f32(9, 4), "s": f32(9, 4), "p": (I32, [1, "n"])}, opset=23),
        "position_ids are int32",
    ),
    "bytes that enter": (
        one("Cast", {"x": (U8, ["n"])}, to=F16),
        one("Cast", {"x": (U8, ["n"])}, to=BF16),
        "goes into Cast to bfloat16; allowed is Cast to float, float16",
    ),
    "bytes that leave": (
        one("Cast", {"x": (F32, ["n"])}, to=U8),
        one("Cast", {"x": (I32, ["n"])}, to=U8),
        "made by Cast from int32",
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
    "positions": (many([("ArgMax", ["x"], ["s"], {}), ("Mul", ["s", "s"], ["y"], {})], ROW), True),
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
    "clamped with Min and Max": (
        many(
            [("Min", ["x", "hi"], ["a"], {}), ("Max", ["a", "lo"], ["b"], {}), ("Add", ["b", "lo"], ["y"], {})],
            {"x": (I64, ["n"])},
            {"lo": INT(0), "hi": INT(9)},
        ),
        True,
    ),
    "only from above": (
        many([("Min", ["x", "hi"], ["a"], {}), ("Add", ["a", "hi"], ["y"], {})], {"x": (I64, ["n"])}, {"hi": INT(9)}),
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
        assert "int64 data" in breaches[0].message


def test_said_once() -> None:
    nodes: list[Node] = [("Add", ["x", "c"], ["a"], {}), ("Mul", ["a", "c"], ["b"], {}), ("Sub", ["b", "c"], ["y"], {})]
    assert [b.operator for b in lint(many(nodes, {"x": (I64, ["n"])}, {"c": INT(1)}))] == ["Add"]


def test_a_breach_names_its_node() -> None:
    model = one("Resize", IMAGE, SCALES, mode="cubic")
    model.graph.node[0].name = "neck/up"
    assert lint(model) == [
        Breach(
            "neck/up", "Resize", "mode is 'cubic', allowed are nearest, linear. Resample with MatMul by fixed weights"
        )
    ]
    model.graph.node[0].name = ""
    assert lint(model)[0].node == "y0"


def test_control_flow() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "branch", [], [helper.make_tensor_value_info("r", F32, ["n", 8])]
    )
    model = one("If", {"c": (BOOL, []), **ROW}, given=("c",), then_branch=branch, else_branch=branch)
    assert ["control flow" in b.message for b in lint(model)] == [True]


def test_sequences() -> None:
    model = many([("SequenceConstruct", ["x"], ["s"], {}), ("SequenceAt", ["s", "i"], ["y"], {})], ROW, {"i": INT(0)})
    told = {(b.operator, b.message.split(";")[0].split(".")[0]) for b in lint(model)}
    assert ("SequenceConstruct", "s is a sequence") in told
    assert {op for op, _ in told} == {"SequenceConstruct", "SequenceAt"}


def test_other_domains() -> None:
    model = one("BiasGelu", ROW, domain="com.microsoft")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "domain 'com.microsoft'" in lint(model)[0].message


def test_local_functions() -> None:
    model = one("Twice", ROW, domain="ours")
    model.opset_import.append(helper.make_opsetid("ours", 1))
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    model.functions.append(helper.make_function("ours", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))
    breaches = lint(model)
    assert [(b.node, b.operator) for b in breaches] == [("Twice", "function")]
    assert "inline" in breaches[0].message
    assert lint(inliner.inline_local_functions(model)) == []


def test_what_cannot_be_inferred() -> None:
    model = many([("BiasGelu", ["x"], ["a"], {"domain": "com.microsoft"}), ("Relu", ["a"], ["y"], {})], ROW)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert ["domain" in b.message or "cannot be inferred" in b.message for b in lint(model)] == [True, True]


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


def test_table_has_operators_of_onnx_only() -> None:
    for op, row in module._TABLE.items():
        schema = onnx.defs.get_schema(op, OPSETS[-1], "")
        assert schema.max_input > max(row.data or (-1,)), op
    assert set(module._CHECKS) <= set(module._TABLE)
