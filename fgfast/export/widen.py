"""Half-precision graphs for machines without half-precision kernels: the same roundings, computed in float32.

The result is for parity checks only and is never deployed. ONNX Runtime's CPU provider has no kernels for bfloat16 and
few for float16, but it casts to and from both. `widen` rewrites a graph so that each half tensor becomes float32 and
holds only numbers that the half type has: what an operator computes is rounded to the half type and back before
anything reads it. Within an operator (a matrix product, GELU, the softmax of attention) everything is float32, as it
is in the registers of a GPU. GPUs still differ in the order of sums, and in the probabilities of fused attention, which
they round before they multiply them with the values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from fgfast.errors import GraphError
from fgfast.writing import Target, remove

_HALVES = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
# Operators that only move, repeat or select numbers: their results need no rounding.
_MOVERS = frozenset(
    [
        *("Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements"),
        *("GatherND", "Identity", "Max", "MaxPool", "Min", "Pad", "Relu", "Reshape", "ScatterElements", "ScatterND"),
        *("Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"),
    ]
)
# Attributes that name the type of an output, and those that name a type within the operator.
_OUTPUT_TYPES, _INNER_TYPES = ("to", "dtype", "output_dtype"), ("softmax_precision", "stash_type")


def widen(path: Path, target: Path) -> Path:
    """Write the widened form of a graph; its inputs and outputs keep their types.

    Args:
        path: of the ONNX file.
        target: of the new file; its weights are written beside it, into the same name with ".data".

    Returns:
        `target`.

    Raises:
        GraphError: an operator rounds to half precision within, or the graph has functions or control flow.
    """
    model = ir.load(path)
    kinds = _kinds(path)
    graph = model.graph
    if model.functions or any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in _attributes(graph)):
        raise GraphError(f"{path.name} has functions or control flow; only plain graphs can be widened")
    for value in graph.initializers.values():
        if value.dtype in _HALVES:
            value.const_value, value.dtype = _widened(value.const_value), ir.DataType.FLOAT
    for node in tuple(graph):
        _widen_node(graph, node, kinds)
    for value in graph.inputs:
        if value.dtype in _HALVES:
            _insert(graph, value, None, (ir.DataType.FLOAT,))
    for n, value in enumerate(graph.outputs):
        kind = kinds[value.name or ""]
        if kind in _HALVES:
            narrow = ir.node("Cast", [value], {"to": kind})
            graph.append(narrow)
            out = narrow.outputs[0]
            out.name, value.name = value.name, f"{value.name}_wide"
            out.dtype, out.shape = kind, value.shape
            graph.outputs[n] = out
    remove(Target(target.parent, f"{target.name}.data"))
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=1 << 10)
    return target


def _widen_node(graph: ir.Graph, node: ir.Node, kinds: dict[str, ir.DataType]) -> None:
    for attribute in tuple(node.attributes.values()):
        if attribute.name in _OUTPUT_TYPES and attribute.value in _HALVES:
            node.attributes.add(ir.AttrInt64(attribute.name, ir.DataType.FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _HALVES:
            node.attributes.add(ir.AttrTensor(attribute.name, _widened(attribute.value)))
    produced = {kinds[value.name] for value in node.outputs if value.name} & set(_HALVES)
    inner = [a for a in _INNER_TYPES if a in node.attributes and node.attributes[a].value in _HALVES]
    # Without the attribute, softmax is taken in the precision of the inputs.
    if inner or (node.op_type == "Attention" and produced and "softmax_precision" not in node.attributes):
        raise GraphError(f"{node.op_type} {node.name} rounds to half precision within and cannot be widened")
    for value in node.outputs:
        kind = kinds.get(value.name or "")
        if kind not in _HALVES or kind is None:
            continue
        value.dtype = ir.DataType.FLOAT
        if node.op_type not in _MOVERS:
            _insert(graph, value, node, (kind, ir.DataType.FLOAT))


def _insert(graph: ir.Graph, value: ir.Value, after: ir.Node | None, kinds: tuple[ir.DataType, ...]) -> None:
    """Insert casts between a value and all its readers, after a node or at the beginning of the graph."""
    readers = tuple(value.uses())
    given, casts, last = value.is_graph_output(), [], value
    for kind in kinds:
        casts.append(ir.node("Cast", [last], {"to": kind}))
        last = casts[-1].outputs[0]
        last.dtype, last.shape = kind, value.shape
    for reader, position in readers:
        reader.replace_input_with(position, last)
    if given:
        last.name, value.name = value.name, f"{value.name}_exact"
        for n, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[n] = last
    if after is None:
        graph.insert_before(graph[0], casts)
    else:
        graph.insert_after(after, casts)


def _widened(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol:
    """The same numbers in float32, made when they are written, so that they are never all in memory."""
    assert tensor is not None
    return ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
    )


def _kinds(path: Path) -> dict[str, ir.DataType]:
    """The element type of every value that is passed between operators, by name."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model(str(path), load_external_data=False), strict_mode=True)
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: ir.DataType(value.type.tensor_type.elem_type) for value in values}


def _attributes(graph: ir.Graph) -> list[ir.Attr]:
    return [attribute for node in graph for attribute in node.attributes.values()]
