"""Does TensorRT take this graph? Answered without TensorRT, which most machines that export do not have.

The table says which types an operator takes, the checks below it what else is asked. The file is longer than others, so
that both can be read beside each other. The facts come from (read on 2026-11-22):

* onnx/onnx-tensorrt, docs/operators.md at fa5aa9f6 (TensorRT 10.15): operators, types, restrictions, opsets 9 to 24.
  That of 11.1 (7c51a63a) has the same rows and adds Swish; a reprint of that of 11.2 adds DFT, and GridSample of
  volumes and in bfloat16. What is only there is not taken.
* onnx/onnx-tensorrt, onnxOpImporters.cpp of 10.1 (96e78110) and of a copy that has TensorScatter (10.15 or newer), and
  onnxOpCheckers.cpp of 10.1: where an importer silently does something else than ONNX says (GridSample, RoiAlign,
  Gemm), and where it takes more than the list says (Clip and NonZero of integers).
* NVIDIA/TensorRT, include/NvInfer.h and NvInferRuntimeBase.h of 11.1 (a892d222): uint8, the boxes that NMS looks
  at, masks of attention.
* https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/TopK.html: k up to 3840, the last four axes.

Stricter than TensorRT in four things. Control flow is refused, because a CUDA graph cannot hold it. Operators of other
domains are, because they need plugins. double is, because TensorRT narrows it. Arithmetic on int64 data is, because
importers and plugins narrow int64 to int32 in places: an int64 may be calculated with when it is a constant, a size, a
position, or clamped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

TENSORRT = "10.15"
"""The oldest version that this lint speaks for."""
OPSETS = range(9, 25)
TOPK_MOST = 3840
NMS_MOST = 5000
"""Pairs of box and class, best scores first, that INMSLayer looks at in each image."""

_INLINE_BYTES = 1 << 16
"""Initializers from this size on are never looked into, wherever they lie."""

_FP = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_FLOATS = _FP | {TensorProto.BFLOAT16}
_INT64 = TensorProto.INT64
_NUMBERS = _FLOATS | {TensorProto.INT32, _INT64}
_BOOL = frozenset({TensorProto.BOOL})
_ALL = _NUMBERS | _BOOL
_UINT8 = TensorProto.UINT8
_QUANTIZED = frozenset({TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT4E2M1})


@dataclass(frozen=True, slots=True)
class Breach:
    """Something TensorRT would refuse or compute otherwise.

    Attributes:
        node: name of the node, input or initializer.
        operator: "Resize", say; or "input", "initializer", "function", "model".
        message: the value, what would be allowed, and what to do.
    """

    node: str
    operator: str
    message: str


@dataclass(frozen=True, slots=True)
class _Row:
    types: frozenset[int]
    """Element types that TensorRT takes."""
    data: tuple[int, ...] | None
    """Inputs that carry the data and must be of one type, by position; None is all. With none, outputs are held."""


def _rows(types: frozenset[int], data: tuple[int, ...] | None, operators: str) -> dict[str, _Row]:
    return dict.fromkeys(operators.split(), _Row(types, data))


_TABLE: dict[str, _Row] = {
    # One data input. What else they take (axes, shapes, indices) has types of its own, which ONNX's checker holds.
    **_rows(_FLOATS, (0,), "Acos Acosh Asin Asinh Atan Atanh Cos Cosh Sin Sinh Tan Tanh Erf Exp Log Sqrt Reciprocal"),
    **_rows(_FLOATS, (0,), "Ceil Floor Round Celu Elu Gelu HardSigmoid HardSwish LeakyRelu Selu Sigmoid Softplus"),
    **_rows(_FLOATS, (0,), "Softsign ThresholdedRelu Softmax LogSoftmax Hardmax CumSum Dropout IsInf Resize Upsample"),
    **_rows(_FLOATS, (0,), "AveragePool MaxPool LpPool GlobalAveragePool GlobalLpPool GlobalMaxPool LRN"),
    **_rows(_FLOATS, (0,), "BatchNormalization LpNormalization MeanVarianceNormalization QuantizeLinear"),
    **_rows(_FP, (0,), "Mish"),
    **_rows(frozenset({TensorProto.FLOAT}), (0,), "STFT"),
    **_rows(_NUMBERS, (0,), "Abs Neg Sign Relu Shrink Clip IsNaN ArgMax ArgMin TopK Pad DepthToSpace SpaceToDepth"),
    **_rows(_NUMBERS, (0,), "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"),
    **_rows(_NUMBERS, (0,), "ReduceSum ReduceSumSquare"),
    **_rows(_ALL, (0,), "Expand EyeLike Flatten Gather GatherElements GatherND Identity NonZero Reshape"),
    **_rows(_ALL, (0,), "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze"),
    **_rows(_ALL | {_UINT8}, (0,), "Cast CastLike"),
    **_rows(_BOOL, (0,), "Not"),
    **_rows(_QUANTIZED, (0,), "DequantizeLinear"),
    # All inputs are data.
    **_rows(_NUMBERS, None, "Add Sub Mul Div Mod Pow Sum Mean Max Min Range"),
    **_rows(_NUMBERS, None, "Equal Greater GreaterOrEqual Less LessOrEqual"),
    **_rows(_FLOATS, None, "MatMul Gemm Einsum Conv ConvTranspose PRelu"),
    **_rows(_FLOATS, None, "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization"),
    **_rows(_FP, None, "DeformConv"),
    **_rows(_ALL, None, "Concat"),
    **_rows(_BOOL, None, "And Or Xor"),
    # Some are.
    **_rows(_FLOATS, (0, 1, 2), "Attention RotaryEmbedding GRU LSTM RNN"),
    **_rows(_FP, (0, 1), "GridSample NonMaxSuppression RoiAlign"),
    **_rows(_FLOATS | {TensorProto.INT32}, (0, 1), "TensorScatter"),
    **_rows(_NUMBERS, (0, 2), "Scatter ScatterElements ScatterND"),
    **_rows(_ALL, (1, 2), "Where"),
    **_rows(_ALL, (2,), "OneHot"),
    # None is.
    **_rows(_ALL | _QUANTIZED, (), "Constant ConstantOfShape"),
    **_rows(_FLOATS, (), "RandomNormal RandomNormalLike RandomUniform RandomUniformLike"),
    **_rows(_FP, (), "BlackmanWindow HammingWindow HannWindow"),
}


def _names(operators: str) -> frozenset[str]:
    return frozenset(operators.split())


_CONTROL_FLOW = _names("If Loop Scan")
# Sums, products and what is made of them: what can leave the range of int32.
_ARITHMETIC = _names(
    "Add Sub Mul Div Mod Pow Sum Mean CumSum ReduceSum ReduceProd ReduceMean ReduceL1 ReduceL2 ReduceSumSquare"
)
# Their int64 outputs are sizes and positions, bounded by the tensors they count.
_COUNTING = _names("Shape Size ArgMax ArgMin NonZero NonMaxSuppression")
# They hand floating-point numbers on as they are, or rounded.
_HANDING_ON = _names(
    "Cast Clip Min Max Floor Ceil Round Identity Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather "
    "GatherElements GatherND Expand Tile Concat Where"
)
_OPEN = frozenset({"below", "above"})
_CLOSED: frozenset[str] = frozenset()


def lint(model: onnx.ModelProto) -> list[Breach]:
    """Everything in the graph that TensorRT would not take, or would compute otherwise than ONNX says.

    Args:
        model: may be loaded without its external data; is not changed. Shapes are inferred here.

    Returns:
        First what concerns the model and its tensors, then node by node; empty where there is nothing to say.
    """
    breaches = list(_of_model(model))
    try:
        graph = _Graph.of(model)
    except onnx.shape_inference.InferenceError as error:
        message = f"shapes cannot be inferred: {error}. Export again; onnx.checker with full_check=True says where"
        return [*breaches, Breach(model.graph.name, "model", message)]
    breaches.extend(_of_tensors(graph))
    wide = _of_wide_integers(graph)
    for node in graph.nodes:
        breaches.extend(Breach(_name(node), node.op_type, message) for message in _of_node(graph, node))
        breaches.extend(Breach(_name(node), node.op_type, message) for message in wide.get(_name(node), []))
    return breaches


class _Graph:
    """A graph with what is known about its values. Read-only once made.

    Attributes:
        types: element type of every tensor, by name.
        shapes: sizes of every tensor whose rank is known; None for a size that is not.
        constants: initializers and outputs of Constant.
        fixed: names whose value is known when the engine is built.
        makers: the node that makes a value; takers: those that take it.
    """

    def __init__(self, inferred: onnx.ModelProto) -> None:
        graph = inferred.graph
        self.nodes = list(graph.node)
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.functions = {(f.domain, f.name) for f in inferred.functions}
        self.opset = max((o.version for o in inferred.opset_import if o.domain in ("", "ai.onnx")), default=0)
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.makers: dict[str, NodeProto] = {}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            self.makers.update(dict.fromkeys(filter(None, node.output), node))
            for name in set(filter(None, node.input)):
                self.takers.setdefault(name, []).append(node)
            if node.op_type == "Constant":
                tensor = _constant(node)
                if tensor is not None:
                    self.constants[node.output[0]] = tensor
        self.types: dict[str, int] = {name: tensor.data_type for name, tensor in self.constants.items()}
        self.shapes: dict[str, tuple[int | None, ...]] = {n: tuple(t.dims) for n, t in self.constants.items()}
        self.others: dict[str, str] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind, tensor_type = value.type.WhichOneof("value"), value.type.tensor_type
            if kind not in (None, "tensor_type"):
                self.others[value.name] = kind.removesuffix("_type")
            elif tensor_type.elem_type:
                self.types.setdefault(value.name, tensor_type.elem_type)
            if tensor_type.HasField("shape"):
                sizes = (d.dim_value if d.HasField("dim_value") else None for d in tensor_type.shape.dim)
                self.shapes.setdefault(value.name, tuple(sizes))
        self.fixed = self._fixed()

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        return cls(onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True))

    def _fixed(self) -> frozenset[str]:
        fixed = set(self.constants)
        for node in self.nodes:
            given = [name for name in node.input if name]
            counted = node.op_type in ("Shape", "Size") and given and self._static_shape(node)
            folds = node.op_type in _TABLE and not node.op_type.startswith("Random")
            if counted or (folds and given and fixed.issuperset(given)):
                fixed.update(node.output)
        return frozenset(fixed)

    def _static_shape(self, node: NodeProto) -> bool:
        shape = self.shapes.get(node.input[0])
        if shape is None:
            return False
        return None not in shape[_attribute(node, "start", 0) : _attribute(node, "end", len(shape))]

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a small constant."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)

    def rank(self, name: str) -> int | None:
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with the large initializers left out: they would be copied by inference, and fail above 2 GiB."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    light.graph.name = model.graph.name
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() < _INLINE_BYTES:
            light.graph.initializer.append(tensor)
            continue
        husk = light.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        husk.data_location = TensorProto.EXTERNAL
        husk.external_data.add(key="location", value="left-out")
    return light


def _constant(node: NodeProto) -> TensorProto | None:
    for attribute in node.attribute:
        value: Any = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            return value
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            dtype = np.float32 if "float" in attribute.name else np.int64
            return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])
    return None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = onnx.helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _input(node: NodeProto, position: int) -> str:
    return node.input[position] if position < len(node.input) else ""


def _name(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), node.op_type)


def _type(element: int | None) -> str:
    return "unknown" if element is None else TensorProto.DataType.Name(element).lower()


def _types(elements: Iterable[int]) -> str:
    return ", ".join(sorted(_type(e) for e in elements))


def _of_model(model: onnx.ModelProto) -> Iterator[Breach]:
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            allowed = f"TensorRT {TENSORRT} takes {OPSETS[0]} to {OPSETS[-1]}"
            message = f"is of opset {opset.version}; {allowed}. Export with opset_version in that range"
            yield Breach(model.graph.name, "model", message)
    for function in model.functions:
        message = (
            f"is a local function of domain {function.domain!r}; none is allowed, for what is inside was not looked "
            "at. Inline it first (onnx.inliner.inline_local_functions)"
        )
        yield Breach(function.name, "function", message)


def _of_tensors(graph: _Graph) -> Iterator[Breach]:
    for name, kind in graph.others.items():
        node, operator = _origin(graph, name)
        yield Breach(node, operator, f"{name} is a {kind}; only tensors are allowed. Return the tensors themselves")
    for name, element in graph.types.items():
        node, operator = _origin(graph, name)
        if element == _UINT8:
            yield from (Breach(node, operator, message) for message in _uint8(graph, name))
        elif element not in _ALL | _QUANTIZED:
            message = f"{name} is {_type(element)}; allowed are {_types(_ALL)}. Cast it before the export"
            yield Breach(node, operator, message)
    for maker in graph.nodes:
        for name in filter(None, maker.output):
            if maker.op_type in _TABLE and name not in graph.types and name not in graph.others:
                message = f"the type of {name} cannot be inferred; all must be. Keep shapes and axes inside the file"
                yield Breach(_name(maker), maker.op_type, message)


def _origin(graph: _Graph, name: str) -> tuple[str, str]:
    if name in graph.makers:
        return _name(graph.makers[name]), graph.makers[name].op_type
    return name, "initializer" if name in graph.constants else "input"


def _uint8(graph: _Graph, name: str) -> Iterator[str]:
    maker, takers = graph.makers.get(name), graph.takers.get(name, [])
    floats = _types(_FP)
    if maker is None and name in graph.inputs:
        for taker in takers:
            if taker.op_type != "Cast" or _attribute(taker, "to", 0) not in _FP:
                to = f" to {_type(_attribute(taker, 'to', 0))}" if taker.op_type == "Cast" else ""
                yield f"{name} is uint8 and goes into {taker.op_type}{to}; allowed is Cast to {floats}. Do that first"
    elif maker is None or name not in graph.outputs or takers:
        yield f"{name} is uint8 inside the graph; allowed is that where it enters or leaves. Cast it to another type"
    elif maker.op_type != "Cast" or graph.types.get(maker.input[0]) not in _FP:
        came = _type(graph.types.get(_input(maker, 0)))
        yield f"the output {name} is uint8 made by {maker.op_type} from {came}; allowed is only Cast from {floats}"


def _of_node(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if (node.domain, node.op_type) in graph.functions:
        return
    if node.domain not in ("", "ai.onnx"):
        yield f"is of domain {node.domain!r}, allowed is ONNX's own. Write it with operators of opset {graph.opset}"
    elif node.op_type in _CONTROL_FLOW:
        yield "is control flow, which no CUDA graph can hold; nothing of it is allowed. Unroll it, or choose with Where"
    elif node.op_type not in _TABLE:
        yield f"is not an operator of TensorRT {TENSORRT}. Write it with those that are: _TABLE in export/lint.py"
    else:
        yield from _of_types(graph, node)
        check = _CHECKS.get(node.op_type)
        if check is not None:
            yield from check(graph, node)


def _of_types(graph: _Graph, node: NodeProto) -> Iterator[str]:
    row = _TABLE[node.op_type]
    names = [n for n in _data(node) if n] if row.data != () else [n for n in node.output if n]
    found = {name: graph.types[name] for name in names if name in graph.types}
    for name, element in found.items():
        # What is wrong everywhere has been said already.
        if element not in row.types and element in _ALL | _QUANTIZED:
            yield f"{name} is {_type(element)}; allowed are {_types(row.types)}. Cast it before"
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {_type(element)}" for name, element in found.items())
        yield f"takes {told}; allowed is one type, for nothing is cast by itself. Cast one to the other's"


def _data(node: NodeProto) -> list[str]:
    positions = _TABLE[node.op_type].data
    return list(node.input) if positions is None else [_input(node, p) for p in positions]


def _of_wide_integers(graph: _Graph) -> dict[str, list[str]]:
    """Arithmetic on int64 that may have any size, by node.

    A number is open below or above where nothing bounds it. Numbers that enter the graph are open, and floating-point
    numbers are unless they were clamped. Constants, sizes, positions, bools and int32 are closed, and so is what is
    made of closed ones.
    """
    ends: dict[str, frozenset[str]] = dict.fromkeys(graph.inputs, _OPEN)
    told: dict[str, list[str]] = {}

    def ends_of(name: str) -> frozenset[str]:
        element = graph.types.get(name)
        bounded = not name or name in graph.fixed or (element not in _FLOATS and element != _INT64)
        return _CLOSED if bounded else ends.get(name, _OPEN)

    for node in graph.nodes:
        if node.op_type not in _TABLE:
            continue
        result = _ends(node, ends_of)
        wide = [name for name in node.output if graph.types.get(name) == _INT64]
        if node.op_type in _ARITHMETIC and wide:
            culprits = [name for name in _data(node) if ends_of(name)]
            if culprits:
                told[_name(node)] = [
                    f"calculates with int64 data, {culprits[0]}, that may have any size, which TensorRT narrows to "
                    "int32 in places; allowed are constants, sizes, positions, and what was clamped. "
                    "Cast it to int32, or clamp it"
                ]
                result = _CLOSED  # said once, not at everything that follows
        for position, name in enumerate(node.output):
            position_of_topk = node.op_type == "TopK" and position == 1
            carries = name in wide or node.op_type in _HANDING_ON
            ends[name] = _CLOSED if position_of_topk else result if carries else _OPEN
    return told


def _ends(node: NodeProto, ends_of: Callable[[str], frozenset[str]]) -> frozenset[str]:
    """The open ends of what a node makes, if it makes int64 or hands floating-point numbers on."""
    if node.op_type in _COUNTING:
        return _CLOSED
    given = [ends_of(name) for name in _data(node) if name]
    if not given:
        return _CLOSED
    every, some = frozenset.intersection(*given), frozenset.union(*given)
    if node.op_type == "Clip":
        low, high = _input(node, 1), _input(node, 2)
        shut = {"below"} if low and "below" not in ends_of(low) else set()
        shut |= {"above"} if high and "above" not in ends_of(high) else set()
        return some - shut
    if node.op_type == "Min":
        return (some & {"below"}) | (every & {"above"})
    if node.op_type == "Max":
        return (every & {"below"}) | (some & {"above"})
    return some


# What is asked beyond types. Each yields messages: the value, what would be allowed, what to do.
_Check = Callable[[_Graph, NodeProto], Iterator[str]]


def _attention(graph: _Graph, node: NodeProto) -> Iterator[str]:
    for position, label in enumerate(("Q", "K", "V", "attn_mask")):
        rank = graph.rank(_input(node, position))
        if rank not in (4, None):
            yield f"{label} has rank {rank}, allowed is 4. Reshape it to (batch, heads, tokens, size)"
    for position, label in ((4, "past_key"), (5, "past_value"), (6, "nonpad_kv_seqlen")):
        if _input(node, position):
            yield f"{label} is given, which is not allowed. Concatenate past and present, or mask, outside"
    if any(node.output[1:]):
        yield f"has {len(node.output)} outputs, allowed is the first alone. Do not ask for the others"
    for label in ("softcap", "qk_matmul_output_mode"):
        if _attribute(node, label, 0):
            yield f"{label} is {_attribute(node, label, 0)}, allowed is 0. Write attention out with MatMul and Softmax"
    mask = _input(node, 3)
    if mask and graph.types.get(mask) not in (TensorProto.BOOL, graph.types.get(node.input[0]), None):
        yield f"attn_mask is {_type(graph.types[mask])}, allowed are bool and the type of Q. Cast it"
    heads = [shape[-1] for shape in map(graph.shapes.get, node.input[:3]) if shape]
    if len({size for size in heads if size is not None}) > 1:
        yield f"Q, K and V have heads of size {heads}, allowed is one size. Pad the smaller with zeros"
    sizes, queries, keys = (graph.shapes.get(_input(node, p)) for p in (3, 0, 1))
    if sizes and queries and keys and len(sizes) == len(queries) == len(keys) == 4:
        for axis, wanted, label in ((2, queries[2], "queries"), (3, keys[2], "keys")):
            if sizes[axis] == 1 and wanted != 1:
                count = wanted or "any number of"
                yield f"attn_mask has size 1 for {count} {label}; allowed is that for batch and heads only. Expand it"


def _pool(graph: _Graph, node: NodeProto) -> Iterator[str]:
    dilations = list(_attribute(node, "dilations", []))
    if any(d != 1 for d in dilations):
        yield f"dilations are {dilations}, allowed is 1 everywhere. Slice before pooling"
    rank = graph.rank(node.input[0])
    if node.op_type != "LpPool" and rank not in (4, 5, None):
        yield f"the input has rank {rank}, allowed are 4 and 5. Unsqueeze it to two dimensions"
    if node.op_type == "MaxPool" and any(node.output[1:]):
        yield "Indices are asked for, which are not allowed. Take the values alone"
    if node.op_type == "LpPool" and _attribute(node, "p", 2) not in (1, 2):
        yield f"p is {_attribute(node, 'p', 2)}, allowed are 1 and 2"


def _batch_normalization(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if _attribute(node, "training_mode", 0) or any(node.output[1:]):
        yield "is in training mode, allowed is inference. Call eval() before the export"


def _cast(graph: _Graph, node: NodeProto) -> Iterator[str]:
    to = _attribute(node, "to", 0) if node.op_type == "Cast" else graph.types.get(_input(node, 1), 0)
    allowed = _TABLE[node.op_type].types
    if to and to not in allowed and to in _ALL | _QUANTIZED:
        yield f"casts to {_type(to)}, allowed are {_types(allowed)}"


def _constant_node(graph: _Graph, node: NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.name in ("sparse_value", "value_string", "value_strings"):
            yield f"holds {attribute.name}, allowed are dense numbers. Export the numbers"


def _fixed_input(position: int, label: str) -> _Check:
    """An input that the builder must be able to compute."""

    def check(graph: _Graph, node: NodeProto) -> Iterator[str]:
        name = _input(node, position)
        if name and name not in graph.fixed:
            yield f"{label} is computed at run time ({name}), allowed is a constant. Fix it in the model"

    return check


def _initializer_input(position: int, label: str) -> _Check:
    """An input that must lie in the file."""

    def check(graph: _Graph, node: NodeProto) -> Iterator[str]:
        name = _input(node, position)
        if name and name not in graph.constants:
            yield f"{label} is computed ({name}), allowed is an initializer. Export with optimize=True, or fix it"

    return check


def _zero_point(graph: _Graph, node: NodeProto) -> Iterator[str]:
    name = _input(node, 2)
    value = graph.value(name) if name else None
    if name and (value is None or np.any(np.asarray(value, np.float64))):
        yield "the zero point is not known to be 0, allowed is 0. Quantize symmetrically"


def _deform_conv(graph: _Graph, node: NodeProto) -> Iterator[str]:
    pads = list(_attribute(node, "pads", []))
    if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
        yield f"pads are {pads}, allowed are the same at both ends. Pad before"
    rank = graph.rank(node.input[0])
    if rank not in (3, 4, None):
        yield f"the input has rank {rank}, allowed are 3 and 4"


def _dropout(graph: _Graph, node: NodeProto) -> Iterator[str]:
    training = _input(node, 2)
    value = graph.value(training) if training else np.zeros(1)
    if value is None or value.any():
        yield "is in training mode or may be; allowed is a constant False. Call eval() before the export"


def _einsum(graph: _Graph, node: NodeProto) -> Iterator[str]:
    equation = str(_attribute(node, "equation", ""))
    odd = sorted(set(equation) - set("abcdefghijklmnopqrstuvwxyz->., "))
    if odd:
        yield f"the equation {equation!r} has {odd}, allowed are lower-case letters. Rename the axes"


def _eye_like(graph: _Graph, node: NodeProto) -> Iterator[str]:
    shape = graph.shapes.get(node.input[0])
    if shape is None or None in shape:
        yield f"the shape is {_shape(shape)}, allowed are known sizes. Fix it in the model"


def _gather_nd(graph: _Graph, node: NodeProto) -> Iterator[str]:
    shape = graph.shapes.get(node.input[1])
    if not shape or shape[-1] is None:
        yield f"the indices have shape {_shape(shape)}, allowed is a known last size. Reshape them with a constant"


def _gemm(graph: _Graph, node: NodeProto) -> Iterator[str]:
    for label in ("alpha", "beta"):
        value = _attribute(node, label, 1.0)
        if value != 1 and graph.types.get(node.input[0]) != TensorProto.FLOAT:
            element = _type(graph.types.get(node.input[0]))
            yield f"{label} is {value:g} with {element}; the importer takes float32 there, allowed is 1. Scale after"


def _grid_sample(graph: _Graph, node: NodeProto) -> Iterator[str]:
    rank = graph.rank(node.input[0])
    if rank not in (4, None):
        yield f"the input has rank {rank}, allowed is 4. Sample plane by plane"
    mode = _attribute(node, "mode", None)
    if mode not in (None, "nearest", "bilinear", "bicubic"):
        yield (
            f"mode is written as {mode!r}, a name of opset 20 that the importer does not know and takes for nearest; "
            "allowed are nearest, or no attribute at all, which is linear. Remove it, or export with opset 16 to 19"
        )


def _hardmax(graph: _Graph, node: NodeProto) -> Iterator[str]:
    shape, axis = graph.shapes.get(node.input[0]), _attribute(node, "axis", -1)
    if not shape or shape[axis] is None:
        yield f"the input has shape {_shape(shape)}, allowed is a known size of axis {axis}. Fix it in the model"


def _layer_normalization(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if any(node.output[1:]):
        yield f"has {len(node.output)} outputs, allowed is the first alone. Compute mean and deviation apart"


def _lp_normalization(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if _attribute(node, "p", 2) not in (1, 2):
        yield f"p is {_attribute(node, 'p', 2)}, allowed are 1 and 2"


def _non_max_suppression(graph: _Graph, node: NodeProto) -> Iterator[str]:
    for position, label in enumerate(("boxes", "scores")):
        rank = graph.rank(node.input[position])
        if rank not in (3, None):
            yield f"{label} have rank {rank}, allowed is 3. Unsqueeze them"
    most = _input(node, 2)
    if not most or most not in graph.fixed:
        yield "max_output_boxes_per_class is computed or absent, allowed is a constant: it bounds memory. Fix it"
    scores = graph.shapes.get(node.input[1])
    if scores and len(scores) == 3 and None not in scores[1:]:
        pairs = math.prod(size or 0 for size in scores[1:])
        if pairs > NMS_MOST:
            yield f"there are {pairs} pairs of class and box, allowed are {NMS_MOST}: the rest is ignored. TopK before"


def _recurrent(graph: _Graph, node: NodeProto) -> Iterator[str]:
    acts = [a.decode() if isinstance(a, bytes) else a for a in _attribute(node, "activations", [])]
    if _attribute(node, "direction", "forward") == "bidirectional" and acts[: len(acts) // 2] != acts[len(acts) // 2 :]:
        yield f"activations are {acts}, allowed are the same in both directions"
    for label in ("input_forget", "layout"):
        if _attribute(node, label, 0):
            yield f"{label} is {_attribute(node, label, 0)}, allowed is 0"


def _resize(graph: _Graph, node: NodeProto) -> Iterator[str]:
    transforms = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
    known: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("mode", "nearest", ("nearest", "linear")),
        ("coordinate_transformation_mode", "half_pixel", transforms),
        ("nearest_mode", "round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        ("keep_aspect_ratio_policy", "stretch", ("stretch",)),
        ("antialias", 0, (0,)),
    )
    for label, default, allowed in known:
        value = _attribute(node, label, default)
        if value not in allowed:
            advice = "Resample with MatMul by fixed weights" if label in ("antialias", "mode") else "Resize another way"
            yield f"{label} is {value!r}, allowed are {', '.join(map(str, allowed))}. {advice}"
    rounding = _attribute(node, "nearest_mode", "round_prefer_floor")
    if _attribute(node, "coordinate_transformation_mode", "") == transforms[2] and rounding != "round_prefer_floor":
        yield f"nearest_mode is {rounding!r} with tf_half_pixel_for_nn, allowed is round_prefer_floor"
    axes, rank = list(_attribute(node, "axes", [])), graph.rank(node.input[0])
    if axes and _input(node, 2) and axes != list(range(rank or 0)):
        yield f"axes are {axes} with scales, allowed are all of them in order. Give sizes, or scales for all axes"


def _roi_align(graph: _Graph, node: NodeProto) -> Iterator[str]:
    ratio = _attribute(node, "sampling_ratio", None)
    if ratio is None:
        yield "sampling_ratio is not written, ONNX then takes 0 and TensorRT 1. Write it"
    elif ratio < 0:
        yield f"sampling_ratio is {ratio}, allowed is 0 (as many as the box asks for) or more"
    for label, default, allowed in (
        ("mode", "avg", ("avg", "max")),
        ("coordinate_transformation_mode", "half_pixel", ("half_pixel", "output_half_pixel")),
    ):
        value = _attribute(node, label, default)
        if value not in allowed:
            yield f"{label} is {value!r}, allowed are {', '.join(allowed)}"
    shape = graph.shapes.get(node.input[1])
    if shape is not None and (len(shape) != 2 or shape[1] != 4):
        yield f"the boxes have shape {_shape(shape)}, allowed is (any, 4). Slice or reshape them with constants"


def _rotary_embedding(graph: _Graph, node: NodeProto) -> Iterator[str]:
    element = graph.types.get(_input(node, 3), _INT64)
    if element != _INT64:
        yield f"position_ids are {_type(element)}, allowed is int64"


def _scatter_nd(graph: _Graph, node: NodeProto) -> Iterator[str]:
    reduction = _attribute(node, "reduction", "none")
    if reduction != "none":
        yield f"reduction is {reduction!r}, allowed is none. Use ScatterElements, or a matrix product"


def _squeeze(graph: _Graph, node: NodeProto) -> Iterator[str]:
    shape = graph.shapes.get(node.input[0])
    if not _input(node, 1) and _attribute(node, "axes", None) is None and (shape is None or None in shape):
        yield f"has no axes for shape {_shape(shape)}, allowed is that with known sizes only. Name the axes"
    yield from _fixed_input(1, "axes")(graph, node)


def _stft(graph: _Graph, node: NodeProto) -> Iterator[str]:
    yield from _initializer_input(1, "frame_step")(graph, node)
    yield from _initializer_input(2, "window")(graph, node)


def _tensor_scatter(graph: _Graph, node: NodeProto) -> Iterator[str]:
    ranks = {graph.rank(node.input[0]), graph.rank(node.input[1])} - {4, None}
    if ranks or _attribute(node, "axis", -2) != -2:
        yield f"has rank {ranks or 4} and axis {_attribute(node, 'axis', -2)}, allowed are rank 4 and axis -2"


def _topk(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if not _attribute(node, "sorted", 1):
        yield "sorted is 0, allowed is 1. Ask for sorted values"
    shape, axis = graph.shapes.get(node.input[0]), _attribute(node, "axis", -1)
    size = shape[axis] if shape else None
    if shape and len(shape) - axis % len(shape) > 4:
        yield f"axis {axis} of rank {len(shape)}, allowed are the last four. Transpose before"
    if size is not None and size <= TOPK_MOST:
        return
    most = _most(graph, _input(node, 1))
    if most is None:
        yield f"K has no bound that can be seen, allowed is {TOPK_MOST} at most. Make it a constant, or Min with one"
    elif most > TOPK_MOST:
        yield f"K is {most}, allowed is {TOPK_MOST} at most. Split the axis and take the TopK of the parts' TopK"


def _most(graph: _Graph, name: str) -> int | None:
    """The largest value an integer can have, where a constant says so."""
    value = graph.value(name)
    if value is not None:
        return int(value.max()) if value.size else None
    maker = graph.makers.get(name)
    if maker is None:
        return None
    if maker.op_type == "Min":
        bounds = [b for b in (_most(graph, n) for n in maker.input) if b is not None]
        return min(bounds, default=None)
    if maker.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        return _most(graph, maker.input[0])
    if maker.op_type == "Clip" and _input(maker, 2):
        return _most(graph, maker.input[2])
    return None


def _shape(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


_CHECKS: dict[str, _Check] = {
    "Attention": _attention,
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    "BatchNormalization": _batch_normalization,
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    "Constant": _constant_node,
    "CumSum": _fixed_input(1, "axis"),
    "DeformConv": _deform_conv,
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _zero_point),
    "Dropout": _dropout,
    "Einsum": _einsum,
    "EyeLike": _eye_like,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "Hardmax": _hardmax,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "NonMaxSuppression": _non_max_suppression,
    "OneHot": _fixed_input(1, "depth"),
    **dict.fromkeys((name for name in _TABLE if name.startswith("Reduce")), _initializer_input(1, "axes")),
    "Resize": _resize,
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    "RoiAlign": _roi_align,
    "RotaryEmbedding": _rotary_embedding,
    "STFT": _stft,
    "ScatterND": _scatter_nd,
    "Squeeze": _squeeze,
    "TensorScatter": _tensor_scatter,
    "TopK": _topk,
    "Unsqueeze": _fixed_input(1, "axes"),
}
