"""The choice of a backend: TensorRT, ONNX Runtime or PyTorch, by what can be used here and what is faster."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from fgfast import methods
from fgfast.errors import GraphError, UsageError, runtime_command
from fgfast.methods import BackendName, ModelSpec
from fgfast.models.files.graph_files import Exported
from fgfast.models.serving import forms, speed
from fgfast.models.serving.speed import Trial

# The backends of exported graphs.
_EXPORTED: tuple[BackendName, ...] = ("tensorrt", "onnxruntime")
_UNKNOWN = "there are exported graphs; a run measures first which backend is faster"


def choose_backend(specs: Sequence[ModelSpec], asked: str, measure: bool = True) -> tuple[BackendName, str]:
    """Return the fastest backend that can compute all models for "auto"; check any other backend.

    Args:
        specs: the models of a run, on one device in one precision, except that where the segmenter is quantised the
            detector is not; their own backend is ignored.
        asked: "auto", "torch", "onnxruntime" or "tensorrt".
        measure: whether to measure which one is faster where that is unknown; this takes minutes.

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
    usable: list[BackendName] = []
    refused = ""
    for backend in _EXPORTED:
        try:
            check([replace(spec, backend=backend) for spec in specs])
            usable.append(backend)
        except (UsageError, GraphError) as error:
            refused = str(error)
    if not usable:
        return "torch", f"no exported graphs to run ({refused})"
    return fastest_backend(specs, measure) if specs[0].device == "cpu" else _fastest_on_gpu(specs, usable, measure)


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
        command = runtime_command(gpu=backend == "tensorrt" or device != "cpu")
        raise UsageError(f"{backend} is not installed: {command}")
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
        batch = found.manifest.contract.inputs[0].shape[0]
        detects = methods.method(spec.name).kind == "detector"
        more = f" --canvas {found.canvas.height}x{found.canvas.width}" if detects else ""
        more += " --calibrate DATASET" if spec.precision in methods.QUANTISED else ""
        raise UsageError(
            f"TensorRT has no engine of {found.path.name} for {spec.device} that was built here ({error}): fgfast "
            f"export {spec.name} --precision {found.manifest.precision} --batch {batch}{more} --backend tensorrt"
        ) from error


def _fastest_on_gpu(
    specs: Sequence[ModelSpec], usable: Sequence[BackendName], measure: bool
) -> tuple[BackendName, str]:
    """Return the fastest of PyTorch, in its best forms, and the usable backends of exported graphs, with the figures.

    Each is measured in a process of its own. One that fails there is not taken, and the reason says why.
    """
    totals: dict[BackendName, float] = {}
    refused: list[str] = []
    for backend in ("torch", *usable):
        try:
            trials = [_trial(replace(spec, backend=backend), measure) for spec in specs]
        except UsageError as error:
            refused.append(f"{backend} cannot be used here ({error})")
            continue
        if any(trial is None for trial in trials):
            return "torch", _UNKNOWN
        failed = [trial.failed for trial in trials if trial is not None and trial.failed]
        if failed:
            refused.append(f"{backend} cannot be used here ({failed[0]})")
        else:
            totals[backend] = sum(trial.seconds for trial in trials if trial is not None)
    if not totals:
        raise UsageError(f"no backend can compute the models on {specs[0].device}: {'; '.join(refused)}")
    return min(totals, key=lambda backend: totals[backend]), "; ".join([_figures(totals), *refused])


def _trial(spec: ModelSpec, measure: bool) -> Trial | None:
    """Return the seconds per image of a model on a GPU in one backend; None where they are not known."""
    if spec.backend != "torch":
        return speed.tried(spec, f"{spec.backend} {_digest(spec)}", measure=measure, again=measure)
    form = forms.choose(spec, measure)
    if form.seconds is not None:
        return Trial(form.seconds)
    return speed.tried(replace(spec, form=form.name), f"torch {form.name}", measure=measure, again=measure)


def _digest(spec: ModelSpec) -> str:
    """Return what identifies the graph in which a model spends its time."""
    return next(iter(_graphs(spec)[0].manifest.files.values()))[:16]


def _figures(seconds: Mapping[BackendName, float]) -> str:
    figures = ", ".join(f"{name} {s:.2f} s" if s >= 0.1 else f"{name} {1e3 * s:.3g} ms" for name, s in seconds.items())
    return f"measured on this machine: {figures} per image"


def fastest_backend(specs: Sequence[ModelSpec], measure: bool = True) -> tuple[BackendName, str]:
    """Return PyTorch or ONNX Runtime for exported models on a CPU, and the figures; see choose_backend."""
    order: tuple[BackendName, ...] = ("torch", "onnxruntime")
    total = dict.fromkeys(order, 0.0)
    for backend in order:
        for spec in (replace(spec, backend=backend) for spec in specs):
            key = f"{spec.name} {spec.precision} {_digest(spec)}"
            seconds = speed.remembered(key, spec.device, backend, partial(_seconds, spec) if measure else None)
            if seconds is None:
                return "torch", _UNKNOWN
            total[backend] += seconds * speed.share(spec)
    return min(order, key=lambda backend: total[backend]), _figures(total)


def _seconds(spec: ModelSpec) -> float:
    """Return the seconds per image of the session that dominates the model's time."""
    session = methods.resolve(methods.method(spec.name).timed)(spec)
    seconds = speed.seconds_of(session) / speed.images_of(session)
    session.close()
    return seconds
