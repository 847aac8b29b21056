"""Does what is here work? Each check is a line: ok, failed, or not here, with the reason."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.doctor import one_line, stores

# Packages take seconds to import on a slow disk; a hanging driver takes for ever.
_IMPORT_SECONDS = 300
# Largest difference allowed in a product of 64 float32 numbers of order 1: rounding gives 1e-6, TensorFloat-32 1e-2.
_PRODUCT = 1e-4


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: of what was tried.
        state: "ok", "failed" or "not here".
        detail: what was measured, or why not.
        seconds: how long it took.
    """

    name: str
    state: str
    detail: str
    seconds: float


class NotWorking(Exception):  # noqa: N818 - one_line tells it without its name
    """Something that is here does not work; says how, and what to do."""


class NotHere(Exception):  # noqa: N818 - it is no error
    """There is nothing to check; says why."""


def run(facts: dict[str, Any]) -> Iterator[Check]:
    """Try everything that `fgfast.doctor.examine` found, one check after the other."""
    for name, attempt in _attempts(facts):
        start = time.perf_counter()
        try:
            state, detail = "ok", attempt()
        except NotHere as reason:
            state, detail = "not here", str(reason)
        except Exception as error:  # whatever a broken package raises
            state, detail = "failed", one_line(error)
        yield Check(name, state, detail, round(time.perf_counter() - start, 3))


def _attempts(facts: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    from fgfast.doctor import engines

    packages = facts["packages"]
    for module, found in packages.items():
        if isinstance(found, dict) and found.get("version"):
            yield f"import {module}", partial(_import, module)
    yield "native engine", _native
    for device in ("cpu", *(f"cuda:{n}" for n in range(len(facts["gpus"].get("torch", {}).get("found") or ())))):
        yield f"torch on {device}", partial(_matmul, device)
    for provider in ("cpu", "cuda", "tensorrt"):
        yield f"ONNX Runtime, {provider}", partial(engines.onnxruntime, provider)
    yield "TensorRT", engines.tensorrt
    for row in facts["weights"] if isinstance(facts["weights"], list) else ():
        if row["path"]:
            yield f"weights {row['name']}", partial(_weights, row["name"])
    for row in facts["graphs"] if isinstance(facts["graphs"], list) else ():
        yield f"{row['kind']} {row['path']}", partial(engines.exported, stores.graph_folder() / row["path"])


def _import(module: str) -> str:
    """In a process of its own: a broken library can end the process that loads it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        capture_output=True,
        text=True,
        timeout=_IMPORT_SECONDS,
        check=False,
    )
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotWorking(told[-1] if told else f"the process ended with {done.returncode}")
    return ""


def _native() -> str:
    import importlib.util

    if importlib.util.find_spec("fgfast._native") is None:
        raise NotHere("fgfast was installed without a C++17 compiler")
    from fgfast.ops import native, reference

    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (64, 48, 3), np.uint8)
    bits = numbers.random((64, 48)) < 0.5
    background = np.array([1, 2, 3], np.uint8)
    if not np.array_equal(native.composite(pixels, bits, background), reference.composite(pixels, bits, background)):
        raise NotWorking("its images differ from the reference's; install fgfast anew")
    if native.rle_encode(bits) != reference.rle_encode(bits):
        raise NotWorking("its run-length codes differ from the reference's; install fgfast anew")
    return "the same bytes as the NumPy reference"


def _matmul(device: str) -> str:
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise NotHere("torch is not installed")
    import torch

    numbers = np.random.default_rng(0)
    a, b = numbers.standard_normal((2, 64, 64))
    found = torch.from_numpy(a).float().to(device) @ torch.from_numpy(b).float().to(device)
    largest = float(np.abs(found.cpu().numpy() - a @ b).max())
    if not largest <= _PRODUCT:
        raise NotWorking(f"a product of matrices is off by {largest:.2g}, {_PRODUCT} would be allowed")
    return f"a product of matrices, off by {largest:.1g}"


def _weights(name: str) -> str:
    from fgfast.models.files import weights

    found = weights.verify(name)
    return f"hashed, {found.digest} digest"


def workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder for graphs made up for a check."""
    return tempfile.TemporaryDirectory(prefix="fgfast-doctor-")


def two_layers(folder: Path, rows: int | str = "batch") -> tuple[Path, Any]:
    """A tiny graph, y = relu(x w + b), as ONNX, and its contract: x (rows, 64) to y (rows, 32), float32.

    Raises:
        NotHere: onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise NotHere('needs onnx to write a graph: pip install "fgfast[export]"') from None
    from fgfast.graphs import Contract, Port

    contract = Contract(
        "two_layers",
        (Port("x", "float32", (rows, 64), "anything"),),
        (Port("y", "float32", (rows, 32), "relu(x w + b)", "numbers"),),
    )
    make, real, (w, b) = onnx.helper, onnx.TensorProto.FLOAT, two_layers_numbers()
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


def two_layers_numbers() -> tuple[Any, Any]:
    """w (64, 32) and b (32,), float32."""
    numbers = np.random.default_rng(0)
    return numbers.standard_normal((64, 32)).astype(np.float32), numbers.standard_normal(32).astype(np.float32)
