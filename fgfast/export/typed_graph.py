"""An ONNX graph with the inferred shapes and types of its values, for the lint."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

# Initializers of this size and above are never read, wherever they are stored.
_INLINE_BYTES = 1 << 16


class TypedGraph:
    """A graph with what is known about its values; read-only.

    Args:
        model: may be loaded without its external data; it is not changed.

    Attributes:
        nodes: in the file's order.
        inputs: names.
        types: element type of every tensor, by name.
        shapes: sizes of every tensor whose rank is known, by name; None for a size that is not known.
        constants: initializers, by name.
        makers: the node that computes a value, by the value's name.

    Raises:
        onnx.shape_inference.InferenceError: shapes or types contradict each other.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
        self.nodes = list(graph.node)
        self.inputs = [value.name for value in graph.input]
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.types: dict[str, int] = {name: tensor.data_type for name, tensor in self.constants.items()}
        self.shapes: dict[str, tuple[int | None, ...]] = {n: tuple(t.dims) for n, t in self.constants.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type:
                self.types.setdefault(value.name, tensor_type.elem_type)
            if tensor_type.HasField("shape"):
                sizes = (d.dim_value if d.HasField("dim_value") else None for d in tensor_type.shape.dim)
                self.shapes.setdefault(value.name, tuple(sizes))

    def value(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a small constant; None for a large one and for anything else."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)

    def rank(self, name: str) -> int | None:
        """The number of axes of a value; None where it is not known."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, or `default` where the node does not have it; bytes become str."""
    for found in node.attribute:
        if found.name == name:
            value = onnx.helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default


def input_name(node: NodeProto, position: int) -> str:
    """The name of an input; empty where it is not given."""
    return node.input[position] if position < len(node.input) else ""


def node_name(node: NodeProto) -> str:
    """The name of a node, or of its first output where the node has none."""
    return node.name or next(filter(None, node.output), node.op_type)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without its large initializers: inference would copy them, and fails above 2 GiB."""
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
