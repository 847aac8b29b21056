"""Finds the arithmetic on int64 numbers of any size in a graph.

A number is bounded if it is a constant, a size, a position, a bool or an int32, if it was clamped with Clip, or if it
is computed from bounded numbers. Inputs of the graph are not bounded, nor are computed floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto

from fgfast.export.typed_graph import TypedGraph, input_name, node_name

_WIDE_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64})
# Their results can exceed the range of int32.
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "CumSum", "ReduceSum", "ReduceMean", "ReduceL2"})
# Their int64 outputs are sizes and positions, bounded by the tensors they count.
_COUNTING = frozenset({"Shape", "NonMaxSuppression"})
# They pass on floating-point numbers unchanged or rounded.
_PASSING = frozenset(
    [
        *("Cast", "Ceil", "Concat", "Expand", "Floor", "Gather", "GatherElements", "Max", "Min", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    ]
)


def unbounded(graph: TypedGraph, data: Mapping[str, tuple[int, ...] | None]) -> dict[str, str]:
    """Name of a node that calculates with an int64 of any size -> name of that value.

    Args:
        graph: its nodes are in the order in which they run.
        data: operator -> positions of its inputs that carry data, None for all; other operators are ignored.
    """
    bounded, found = set(graph.constants), {}
    for node in graph.nodes:
        if node.op_type not in data:
            continue
        positions = data[node.op_type]
        given = list(node.input) if positions is None else [input_name(node, p) for p in positions]
        if node.op_type == "Clip":
            given = [input_name(node, p) or node.input[0] for p in (1, 2)]
        loose = [n for n in given if n and n not in bounded and graph.types.get(n) in _WIDE_TYPES]
        int64 = [name for name in node.output if graph.types.get(name) == TensorProto.INT64]
        if node.op_type in _COUNTING or not loose:
            bounded.update(node.output if node.op_type in _PASSING | {"Clip"} else int64)
        elif node.op_type == "TopK":
            bounded.add(node.output[1])
        elif node.op_type in _ARITHMETIC and int64:
            found[node_name(node)] = loose[0]
            bounded.update(int64)  # reported once, not at everything that follows
    return found
