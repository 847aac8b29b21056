"""TensorRT's restrictions on operators beyond the types of their inputs; fgfast.export.lint names the sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from onnx import NodeProto, TensorProto

from fgfast.export.typed_graph import TypedGraph, attribute, input_name

TOPK_MOST = 3840
NMS_MOST = 5000
"""Pairs of box and class, best scores first, that INMSLayer considers per image."""

QUANTISED_TYPES = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.INT8})

# Each check yields messages: what was found, what is allowed, what to do.
Check = Callable[[TypedGraph, NodeProto], Iterator[str]]


def type_name(element: int | None) -> str:
    """ "float16" for TensorProto.FLOAT16."""
    return "unknown" if element is None else TensorProto.DataType.Name(element).lower()


def named(elements: Iterable[int]) -> str:
    """The names of element types in a sentence."""
    return ", ".join(sorted(type_name(e) for e in elements))


def _attention(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    for position, label in enumerate(("Q", "K", "V", "attn_mask")):
        rank = graph.rank(input_name(node, position))
        if rank not in (4, None):
            yield f"{label} has rank {rank}, and must have 4. Reshape it to (batch, heads, tokens, size)"
    if any(node.input[4:]):
        yield "past_key, past_value or nonpad_kv_seqlen is given, which TensorRT does not take. Concatenate outside"
    if any(node.output[1:]):
        yield f"there are {len(node.output)} outputs, and only the first is allowed. Do not ask for the others"
    for label in ("softcap", "qk_matmul_output_mode"):
        if attribute(node, label, 0):
            yield f"{label} is {attribute(node, label, 0)}, and must be 0. Write attention with MatMul and Softmax"
    mask = input_name(node, 3)
    if mask and graph.types.get(mask) not in (TensorProto.BOOL, graph.types.get(node.input[0]), None):
        yield f"attn_mask is {type_name(graph.types[mask])}, and must be bool or of the type of Q. Cast it"
    heads = [shape[-1] for shape in map(graph.shapes.get, node.input[:3]) if shape]
    if len({size for size in heads if size is not None}) > 1:
        yield f"Q, K and V have heads of size {heads}, and must have one size. Pad the smaller with zeros"
    sizes, queries, keys = (graph.shapes.get(input_name(node, p)) for p in (3, 0, 1))
    if sizes and queries and keys and len(sizes) == len(queries) == len(keys) == 4:
        for axis, wanted, label in ((2, queries[2], "queries"), (3, keys[2], "keys")):
            if sizes[axis] == 1 and wanted != 1:
                count = wanted or "any number of"
                yield f"attn_mask has size 1 for {count} {label}; only batch and heads are broadcast. Expand it"


def _constant_input(position: int, label: str) -> Check:
    """A check that an input is a constant of the file."""

    def check(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
        name = input_name(node, position)
        if name and name not in graph.constants:
            yield f"{label} is computed at run time ({name}), and must be a constant. Fix it in the model"

    return check


def _gemm(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    for label in ("alpha", "beta"):
        value = attribute(node, label, 1.0)
        if value != 1 and graph.types.get(node.input[0]) != TensorProto.FLOAT:
            element = type_name(graph.types.get(node.input[0]))
            yield f"{label} is {value:g} with {element}, and must be 1 there: the importer takes float32. Scale after"


def _grid_sample(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    rank = graph.rank(node.input[0])
    if rank not in (4, None):
        yield f"the input has rank {rank}, and must have 4. Sample plane by plane"
    mode = attribute(node, "mode", None)
    if mode not in (None, "nearest", "bilinear", "bicubic"):
        yield (
            f"mode is written as {mode!r}, a name of opset 20 that the importer does not know and takes for nearest; "
            "nearest is allowed, or no attribute at all, which means linear. Remove it"
        )


def _layer_normalization(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    if any(node.output[1:]):
        yield f"there are {len(node.output)} outputs, and only the first is allowed. Compute mean and deviation apart"


def _non_max_suppression(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    for position, label in enumerate(("boxes", "scores")):
        rank = graph.rank(node.input[position])
        if rank not in (3, None):
            yield f"the {label} have rank {rank}, and must have 3. Unsqueeze them"
    if input_name(node, 2) not in graph.constants:
        yield "max_output_boxes_per_class is computed or absent, and must be a constant: it bounds memory. Fix it"
    scores = graph.shapes.get(node.input[1])
    if scores and len(scores) == 3 and None not in scores[1:]:
        pairs = math.prod(size or 0 for size in scores[1:])
        if pairs > NMS_MOST:
            yield f"there are {pairs} pairs of class and box; TensorRT ignores those beyond {NMS_MOST}. TopK before"


def _quantisation(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    """QuantizeLinear and DequantizeLinear: symmetric, constant, and per channel only on weights in int8."""
    label, scale, zero = node.input[0], input_name(node, 1), input_name(node, 2)
    for role, name in (("scale", scale), ("zero point", zero)):
        if name not in graph.constants:
            yield f"the {role} of {label} is computed or absent, and must be a constant: it gives the type. Fix it"
    value, offset = graph.value(scale), graph.value(zero)
    if value is not None and not (value.astype("float32") > 0).all():
        yield f"the scale of {label} is not positive everywhere, and must be. Take the least positive number instead"
    if offset is not None and offset.astype("float32").any():
        yield f"the zero point of {label} is not 0, and must be: quantisation is symmetric. Quantise around 0"
    quantised = graph.types.get(zero)
    if quantised not in QUANTISED_TYPES:
        yield f"{label} is quantised to {type_name(quantised)}; {named(QUANTISED_TYPES)} are allowed"
    if (shape := graph.shapes.get(scale)) and math.prod(size or 0 for size in shape) != 1:
        if quantised != TensorProto.INT8 or label not in graph.constants:
            yield f"{label} has a scale of shape {_shape(shape)}; only weights in int8 may have more than one. Use one"
        elif len(shape) != 1 or shape[0] != (graph.shapes.get(label) or (None,))[attribute(node, "axis", 1)]:
            yield f"{label} has a scale of shape {_shape(shape)}, and must have one per row of its axis"


def _resize(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    transforms = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
    known: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("mode", "nearest", ("nearest", "linear")),
        ("coordinate_transformation_mode", "half_pixel", transforms),
        ("nearest_mode", "round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        ("keep_aspect_ratio_policy", "stretch", ("stretch",)),
        ("antialias", 0, (0,)),
    )
    for label, default, allowed in known:
        value = attribute(node, label, default)
        if value not in allowed:
            advice = "Resample with MatMul by fixed weights" if label in ("antialias", "mode") else "Resize another way"
            yield f"{label} is {value!r}; allowed are {', '.join(map(str, allowed))}. {advice}"
    axes, rank = list(attribute(node, "axes", [])), graph.rank(node.input[0])
    if axes and input_name(node, 2) and axes != list(range(rank or 0)):
        yield f"axes are {axes} with scales; only all axes in order are allowed. Give sizes, or scales for all axes"


def _squeeze(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    shape = graph.shapes.get(node.input[0])
    if not input_name(node, 1) and (shape is None or None in shape):
        yield f"there are no axes for shape {_shape(shape)}; that is allowed for known sizes only. Name the axes"
    yield from _constant_input(1, "axes")(graph, node)


def _topk(graph: TypedGraph, node: NodeProto) -> Iterator[str]:
    if not attribute(node, "sorted", 1):
        yield "sorted is 0, and must be 1. Ask for sorted values"
    shape, axis = graph.shapes.get(node.input[0]), attribute(node, "axis", -1)
    if shape and len(shape) - axis % len(shape) > 4:
        yield f"the axis is {axis} of rank {len(shape)}; only the last four are allowed. Transpose before"
    size, k = shape[axis] if shape else None, graph.value(node.input[1])
    if size is not None and size <= TOPK_MOST:
        return
    if k is None or not k.size:
        yield f"K is not a constant, and must be at most {TOPK_MOST}. Make it one"
    elif k.max() > TOPK_MOST:
        yield f"K is {k.max()}, and must be at most {TOPK_MOST}. Split the axis, and take the TopK of the parts' TopK"


def _shape(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


CHECKS: dict[str, Check] = {
    "Attention": _attention,
    "CumSum": _constant_input(1, "axis"),
    "Gemm": _gemm,
    "GridSample": _grid_sample,
    "LayerNormalization": _layer_normalization,
    "NonMaxSuppression": _non_max_suppression,
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _constant_input(1, "axes")),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantisation),
    "Resize": _resize,
    "Squeeze": _squeeze,
    "TopK": _topk,
    "Unsqueeze": _constant_input(1, "axes"),
}
