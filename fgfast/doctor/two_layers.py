"""A graph of two layers, small enough to run in every backend: y = relu(x w + b)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgfast.doctor.findings import Skipped
from fgfast.graphs import Contract, Port, constructor


@constructor
def two_layers(rows: int | str = "batch") -> Contract:
    """The graph's contract: x (rows, 64) float32 to y (rows, 32) float32.

    Args:
        rows: a number, or a word where it may vary.
    """
    return Contract(
        "two_layers",
        (Port("x", "float32", (rows, 64), "any numbers"),),
        (Port("y", "float32", (rows, 32), "relu(x w + b)", "numbers"),),
    )


def write(folder: Path, rows: int | str = "batch") -> tuple[Path, Contract]:
    """Write the graph as ONNX; returns the file and its contract.

    Raises:
        Skipped: onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise Skipped('writing a graph needs onnx: pip install "fgfast[export]"') from None
    contract = two_layers(rows)
    make, real, (w, b) = onnx.helper, onnx.TensorProto.FLOAT, parameters()
    graph = make.make_graph(
        [make.make_node("Gemm", ["x", "w", "b"], ["z"]), make.make_node("Relu", ["z"], ["y"])],
        contract.graph,
        [make.make_tensor_value_info("x", real, (rows, 64))],
        [make.make_tensor_value_info("y", real, (rows, 32))],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")],
    )
    path = folder / f"two_layers-{rows}.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), str(path))
    return path, contract


def parameters() -> tuple[Any, Any]:
    """The layer's weights: w (64, 32) and b (32,), float32."""
    numbers = np.random.default_rng(0)
    return numbers.standard_normal((64, 32)).astype(np.float32), numbers.standard_normal(32).astype(np.float32)
