"""Checks of what runs graphs: ONNX Runtime's providers, TensorRT, and the graphs that were exported here."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.doctor.checks import NotHere, two_layers, two_layers_numbers, workplace
from fgfast.errors import GraphError
from fgfast.graphs import Contract, Manifest

# As for a product of matrices: no TensorFloat-32, which would be off by 1e-2.
_LARGEST = 1e-4
# Free sizes that a made-up run takes; within what engines are built for.
_SIZES = {"batch": 1, "images": 1, "pairs": 2, "classes": 3, "text": 4}
# BERT's token ids of "[CLS] bird . [SEP]", for graphs that read text.
_TOKENS = (101, 4743, 1012, 102)


def onnxruntime(provider: str) -> str:
    """Two layers in one of ONNX Runtime's providers."""
    _needs("onnxruntime", "torch")
    from fgfast.backends.onnxruntime import PROVIDERS, OnnxRuntimeSession, available

    if PROVIDERS[provider] not in available():
        raise NotHere(f"this ONNX Runtime has no {PROVIDERS[provider]}")
    with workplace() as folder:
        path, contract = two_layers(Path(folder))
        session = OnnxRuntimeSession(path, contract, "cpu" if provider == "cpu" else _gpu(), provider)
        x = _x()
        y = session.run({"x": x.to(session.device)})["y"].cpu()
        session.close()
    return f"two layers, off by {_difference(y, _two_layers({'x': x})['y']):.1g}"


def tensorrt() -> str:
    """Two layers through everything that a model goes through: built, checked, recorded, loaded again."""
    _needs("tensorrt", "torch")
    from fgfast.backends import tensorrt as backend

    version = backend.version()
    device = _gpu()
    import torch

    from fgfast.export import tensorrt as export
    from fgfast.tolerances import Tolerance
    from fgfast.transfer import digest_of

    tolerances = {"numbers": Tolerance(_LARGEST, _LARGEST, "a product of 64 float32 numbers")}
    x = _x()
    largest, recorded = 0.0, False
    # Once with a size that varies, once with fixed ones, which are recorded as a CUDA graph.
    for rows in ("batch", len(x)):
        with workplace() as folder:
            path, contract = two_layers(Path(folder), rows)
            manifest = Manifest(contract, "two_layers", "random:0", "fp32", 20, {}, {path.name: digest_of(path)})
            cases = [("two layers", {"x": x})]
            engine = export.engine(path, contract, manifest, _two_layers, cases, tolerances, device)
            session = backend.TensorRtSession(engine, contract, device)
            session.prepare({"batch": len(x)})
            y = session.run({"x": x.to(session.device)})["y"].cpu()
            recorded = session.recorded
            session.close()
        largest = max(largest, _difference(y, _two_layers({"x": x})["y"]))
    how = "and recorded as a CUDA graph" if recorded else "but not recorded as a CUDA graph (-v says why)"
    name = torch.cuda.get_device_name(device)
    return f"{version} on {name}: two layers twice built, off by {largest:.1g}, {how}"


def exported(file: Path) -> str:
    """An exported graph or engine: its files are what was checked, and it runs on made-up inputs."""
    _needs("torch")
    manifest = Manifest.read(file.with_suffix(".json"))
    inputs = made_up(manifest.contract)
    if file.suffix == ".engine":
        _needs("tensorrt")
        from fgfast.backends.tensorrt import TensorRtSession
        from fgfast.backends.tensorrt_engine import gpu_name, version

        built, here = (manifest.code.get("gpu"), manifest.code.get("tensorrt")), (gpu_name(_gpu()), version())
        if built != here:
            raise NotHere(f"built for {built[0]} and TensorRT {built[1]}, here are {here[0]} and {here[1]}")
        return _run(TensorRtSession(file, manifest.contract, _gpu()), inputs, "TensorRT")
    _needs("onnxruntime")
    from fgfast.backends.onnxruntime import OnnxRuntimeSession, available
    from fgfast.models.files.graph_files import Exported

    Exported(file, manifest).verify()
    if "CUDAExecutionProvider" in available() and _has_gpu():
        return _run(OnnxRuntimeSession(file, manifest.contract, _gpu()), inputs, "ONNX Runtime on the GPU")
    if manifest.precision == "bf16":
        raise NotHere("ONNX Runtime computes bf16 on GPUs only; the files are what was checked")
    return _run(OnnxRuntimeSession(file, manifest.contract, "cpu"), inputs, "ONNX Runtime on the CPU")


def made_up(contract: Contract) -> dict[str, Any]:
    """Inputs that a graph can be run on, tensors on the CPU. What comes out means nothing."""
    import torch

    numbers = np.random.default_rng(0)
    shapes = {p.name: tuple(_SIZES[d] if isinstance(d, str) else d for d in p.shape) for p in contract.inputs}
    inputs: dict[str, Any] = {}
    for port in contract.inputs:
        shape = shapes[port.name]
        values: Any
        if port.name == "sizes":
            height_width = shapes["pixels"][1:3] if "pixels" in shapes else [8 * n for n in shapes["p3"][2:]]
            values = np.broadcast_to(np.array(height_width), shape)
        elif port.name == "input_ids":
            values = np.resize(np.array(_TOKENS), shape)
        elif port.dtype == "uint8":
            values = numbers.integers(0, 256, shape)
        elif port.dtype == "int64":
            values = np.zeros(shape)
        elif port.name in ("boxes", "proposals"):
            corners = numbers.random((*shape[:-1], 2)) * 100
            values = np.concatenate((corners, corners + 20 + numbers.random(corners.shape) * 100), -1)
        else:
            values = numbers.random(shape) * 0.1
        inputs[port.name] = torch.from_numpy(np.array(values)).to(getattr(torch, port.dtype))
    return inputs


def _run(session: Any, inputs: Mapping[str, Any], where: str) -> str:
    start = time.perf_counter()
    outputs = session.run({name: tensor.to(session.device) for name, tensor in inputs.items()})
    outputs = {name: tensor.cpu().float() for name, tensor in outputs.items()}
    seconds = time.perf_counter() - start
    session.close()
    for name, tensor in outputs.items():
        # Stability is not a number where there is no mask, which made-up embeddings may well give.
        if name != "stability" and bool(tensor.isnan().all()):
            raise GraphError(f"{name} is not a number; export the model again")
    return f"its files are what was checked; one run takes {seconds:.2g} s in {where}"


def _needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise NotHere(f"{package} is not installed")


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _gpu() -> str:
    if not _has_gpu():
        raise NotHere("torch sees no GPU")
    return "cuda:0"


def _x() -> Any:
    import torch

    return torch.from_numpy(np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32))


def _two_layers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What two layers give, in float64."""
    import torch

    w, b = (torch.from_numpy(n).double() for n in two_layers_numbers())
    return {"y": torch.relu(inputs["x"].double() @ w + b)}


def _difference(found: Any, wanted: Any) -> float:
    largest = float((found.double() - wanted).abs().max())
    if not largest <= _LARGEST:
        raise GraphError(f"two layers are off by {largest:.2g}, {_LARGEST} would be allowed")
    return largest
