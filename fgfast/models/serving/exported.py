"""Exported graphs: the choice among the files on disk, and their sessions. Independent of any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from fgfast.backends.session import Session
from fgfast.errors import GraphError, UsageError
from fgfast.methods import QUANTISED, ModelSpec
from fgfast.models.files.graph_files import Exported, find, folder, identity
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import Fixed, FixedCanvases
from fgfast.records import Size


def exported_canvases(spec: ModelSpec, graphs_for: Callable[[ModelSpec], list[Exported]]) -> FixedCanvases:
    """Return a detector's exported graphs on their canvases.

    Args:
        spec: of the detector.
        graphs_for: finds its graphs, see `graphs_of`.
    """

    def fixed(images: int) -> dict[Size, Fixed]:
        found = graphs_for(replace(spec, batch=images))
        return {e.canvas: Fixed(e.manifest.contract, partial(load, e, spec)) for e in found}

    return FixedCanvases(fixed, spec.batch or default_batch(spec.device), spec.device)


def graphs_of(spec: ModelSpec, graph: str, needed: Sequence[Size]) -> list[Exported]:
    """Return the graphs of a detector that a run loads, one per canvas.

    For TensorRT, graphs without an engine are left out, unless that leaves none.

    Args:
        spec: of the detector.
        graph: one of fgfast.graphs.GRAPHS.
        needed: sizes of images that some canvas must hold, in pixels.

    Raises:
        UsageError: there is none, or some images fit on no canvas; the message gives the command to type.
    """
    by_canvas: dict[Size, list[Exported]] = {}
    for one in reversed(with_engine(exported(spec, graph), spec)):
        by_canvas.setdefault(one.canvas, []).append(one)
    for height, width in needed:
        if not any(canvas.height >= height and canvas.width >= width for canvas in by_canvas):
            raise UsageError(
                f"{spec.name} is exported for {sorted(map(tuple, by_canvas))} only, which does not hold every image: "
                f"{command(spec, Size(height, width))}"
            )
    batch = spec.batch or default_batch(spec.device)
    return [of_batch(found, batch) for found in by_canvas.values()]


def of_batch(found: Sequence[Exported], batch: int) -> Exported:
    """Return the best of several exports of one graph for a batch.

    An export for exactly this batch comes first, then one for any number, then the largest that the batch fills, then
    the smallest.

    Args:
        found: at least one.
        batch: images per call.
    """

    def images(e: Exported) -> int:
        takes = e.manifest.contract.inputs[0].shape[0]
        return takes if isinstance(takes, int) else batch

    full = [e for e in found if images(e) <= batch]
    return max(full, key=lambda e: (images(e), not e.manifest.contract.free)) if full else min(found, key=images)


def with_engine(found: list[Exported], spec: ModelSpec) -> list[Exported]:
    """Return the graphs with an engine that was built here, if the backend is TensorRT.

    All if none has one, so that loading reports it.
    """
    return found if spec.backend != "tensorrt" else [e for e in found if _has_engine(e, spec)] or found


def _has_engine(found: Exported, spec: ModelSpec) -> bool:
    from fgfast.backends.tensorrt_engine import built_here, engine_path

    try:
        built_here(engine_path(found.path, found.manifest, spec.device), found.manifest.contract, spec.device)
    except GraphError:
        return False
    return True


def exported(spec: ModelSpec, graph: str) -> list[Exported]:
    """Return the usable graphs of a model, complete and with today's contract, the smallest batch first.

    Raises:
        UsageError: there are none; the message gives the reason and the command to type.
    """
    where = folder(spec.name, identity(spec.name, spec.weights), spec.precision)
    every = find(graph, where)
    found = [e for e in every if not e.manifest.outdated]
    if not found:
        why = f"{graph} is not in {where}"
        if every:
            why = f"{every[0].path.name} {every[0].manifest.outdated}; export it again"
        raise UsageError(f"{spec.name} is not exported for {spec.precision} ({why}): {command(spec)}")
    return sorted(found, key=lambda e: str(e.manifest.contract.inputs[0].shape[0]).zfill(9))


def command(spec: ModelSpec, canvas: Size | None = None, *more: str) -> str:
    """Return the command that exports a model for the backend of a spec.

    Args:
        spec: of the model.
        canvas: for this canvas only, in pixels.
        more: further options.
    """
    options = [f"fgfast export {spec.name} --precision {spec.precision}"]
    if canvas is not None:
        options.append(f"--canvas {canvas.height}x{canvas.width}")
    if spec.precision in QUANTISED:
        options.append("--calibrate DATASET")
    if spec.backend == "tensorrt" or spec.precision in QUANTISED:
        options.append("--backend tensorrt")
        if spec.batch is not None:
            options.append(f"--batch {spec.batch}")
    return " ".join([*options, *more])


def load(found: Exported, spec: ModelSpec) -> Session:
    """Verify the files of an exported graph and return a session.

    Raises:
        GraphError: a file has changed since the export, or the backend cannot load it.
        UsageError: the backend is not installed.
    """
    found.verify()
    if spec.backend == "onnxruntime":
        from fgfast.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(found.path, found.manifest.contract, spec.device, threads=torch.get_num_threads())
    if spec.backend == "tensorrt":
        from fgfast.backends.tensorrt import TensorRtSession
        from fgfast.backends.tensorrt_engine import engine_path

        contract = found.manifest.contract
        engine = TensorRtSession(engine_path(found.path, found.manifest, spec.device), contract, spec.device)
        if not contract.free:
            engine.prepare()
        return engine
    raise UsageError(f"{spec.backend!r} cannot run exported graphs; the backends are onnxruntime and tensorrt")
