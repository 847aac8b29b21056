"""A graph of two layers, small enough to run in every backend: y = relu(x w + b)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgfast.doctor.findings import Skipped
from fgfast.errors import install_command
from fgfast.graphs import Contract, Port, constructor
from fgfast.writing import Target, write_file


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
        import onnx.parser
    except ModuleNotFoundError:
        raise Skipped(f"writing a graph needs onnx: {install_command('export')}") from None
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        two_layers (float[{rows}, 64] x) => (float[{rows}, 32] y) {{
            z = Gemm (x, w, b)
            y = Relu (z)
        }}
    """)
    for name, values in zip("wb", parameters(), strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = folder / f"two_layers-{rows}.onnx"
    write_file(Target.file(path), model.SerializeToString())
    return path, two_layers(rows)


def parameters() -> tuple[Any, Any]:
    """The layer's weights: w (64, 32) and b (32,), float32."""
    numbers = np.random.default_rng(0)
    return numbers.standard_normal((64, 32)).astype(np.float32), numbers.standard_normal(32).astype(np.float32)
