"""The choice of a backend: TensorRT, ONNX Runtime or PyTorch, by what is installed, exported and checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fgfast import methods
from fgfast.errors import GraphError, UsageError, install_command
from fgfast.methods import BackendName, ModelSpec
from fgfast.models.files.graph_files import Exported


def choose_backend(specs: Sequence[ModelSpec], asked: str, measure: bool = True) -> tuple[BackendName, str]:
    """Return the best backend that can compute all models for "auto"; check any other backend.

    Args:
        specs: the models of a run, on one device in one precision, except that where the segmenter is quantised the
            detector is not; their own backend is ignored.
        asked: "auto", "torch", "onnxruntime" or "tensorrt".
        measure: whether to measure, on a CPU, which one is faster where that is unknown; this takes a minute.

    Returns:
        The backend and the reason in a few words.

    Raises:
        UsageError: the backend cannot be used; the message says what to do.
    """
    if quantised := [spec.precision for spec in specs if spec.precision in methods.QUANTISED]:
        return _only_tensorrt(specs, asked, quantised[0])
    for backend in methods.BACKENDS:
        if asked == backend:
            check([replace(spec, backend=backend) for spec in specs])
            return backend, "as requested"
    refused = ""
    for backend in ("tensorrt", "onnxruntime"):
        try:
            check([replace(spec, backend=backend) for spec in specs])
            if specs[0].device == "cpu":
                return fastest_backend(specs, measure)
            return backend, "installed, exported and checked"
        except (UsageError, GraphError) as error:
            refused = str(error)
    return "torch", f"no exported graphs to run ({refused})"


def _only_tensorrt(specs: Sequence[ModelSpec], asked: str, precision: str) -> tuple[BackendName, str]:
    """Return TensorRT, which alone runs quantised graphs; no other backend takes its place where it cannot be used."""
    if asked not in ("auto", "tensorrt"):
        raise UsageError(f"--precision {precision} runs in TensorRT only: use --backend tensorrt, or --precision fp16")
    check([replace(spec, backend="tensorrt") for spec in specs])
    return "tensorrt", f"the only one that runs {precision}"


def check(specs: Sequence[ModelSpec]) -> None:
    """Raise unless the specs' backend can compute all of them on this machine."""
    backend, device, precision = specs[0].backend, specs[0].device, specs[0].precision
    if backend == "torch":
        return
    if importlib.util.find_spec(backend) is None:
        extra = "cpu" if backend == "onnxruntime" and device == "cpu" else "gpu"
        raise UsageError(f"{backend} is not installed: {install_command(extra)}")
    if backend == "tensorrt" and not device.startswith("cuda"):
        raise UsageError(f"TensorRT needs an NVIDIA GPU; the device is {device}")
    if backend == "onnxruntime":
        from fgfast.backends.onnxruntime import check_provider

        check_provider(device)
        if precision == "bf16" and device == "cpu":
            raise UsageError("ONNX Runtime computes bf16 on GPUs only: use --precision fp32 or --backend torch")
    for spec in specs:
        for found in _graphs(spec):
            found.verify()
            if backend == "tensorrt":
                _check_engine(spec, found)


def _graphs(spec: ModelSpec) -> list[Exported]:
    """Return the exported graphs that a run of the model loads; raises UsageError where one is missing."""
    return methods.resolve(methods.method(spec.name).graphs)(spec)


def _check_engine(spec: ModelSpec, found: Exported) -> None:
    """Raise unless the engine of an exported graph was built and checked on this GPU, by this user."""
    from fgfast.backends.tensorrt_engine import built_here, engine_path

    path = engine_path(found.path, found.manifest, spec.device)
    try:
        built_here(path, found.manifest.contract, spec.device)
    except GraphError as error:
        shape = found.manifest.contract.inputs[0].shape
        more = f" --canvas {shape[1]}x{shape[2]}" if methods.method(spec.name).kind == "detector" else ""
        more += " --calibrate DATASET" if spec.precision in methods.QUANTISED else ""
        raise UsageError(
            f"TensorRT has no engine of {found.path.name} for {spec.device} that was built here ({error}): fgfast "
            f"export {spec.name} --precision {found.manifest.precision} --batch {shape[0]}{more} --backend tensorrt"
        ) from error


def fastest_backend(specs: Sequence[ModelSpec], measure: bool = True) -> tuple[BackendName, str]:
    """Return PyTorch or ONNX Runtime for exported models, and the figures; for the arguments see choose_backend."""
    from fgfast.models.serving import speed

    order: tuple[BackendName, ...] = ("torch", "onnxruntime")
    total = dict.fromkeys(order, 0.0)
    for backend in order:
        for spec in (replace(spec, backend=backend) for spec in specs):
            files = _graphs(spec)[0].manifest.files
            key = f"{spec.name} {spec.precision} {next(iter(files.values()))[:16]}"
            seconds = speed.remembered(key, spec.device, backend, partial(_seconds, spec) if measure else None)
            if seconds is None:
                return "torch", "there are exported graphs; a run measures first which backend is faster"
            total[backend] += seconds
    figures = ", ".join(f"{backend} {seconds:.2f} s" for backend, seconds in total.items())
    return min(order, key=lambda backend: total[backend]), f"measured on this machine: {figures} per image"


def _seconds(spec: ModelSpec) -> float:
    """Return the seconds of one run of the session that dominates the model's time."""
    from fgfast.models.serving import speed

    session = methods.resolve(methods.method(spec.name).timed)(spec)
    seconds = speed.seconds_of(session)
    session.close()
    return seconds
