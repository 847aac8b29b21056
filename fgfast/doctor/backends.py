"""Checks of ONNX Runtime's providers, of TensorRT, and of the exported graphs in the cache."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgfast import processes
from fgfast.backends.manifest import Manifest
from fgfast.doctor import two_layers
from fgfast.doctor.findings import Skipped
from fgfast.errors import GraphError, RecordingFailedError
from fgfast.graphs import Contract
from fgfast.writing import scratch_folder

# Largest difference allowed in a product of 64 float32 numbers; TensorFloat-32 would be off by 1e-2.
_LARGEST = 1e-4
# TensorRT takes seconds to start and to build two layers; a driver that hangs never returns.
_BUILD_SECONDS = 600
# The values of free sizes that graphs are run with, within the spans that engines are built for.
_SIZES = {"batch": 1, "images": 1, "pairs": 2, "classes": 3, "text": 4}
# BERT's token ids of "[CLS] bird . [SEP]", for graphs that read text.
_TOKENS = (101, 4743, 1012, 102)


def onnxruntime(provider: str) -> str:
    """Run the two layers in one of ONNX Runtime's providers."""
    _needs("onnxruntime", "torch")
    from fgfast.backends.onnxruntime import PROVIDERS, OnnxRuntimeSession, available

    if PROVIDERS[provider] not in available():
        raise Skipped(f"this ONNX Runtime has no {PROVIDERS[provider]}")
    with scratch_folder("fgfast-doctor-") as folder:
        path, contract = two_layers.write(folder)
        session = OnnxRuntimeSession(path, contract, "cpu" if provider == "cpu" else _gpu(), provider)
        x = _x()
        y = session.run({"x": x.to(session.device)})["y"].cpu()
        session.close()
    return f"two layers are off by {_difference(y, _reference({'x': x})['y']):.1g}"


def tensorrt() -> str:
    """Run the two layers through every step of a model: build, parity check, recording, loading.

    In a process of its own, because a recording that fails damages its process; without one where it fails.
    """
    _needs("tensorrt", "torch")
    device = _gpu()
    try:
        return _apart(device, record=True)
    except RecordingFailedError as error:
        return f"{_apart(device, record=False)}, unrecorded: {error}"


def _apart(device: str, record: bool) -> str:
    with processes.Child() as child:
        return str(child.call(f"{__name__}:tensorrt_here", device, record, seconds=_BUILD_SECONDS))


def tensorrt_here(device: str, record: bool) -> str:
    """Check TensorRT in this process; with `record` once with fixed sizes, which are recorded as a CUDA graph.

    Raises:
        RecordingFailedError: the process must end.
    """
    from fgfast.backends import tensorrt as backend

    version = backend.version()
    import torch

    from fgfast.export import check
    from fgfast.export import tensorrt as export
    from fgfast.tolerances import Tolerance
    from fgfast.transfer import digest_of

    tolerances = {"numbers": Tolerance(_LARGEST, _LARGEST, "a product of 64 float32 numbers")}
    x = _x()
    largest, recorded = 0.0, False
    for rows in ("batch", len(x)) if record else ("batch",):
        with scratch_folder("fgfast-doctor-") as folder:
            path, contract = two_layers.write(folder, rows)
            manifest = Manifest(contract, "two_layers", "random:0", "fp32", 20, {}, {path.name: digest_of(path)})

            def parity(run: check.Run, how: str, contract: Contract = contract) -> list[dict[str, Any]]:
                cases = [(f"two layers{how}", {"x": x})]
                return check.compare(contract, run, _reference, cases, tolerances)

            engine = export.engine(path, manifest, parity, device)
            session = backend.TensorRtSession(engine, contract, device)
            session.prepare({"batch": len(x)})
            y = session.run({"x": x.to(session.device)})["y"].cpu()
            recorded = session.recorded
            session.close()
        largest = max(largest, _difference(y, _reference({"x": x})["y"]))
    built = f"{version} on {torch.cuda.get_device_name(device)}: two layers, built here, are off by {largest:.1g}"
    if not record:
        return built
    return f"{built}, {'recorded as a CUDA graph' if recorded else 'unrecorded (-v says why)'}"


def exported(file: Path) -> str:
    """Verify an exported graph or engine against its manifest, and run it once on random inputs."""
    _needs("torch")
    manifest = Manifest.read(file.with_suffix(".json"))
    if manifest.outdated:
        raise GraphError(f"{file.name} {manifest.outdated}; export the model again")
    inputs = random_inputs(manifest.contract)
    if file.suffix == ".engine":
        _needs("tensorrt")
        from fgfast.backends.tensorrt import TensorRtSession
        from fgfast.backends.tensorrt_engine import gpu_name, version

        built, here = (manifest.code.get("gpu"), manifest.code.get("tensorrt")), (gpu_name(_gpu()), version())
        if built != here:
            raise Skipped(f"built for {built[0]} and TensorRT {built[1]}; this is {here[0]} and {here[1]}")
        return _run(TensorRtSession(file, manifest.contract, _gpu()), inputs, "TensorRT")
    _needs("onnxruntime")
    from fgfast.backends.onnxruntime import OnnxRuntimeSession, available
    from fgfast.models.files.graph_files import Exported

    Exported(file, manifest).verify()
    if "CUDAExecutionProvider" in available() and _has_gpu():
        return _run(OnnxRuntimeSession(file, manifest.contract, _gpu()), inputs, "ONNX Runtime on the GPU")
    if manifest.precision == "bf16":
        raise Skipped("ONNX Runtime computes bf16 on GPUs only; the files match their manifest")
    return _run(OnnxRuntimeSession(file, manifest.contract, "cpu"), inputs, "ONNX Runtime on the CPU")


def random_inputs(contract: Contract) -> dict[str, Any]:
    """Random inputs with a graph's shapes and dtypes, tensors on the CPU. The outputs have no meaning."""
    import torch

    numbers = np.random.default_rng(0)
    shapes = {p.name: tuple(_SIZES.get(d, 1) if isinstance(d, str) else d for d in p.shape) for p in contract.inputs}
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
        # Stability is NaN where there is no mask, as random embeddings may yield.
        if name != "stability" and bool(tensor.isnan().all()):
            raise GraphError(f"{name} is NaN everywhere; export the model again")
    return f"the files match their manifest; one run takes {seconds:.2g} s in {where}"


def _needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise Skipped(f"{package} is not installed")


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _gpu() -> str:
    if not _has_gpu():
        raise Skipped("torch sees no GPU")
    return "cuda:0"


def _x() -> Any:
    """The two layers' input, (3, 64) float32."""
    import torch

    return torch.from_numpy(np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32))


def _reference(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The two layers computed in float64."""
    import torch

    w, b = (torch.from_numpy(n).double() for n in two_layers.parameters())
    return {"y": torch.relu(inputs["x"].double() @ w + b)}


def _difference(found: Any, expected: Any) -> float:
    largest = float((found.double() - expected).abs().max())
    if not largest <= _LARGEST:
        raise GraphError(f"two layers are off by {largest:.2g}; {_LARGEST} is allowed")
    return largest
