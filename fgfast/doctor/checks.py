"""Checks whether what is installed works. Each check ends as one line: ok, failed or skipped, with the reason."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fgfast import processes
from fgfast.doctor import backends, stores
from fgfast.doctor.findings import Check, NotWorking, Skipped, one_line

# Packages take seconds to import from a slow disk; a driver that hangs never returns.
_IMPORT_SECONDS = 300
# Largest difference allowed in a product of 64 float32 numbers of order 1: rounding gives 1e-6, TensorFloat-32 1e-2.
_PRODUCT = 1e-4


def run(facts: dict[str, Any]) -> Iterator[Check]:
    """Run the checks of everything that `fgfast.doctor.examine` found, one by one."""
    for name, attempt in _attempts(facts):
        start = time.perf_counter()
        try:
            state, detail = "ok", attempt()
        except Skipped as reason:
            state, detail = "skipped", str(reason)
        except Exception as error:  # whatever a broken package raises
            state, detail = "failed", one_line(error)
        yield Check(name, state, detail, round(time.perf_counter() - start, 3))


def _attempts(facts: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    packages = facts["packages"]
    for module, found in packages.items():
        if isinstance(found, dict) and found.get("version"):
            yield f"import {module}", partial(_import, module)
    yield "native ops", _native
    for device in ("cpu", *(f"cuda:{n}" for n in range(len(facts["gpus"].get("torch", {}).get("found") or ())))):
        yield f"torch on {device}", partial(_matmul, device)
    for provider in ("cpu", "cuda", "tensorrt"):
        yield f"ONNX Runtime, {provider}", partial(backends.onnxruntime, provider)
    yield "TensorRT", backends.tensorrt
    for row in facts["weights"] if isinstance(facts["weights"], list) else ():
        if row["path"]:
            yield f"weights {row['name']}", partial(_weights, row["name"])
    for row in facts["graphs"] if isinstance(facts["graphs"], list) else ():
        yield f"{row['kind']} {row['path']}", partial(backends.exported, stores.graph_folder() / row["path"])


def _import(module: str) -> str:
    """Import a package in a process of its own, because a broken library can end the process that loads it."""
    done = processes.run_python(f"import {module}", _IMPORT_SECONDS)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotWorking(lines[-1] if lines else f"the process ended with {done.returncode}")
    return ""


def _native() -> str:
    if importlib.util.find_spec("fgfast._native") is None:
        raise Skipped("fgfast was installed without a C++17 compiler")
    from fgfast.ops import native, reference

    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (64, 48, 3), np.uint8)
    bits = numbers.random((64, 48)) < 0.5
    background = np.array([1, 2, 3], np.uint8)
    if not np.array_equal(native.composite(pixels, bits, background), reference.composite(pixels, bits, background)):
        raise NotWorking("the native ops give other images than the reference; reinstall fgfast")
    if native.rle_encode(bits) != reference.rle_encode(bits):
        raise NotWorking("the native ops give other run-length codes than the reference; reinstall fgfast")
    return "the native ops give the same bytes as the NumPy reference"


def _matmul(device: str) -> str:
    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch is not installed")
    import torch

    from fgfast.backends.torch_flags import set_flags

    set_flags()
    numbers = np.random.default_rng(0)
    a, b = numbers.standard_normal((2, 64, 64))
    found = torch.from_numpy(a).float().to(device) @ torch.from_numpy(b).float().to(device)
    largest = float(np.abs(found.cpu().numpy() - a @ b).max())
    if not largest <= _PRODUCT:
        raise NotWorking(f"a matrix product is off by {largest:.2g}; {_PRODUCT} is allowed")
    return f"a matrix product is off by {largest:.1g}"


def _weights(name: str) -> str:
    from fgfast.models.files import weights

    digest = weights.verify(name).digest
    if digest == "published":
        return "the published SHA-256 matches"
    return "not pinned: no SHA-256 is published; it has the one that it had when it was first seen here"
