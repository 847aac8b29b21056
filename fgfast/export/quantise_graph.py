"""Writes QuantizeLinear and DequantizeLinear around the inputs and weights of a graph's linear layers.

TensorRT finds the pattern x -> Q -> DQ -> Gemm <- DQ <- weight, and computes the product in 8 bits (its documentation,
"Explicit Quantization"). The weights are stored in 8 bits. The types of a layer follow from its scales and zero points,
as TensorRT's importer reads them (onnx/onnx-tensorrt, onnxOpImporters.cpp, QuantDequantLinearHelper): a quantiser gives
its zero point's type, a dequantiser its scale's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from fgfast.errors import GraphError
from fgfast.export.quantise_scales import Half, LayerScales, quantise

_DTYPES = {"fp8": ml_dtypes.float8_e4m3fn, "int8": np.int8}
# As fgfast.export.trace stores weights: larger ones beside the graph.
_OUTSIDE_BYTES = 1 << 16


def insert(
    path: Path, target: Path, layers: Mapping[str, nn.Linear], scales: Mapping[str, LayerScales], precision: str
) -> None:
    """Write the quantised form of a graph.

    Args:
        path: of the ONNX file in float16.
        target: of the new file; its weights are written beside it, into the same name with ".data".
        layers: in float32; the initializer "NAME.weight" of the graph is the weight of layer NAME.
        scales: of the layers.
        precision: "fp8" or "int8".

    Raises:
        GraphError: a layer is not in the graph as one Gemm with its weight, or reads an input of another type.
    """
    model = ir.load(path)
    graph = model.graph
    gemms = {node.inputs[1].name: node for node in graph if node.op_type == "Gemm" and node.inputs[1] is not None}
    for name, layer in layers.items():
        gemm = gemms.get(f"{name}.weight")
        if gemm is None or not gemm.attributes.get_int("transB", 0) or len(gemm.inputs[1].uses()) != 1:
            raise GraphError(f"{path.name} has no Gemm of its own for {name}, which cannot be quantised")
        _quantise_input(graph, gemm, name, scales[name].inputs, precision)
        weight = quantise(layer.weight.detach(), scales[name].weights, precision)
        _quantise_weight(graph, gemm, weight, scales[name].weights, precision)
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=_OUTSIDE_BYTES)


def _quantise_input(graph: ir.Graph, gemm: ir.Node, name: str, scale: Half, precision: str) -> None:
    x = gemm.inputs[0]
    constants = _constants(graph, f"{name}.input", scale, _DTYPES[precision])
    narrow = ir.node("QuantizeLinear", [x, *constants], name=f"{name}.quantize")
    wide = ir.node("DequantizeLinear", [narrow.outputs[0], *constants], name=f"{name}.dequantize")
    narrow.outputs[0].name, wide.outputs[0].name = f"{name}.input_quantized", f"{name}.input_dequantized"
    graph.insert_before(gemm, (narrow, wide))
    gemm.replace_input_with(0, wide.outputs[0])


def _quantise_weight(graph: ir.Graph, gemm: ir.Node, weight: Tensor, scales: Half, precision: str) -> None:
    old = gemm.inputs[1]
    assert old is not None and old.name is not None
    dtype = _DTYPES[precision]
    stored = weight.contiguous().view(torch.uint8).numpy().view(dtype)  # NumPy has no float8 of its own
    narrow = _initializer(graph, f"{old.name}_quantized", stored)
    # The axis counts only where each output has a scale; it is that of the outputs.
    constants = _constants(graph, old.name, scales, dtype)
    wide = ir.node("DequantizeLinear", [narrow, *constants], {"axis": 0}, name=f"{old.name}.dequantize")
    wide.outputs[0].name = f"{old.name}_dequantized"
    graph.insert_before(gemm, (wide,))
    gemm.replace_input_with(1, wide.outputs[0])
    del graph.initializers[old.name]


def _constants(graph: ir.Graph, name: str, scale: Half, dtype: type) -> tuple[ir.Value, ir.Value]:
    """The scale and the zero point, which has the scale's shape and says what the quantised type is."""
    zero: np.ndarray = np.zeros(scale.shape, dtype)
    return _initializer(graph, f"{name}_scale", scale), _initializer(graph, f"{name}_zero", zero)


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
