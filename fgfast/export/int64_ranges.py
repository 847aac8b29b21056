"""Which int64 numbers of a graph may be of any size, and are calculated with.

A number is open below or above where nothing bounds it. Numbers that enter the graph are open, and so are
floating-point numbers unless they were clamped. Constants, sizes, positions, bools and int32 are closed, and so is what
is made of closed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import NodeProto, TensorProto

from fgfast.export.typed_graph import TypedGraph, input_name, node_name

_OPEN_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64})
# Sums, products and what is made of them can leave the range of int32.
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "CumSum", "ReduceSum", "ReduceMean", "ReduceL2"})
# Their int64 outputs are sizes and positions, bounded by the tensors they count.
_COUNTING = frozenset({"Shape", "NonMaxSuppression"})
# They pass floating-point numbers on as they are, or rounded.
_PASSING = frozenset(
    [
        *("Cast", "Ceil", "Clip", "Concat", "Expand", "Floor", "Gather", "GatherElements", "Max", "Min", "Reshape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    ]
)
_OPEN = frozenset({"below", "above"})
_CLOSED: frozenset[str] = frozenset()


def unbounded(graph: TypedGraph, data: Mapping[str, tuple[int, ...] | None]) -> dict[str, str]:
    """Name of a node that calculates with an int64 that may be of any size -> name of that value.

    Args:
        graph: whose nodes are in the order of their work.
        data: operator -> positions of its inputs that carry data, None for all; other operators are passed over.
    """
    ends: dict[str, frozenset[str]] = dict.fromkeys(graph.inputs, _OPEN)
    found: dict[str, str] = {}

    def ends_of(name: str) -> frozenset[str]:
        bounded = not name or name in graph.constants or graph.types.get(name) not in _OPEN_TYPES
        return _CLOSED if bounded else ends.get(name, _OPEN)

    for node in graph.nodes:
        if node.op_type not in data:
            continue
        positions = data[node.op_type]
        given = list(node.input) if positions is None else [input_name(node, p) for p in positions]
        result = _ends(node, given, ends_of)
        wide = [name for name in node.output if graph.types.get(name) == TensorProto.INT64]
        if node.op_type in _ARITHMETIC and wide:
            culprits = [name for name in given if ends_of(name)]
            if culprits:
                found[node_name(node)] = culprits[0]
                result = _CLOSED  # reported once, not at everything that follows
        for position, name in enumerate(node.output):
            index_of_topk = node.op_type == "TopK" and position == 1
            carries = name in wide or node.op_type in _PASSING
            ends[name] = _CLOSED if index_of_topk else result if carries else _OPEN
    return found


def _ends(node: NodeProto, given: list[str], ends_of: Callable[[str], frozenset[str]]) -> frozenset[str]:
    """The open ends of what a node makes, if it makes int64 or passes floating-point numbers on."""
    ends = [ends_of(name) for name in given if name]
    if node.op_type in _COUNTING or not ends:
        return _CLOSED
    every, some = frozenset.intersection(*ends), frozenset.union(*ends)
    if node.op_type == "Clip":
        low, high = input_name(node, 1), input_name(node, 2)
        shut = {"below"} if low and "below" not in ends_of(low) else set()
        shut |= {"above"} if high and "above" not in ends_of(high) else set()
        return some - shut
    if node.op_type == "Min":
        return (some & {"below"}) | (every & {"above"})
    if node.op_type == "Max":
        return (every & {"below"}) | (some & {"above"})
    return some
