"""Which backend computes the models: TensorRT, ONNX Runtime or PyTorch, by what is installed, exported and checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Literal, cast

from fgfast.errors import GraphError, UsageError
from fgfast.models.files.checkpoints import Precision
from fgfast.models.files.graph_files import Exported

BackendName = Literal["torch", "onnxruntime", "tensorrt"]


def choose_backend(
    asked: str,
    models: Sequence[str],
    weights: str,
    precision: Precision,
    device: str,
    measure: bool = True,
    batch: int | None = None,
) -> tuple[BackendName, str]:
    """ "auto" becomes the best one that can compute all models; anything else is checked.

    Args:
        asked: "auto", "torch", "onnxruntime" or "tensorrt".
        models: those that the run uses, "detic", "sam_vit_l", ...
        weights: "cached", "random:SEED" or a file.
        precision: chosen.
        device: chosen.
        measure: on a CPU, find out which one is faster where nobody knows yet, which takes a minute.
        batch: most images per batch; None: as many as suit the device.

    Returns:
        The backend, and why in a few words.

    Raises:
        UsageError: what is asked for cannot be had; says what to do.
    """
    if asked == "torch":
        return "torch", "as asked"
    if asked != "auto":
        check(asked, models, weights, precision, device, batch)
        return cast(BackendName, asked), "as asked"
    refused = ""
    order: tuple[BackendName, ...] = ("tensorrt", "onnxruntime")
    for backend in order:
        try:
            check(backend, models, weights, precision, device, batch)
            if device == "cpu":
                best, figures = fastest_backend(tuple(models), weights, precision, device, measure)
                return cast(BackendName, best), figures
            return backend, "installed, exported and checked"
        except (UsageError, GraphError) as error:
            refused = str(error)
    return "torch", f"no exported graphs to run ({refused})" if refused else "no exported graphs to run"


def check(
    backend: str, models: Sequence[str], weights: str, precision: Precision, device: str, batch: int | None = None
) -> None:
    """Raise unless `backend` can compute all models here; arguments as for `choose_backend`."""
    if importlib.util.find_spec(backend) is None:
        extra = "cpu" if backend == "onnxruntime" and device == "cpu" else "gpu"
        raise UsageError(f"{backend} is not installed: pip install 'fgfast[{extra}]'")
    if backend == "tensorrt" and not device.startswith("cuda"):
        raise UsageError(f"TensorRT needs an NVIDIA GPU; the device is {device}")
    if backend == "onnxruntime":
        from fgfast.backends.onnxruntime import check_provider

        check_provider(device)
        if precision == "bf16" and device == "cpu":
            raise UsageError("ONNX Runtime computes bf16 on GPUs only: take --precision fp32, or --backend torch")
    from fgfast.models.serving import exported as sessions
    from fgfast.models.serving.batches import default_batch

    for model in models:
        for found in sessions.graphs_of(model, weights, precision, batch or default_batch(device), backend, device):
            found.verify()
            if backend == "tensorrt":
                _check_engine(model, found, device)


def _check_engine(model: str, found: Exported, device: str) -> None:
    """Raise unless the engine of an exported graph was built and checked on this GPU."""
    from fgfast.backends.tensorrt_engine import engine_path, manifest_of

    path = engine_path(found.path, found.manifest, device)
    if not (path.is_file() and manifest_of(path).is_file()):
        shape = found.manifest.contract.inputs[0].shape
        canvas = "" if model.startswith("sam_") else f" --canvas {shape[1]}x{shape[2]}"
        raise UsageError(
            f"TensorRT's engine of {found.path.name} was not built for {device}: fgfast export {model} "
            f"--precision {found.manifest.precision} --batch {shape[0]}{canvas} --backend tensorrt"
        )


def fastest_backend(
    models: tuple[str, ...], weights: str, precision: Precision, device: str, measure: bool = True
) -> tuple[str, str]:
    """PyTorch or ONNX Runtime for models that are exported; the figures as a sentence. Arguments as above."""
    from fgfast.models.serving import exported as sessions
    from fgfast.models.serving import speed

    total = dict.fromkeys(("torch", "onnxruntime"), 0.0)
    for backend, name in product(total, models):
        files = sessions.graphs_of(name, weights, precision)[0].manifest.files
        key = f"{name} {precision} {next(iter(files.values()))[:16]}"
        work = partial(_seconds, name, weights, precision, device, backend) if measure else None
        seconds = speed.remembered(key, device, backend, work)
        if seconds is None:
            return "torch", "exported graphs are here; which one is faster is measured when a run begins"
        total[backend] += seconds
    best = min(total, key=lambda backend: total[backend])
    told = ", ".join(f"{backend} {seconds:.2f} s" for backend, seconds in total.items())
    return best, f"measured on this machine: {told} per image"


def _seconds(model: str, weights: str, precision: Precision, device: str, backend: str) -> float:
    """Of SAM's encoder, in which SAM spends its time; of a detector on a canvas that it is exported for."""
    from fgfast.models.serving import exported as sessions
    from fgfast.models.serving import speed

    if model == "detic":
        canvases = sessions.detic(weights, precision, device, backend)
        ((session, _),) = canvases.share([sessions.LARGEST])
    elif model.startswith("grounding_dino"):
        canvas = sessions.canvas_of(sessions.graphs_of(model, weights, precision)[0])
        ((session, _),) = sessions.grounding_dino(model, weights, precision, device, backend).share([canvas])
    else:
        session = sessions.sam(model, weights, precision, device, backend).encoder
    seconds = speed.seconds_of(session)
    session.close()
    return seconds
