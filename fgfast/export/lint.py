"""Checks whether TensorRT supports a graph, without TensorRT, which most machines that export do not have.

The table has the operators of fgfast's own graphs and the types that TensorRT supports for each; lint_checks.py has its
other restrictions. Any other operator is a breach.

The graphs were surveyed on 2026-11-30 as torch 2.13 and onnxscript 0.7.2 export and optimise them, in fp32, bf16 and
fp16: SAM's encoder (tiny256 and ViT-B, for a fixed and for any batch) and decoder (one mask and three); Detic's
detector, backbone and heads (nano at 128 x 160, Swin-B at 800 x 1344); Grounding DINO (the small random one at
224 x 256, and one of the size of grounding_dino_tiny at 800 x 1344). A test exports small ones and finds every row of
the table in them.

The facts about TensorRT come from (read on 2026-11-22):

* onnx/onnx-tensorrt, docs/operators.md at fa5aa9f6 (TensorRT 10.15): operators, types, restrictions, opsets 9 to 24.
  The list of 11.1 (7c51a63a) has the same rows for these operators; a reprint of that of 11.2 adds GridSample of
  volumes and in bfloat16, which are not used.
* onnx/onnx-tensorrt, onnxOpImporters.cpp of 10.1 (96e78110) and of a copy that has TensorScatter (10.15 or newer), and
  onnxOpCheckers.cpp of 10.1: where an importer silently deviates from ONNX (GridSample, Gemm), and where it supports
  more than the list says (Clip of integers).
* NVIDIA/TensorRT, include/NvInfer.h and NvInferRuntimeBase.h of 11.1 (a892d222): uint8, the boxes that NMS looks
  at, masks of attention.
* https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/TopK.html: k up to 3840, the last four axes.
* onnxOpImporters.cpp of 10.1, QuantDequantLinearHelper: zero points of zero, positive scales, types of the results, one
  scale per channel on weights only; and NVIDIA's documentation, "Quantization Schemes": float8 e4m3fn and int8.

The lint is stricter than TensorRT in two respects. double is refused, because TensorRT narrows it. Arithmetic on int64
data is refused, because importers and plugins narrow int64 to int32 in places; allowed operands are constants, sizes,
positions and clamped numbers (int64_ranges.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from fgfast.export.int64_ranges import unbounded
from fgfast.export.lint_checks import CHECKS, QUANTISED_TYPES, named, type_name
from fgfast.export.typed_graph import TypedGraph, attribute, input_name, node_name

TENSORRT = "10.15"
"""The oldest version of TensorRT that the lint is valid for."""
OPSETS = range(9, 25)

_FP = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_FLOATS = _FP | {TensorProto.BFLOAT16}
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_BOOL = frozenset({TensorProto.BOOL})
_ALL = _NUMBERS | _BOOL
_UINT8 = TensorProto.UINT8


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that TensorRT would refuse or compute differently.

    Attributes:
        node: name of the node, input or initializer.
        operator: "Resize", say; or "input", "initializer", "model".
        message: what was found, what is allowed, and what to do.
    """

    node: str
    operator: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """What TensorRT supports for an operator.

    Attributes:
        types: element types.
        data: positions of the inputs that carry the data and must all have one type; None means all inputs. The types
            of other inputs (axes, shapes, indices) are verified by ONNX's checker.
    """

    types: frozenset[int]
    data: tuple[int, ...] | None


def _rows(types: frozenset[int], data: tuple[int, ...] | None, operators: str) -> dict[str, Row]:
    return dict.fromkeys(operators.split(), Row(types, data))


TABLE: dict[str, Row] = {
    # One data input.
    **_rows(_FLOATS, (0,), "Ceil Cos CumSum Exp Floor Gelu Log Reciprocal Resize Sigmoid Sin Softmax Sqrt"),
    **_rows(_NUMBERS, (0,), "Clip Pad ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu TopK"),
    **_rows(_ALL, (0,), "Expand Gather GatherElements Reshape Shape Slice Split Squeeze Tile Transpose Unsqueeze"),
    **_rows(_ALL | {_UINT8}, (0,), "Cast"),
    **_rows(_BOOL, (0,), "Not"),
    # All inputs are data.
    **_rows(_NUMBERS, None, "Add Div Max Min Mod Mul Range Sub Equal Greater GreaterOrEqual Less LessOrEqual"),
    **_rows(_FLOATS, None, "Conv Gemm LayerNormalization MatMul"),
    **_rows(_ALL, None, "Concat"),
    **_rows(_BOOL, None, "And Or"),
    # Some inputs are data.
    **_rows(_FLOATS, (0, 1, 2), "Attention"),
    **_rows(_FP, (0, 1), "GridSample NonMaxSuppression"),
    **_rows(_ALL, (1, 2), "Where"),
    # A quantiser's scale has the type of its data, a dequantiser's that of its result.
    **_rows(_FLOATS, (0, 1), "QuantizeLinear"),
    **_rows(_FLOATS, (1,), "DequantizeLinear"),
}


def lint(model: onnx.ModelProto) -> list[Breach]:
    """Find everything in a graph that TensorRT would refuse, or compute differently from ONNX.

    Args:
        model: may be loaded without its external data; it is not changed.

    Returns:
        The breaches of the model and its tensors, then those of the nodes in order; empty for a valid graph.
    """
    breaches = list(_of_opsets(model))
    try:
        graph = TypedGraph(model)
    except onnx.shape_inference.InferenceError as error:
        message = f"shapes cannot be inferred: {error}. Export again; onnx.checker with full_check=True says where"
        return [*breaches, Breach(model.graph.name, "model", message)]
    breaches.extend(_of_tensors(graph))
    wide = unbounded(graph, {name: row.data for name, row in TABLE.items()})
    for node in graph.nodes:
        breaches.extend(Breach(node_name(node), node.op_type, message) for message in _of_node(graph, node))
        if culprit := wide.get(node_name(node)):
            message = (
                f"calculates with the int64 {culprit}, which may have any size, and TensorRT narrows it to int32 in "
                "places; constants, sizes, positions and clamped numbers are allowed. Cast it to int32, or clamp it"
            )
            breaches.append(Breach(node_name(node), node.op_type, message))
    return breaches


def _of_opsets(model: onnx.ModelProto) -> Iterator[Breach]:
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            allowed = f"TensorRT {TENSORRT} takes {OPSETS[0]} to {OPSETS[-1]}"
            message = f"the model has opset {opset.version}; {allowed}. Export with an opset_version in that range"
            yield Breach(model.graph.name, "model", message)


def _of_tensors(graph: TypedGraph) -> Iterator[Breach]:
    for name, element in graph.types.items():
        node, operator = _origin(graph, name)
        if element == _UINT8:
            yield from (Breach(node, operator, message) for message in _uint8(graph, name))
        elif element in QUANTISED_TYPES:
            yield from (Breach(node, operator, message) for message in _quantised(graph, name))
        elif element not in _ALL:
            message = f"{name} is {type_name(element)}; {named(_ALL)} are allowed. Cast it before the export"
            yield Breach(node, operator, message)
    for maker in graph.nodes:
        for name in filter(None, maker.output):
            if maker.op_type in TABLE and name not in graph.types:
                message = f"the type of {name} cannot be inferred, and all must be. Keep shapes and axes in the file"
                yield Breach(node_name(maker), maker.op_type, message)


def _origin(graph: TypedGraph, name: str) -> tuple[str, str]:
    if name in graph.makers:
        return node_name(graph.makers[name]), graph.makers[name].op_type
    return name, "initializer" if name in graph.constants else "input"


def _uint8(graph: TypedGraph, name: str) -> Iterator[str]:
    """uint8 may enter the graph if a Cast to a floating-point type is all that reads it."""
    if name not in graph.inputs:
        yield f"{name} is uint8 inside the graph, and is allowed only as an input. Cast it to another type"
        return
    for taker in (node for node in graph.nodes if name in node.input):
        if taker.op_type != "Cast" or attribute(taker, "to", 0) not in _FP:
            to = f" to {type_name(attribute(taker, 'to', 0))}" if taker.op_type == "Cast" else ""
            yield f"{name} is uint8 and goes into {taker.op_type}{to}; only a Cast to {named(_FP)} may take it"


def _quantised(graph: TypedGraph, name: str) -> Iterator[str]:
    """float8 and int8 come from a quantiser or the file, and go into a dequantiser, or are a zero point of either."""
    element = type_name(graph.types[name])
    maker = graph.makers.get(name)
    if name in graph.inputs or (maker is not None and maker.op_type != "QuantizeLinear"):
        yield f"{name} is {element}, and only QuantizeLinear and constants give that. Quantise a floating-point value"
    for taker in (node for node in graph.nodes if name in node.input):
        if taker.op_type != "DequantizeLinear" and name != input_name(taker, 2):
            yield f"{name} is {element} and goes into {taker.op_type}; only DequantizeLinear may take it. Dequantise it"


def _of_node(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx") or node.op_type not in TABLE:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        yield (
            f"operator {operator} is not among those fgfast's graphs use; look it up in onnx-tensorrt's "
            "docs/operators.md, then add a row to fgfast/export/lint.py or change the model"
        )
        return
    yield from _of_types(graph, node)
    check = CHECKS.get(node.op_type)
    if check is not None:
        yield from check(graph, node)


def _of_types(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    row = TABLE[node.op_type]
    names = list(node.input) if row.data is None else [input_name(node, p) for p in row.data]
    found = {name: graph.types[name] for name in names if name in graph.types}
    for name, element in found.items():
        # A type that is wrong everywhere was reported with its tensor.
        if element not in row.types and element in _ALL:
            yield f"{name} is {type_name(element)}; {named(row.types)} are allowed. Cast it before"
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {type_name(element)}" for name, element in found.items())
        yield f"the inputs are {listed}; TensorRT casts nothing by itself, so they must have one type. Cast one of them"
