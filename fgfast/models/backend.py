"""Which backend computes the models: TensorRT, ONNX Runtime or PyTorch, by what is installed, exported and checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Literal, cast

from fgfast.errors import GraphError, UsageError
from fgfast.models.build import Precision
from fgfast.models.graph_files import Exported

BackendName = Literal["torch", "onnxruntime", "tensorrt"]
# Which graph tells whether a model is exported.
_GRAPHS = {
    "detic": ("detic_detector",),
    "grounding_dino_tiny": ("grounding_dino",),
    "grounding_dino_base": ("grounding_dino",),
}
_SAM_GRAPHS = ("sam_image_encoder", "sam_mask_decoder")


def choose_backend(
    asked: str, models: Sequence[str], weights: str, precision: Precision, device: str
) -> tuple[BackendName, str]:
    """ "auto" becomes the best one that can compute all models; anything else is checked.

    Args:
        asked: "auto", "torch", "onnxruntime" or "tensorrt".
        models: those that the run uses, "detic", "sam_vit_l", ...
        weights: "cached", "random:SEED" or a file.
        precision: chosen.
        device: chosen.

    Returns:
        The backend, and why in a few words.

    Raises:
        UsageError: what is asked for cannot be had; says what to do.
    """
    if asked == "torch":
        return "torch", "as asked"
    if asked != "auto":
        check(asked, models, weights, precision, device)
        return cast(BackendName, asked), "as asked"
    refused = ""
    order: tuple[BackendName, ...] = ("tensorrt", "onnxruntime")
    for backend in order:
        try:
            check(backend, models, weights, precision, device)
        except (UsageError, GraphError) as error:
            refused = str(error)
            continue
        if device == "cpu":
            best, figures = fastest_backend(tuple(models), weights, precision, device)
            return cast(BackendName, best), figures
        return backend, "installed, exported and checked"
    return "torch", f"no exported graphs to run ({refused})" if refused else "no exported graphs to run"


def check(backend: str, models: Sequence[str], weights: str, precision: Precision, device: str) -> None:
    """Raise unless `backend` can compute all models here; arguments as for `choose_backend`."""
    if importlib.util.find_spec(backend) is None:
        extra = "cpu" if backend == "onnxruntime" and device == "cpu" else "gpu"
        raise UsageError(f"{backend} is not installed: pip install 'fgfast[{extra}]'")
    if backend == "tensorrt" and not device.startswith("cuda"):
        raise UsageError(f"TensorRT needs an NVIDIA GPU; the device is {device}")
    if backend == "onnxruntime":
        from fgfast.backends.onnxruntime import check_provider

        check_provider(device)
    from fgfast.models import sessions
    from fgfast.models.graph_files import folder, identity

    for model in models:
        where = folder(model, identity(model, weights), precision)
        for graph in _GRAPHS.get(model, _SAM_GRAPHS):
            for found in sessions.exported(model, graph, where, precision):
                if backend == "tensorrt":
                    _check_engine(model, found, device)


def _check_engine(model: str, found: Exported, device: str) -> None:
    """Raise unless the engine of an exported graph was built and checked on this GPU."""
    from fgfast.backends.tensorrt_engine import engine_path, manifest_of

    path = engine_path(found.path, found.manifest, device)
    if not manifest_of(path).is_file():
        precision = found.manifest.precision
        raise UsageError(
            f"TensorRT's engine of {found.path.name} was not built for {device}: "
            f"fgfast export {model} --precision {precision} --backend tensorrt"
        )


def fastest_backend(models: tuple[str, ...], weights: str, precision: Precision, device: str) -> tuple[str, str]:
    """PyTorch or ONNX Runtime for models that are exported; the figures as a sentence. Arguments as above."""
    from fgfast.models import graph_files, speed

    total = dict.fromkeys(("torch", "onnxruntime"), 0.0)
    for backend, name in product(total, models):
        key = f"{name} {graph_files.identity(name, weights)} {precision}"
        total[backend] += speed.remembered(
            key, device, backend, partial(_seconds, name, weights, precision, device, backend)
        )
    best = min(total, key=lambda backend: total[backend])
    told = ", ".join(f"{backend} {seconds:.2f} s" for backend, seconds in total.items())
    return best, f"measured on this machine: {told} a picture"


def _seconds(model: str, weights: str, precision: Precision, device: str, backend: str) -> float:
    """Of SAM's encoder, in which SAM spends its time; of a detector on a canvas that it is exported for."""
    from fgfast.models import sessions, speed
    from fgfast.models.graph_files import folder, identity

    if model == "detic":
        canvases = sessions.detic(weights, precision, device, backend)
        ((session, _),) = canvases.share([sessions.LARGEST])
    elif model in _GRAPHS:
        where = folder(model, identity(model, weights), precision)
        canvas = sessions.canvas_of(sessions.exported(model, *_GRAPHS[model], where, precision)[0])
        ((session, _),) = sessions.grounding_dino(model, weights, precision, device, backend).share([canvas])
    else:
        session = sessions.sam(model, weights, precision, device, backend).encoder
    seconds = speed.seconds_of(session)
    session.close()
    return seconds
