"""Exported graphs: which of the files on disk a model uses, and their sessions. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from fgfast.backends.session import Session
from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
from fgfast.models.files.graph_files import Exported, find, folder, identity
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import Fixed, FixedCanvases
from fgfast.records import Size


def exported_canvases(spec: ModelSpec, graphs_for: Callable[[ModelSpec], list[Exported]]) -> FixedCanvases:
    """A detector's exported graphs on their canvases.

    Args:
        spec: of the detector.
        graphs_for: finds its graphs, see `graphs_of`.
    """

    def fixed(images: int) -> dict[Size, Fixed]:
        found = graphs_for(replace(spec, batch=images))
        return {e.canvas: Fixed(e.manifest.contract, partial(load, e, spec)) for e in found}

    return FixedCanvases(fixed, spec.batch or default_batch(spec.device), spec.device)


def graphs_of(spec: ModelSpec, graph: str, needed: Sequence[Size]) -> list[Exported]:
    """The graphs of a detector that a run loads, one per canvas. Without an engine of TensorRT, where it is to run
    them, graphs are left out, unless that leaves none.

    Args:
        spec: of the detector.
        graph: one of fgfast.graphs.GRAPHS.
        needed: sizes of images that some canvas must hold, in pixels.

    Raises:
        UsageError: there is none, or there are images that no canvas holds; the message says what to type.
    """
    by_canvas: dict[Size, list[Exported]] = {}
    for one in reversed(with_engine(exported(spec, graph), spec)):
        by_canvas.setdefault(one.canvas, []).append(one)
    for height, width in needed:
        if not any(canvas.height >= height and canvas.width >= width for canvas in by_canvas):
            raise UsageError(
                f"{spec.name} is exported for {sorted(map(tuple, by_canvas))} only, which does not hold every image: "
                f"fgfast export {spec.name} --precision {spec.precision} --canvas {height}x{width}"
            )
    batch = spec.batch or default_batch(spec.device)
    return [of_batch(found, batch) for found in by_canvas.values()]


def of_batch(found: Sequence[Exported], batch: int) -> Exported:
    """Of one graph, exported for several batches, the one for a batch: one that takes any number, unless one takes
    just as many; else the largest that is full; else the smallest there is.

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
    """Those that TensorRT can load, where it is to; all of them, if it can load none, so that loading says why."""
    if spec.backend != "tensorrt":
        return found
    from fgfast.backends.tensorrt_engine import engine_path

    return [e for e in found if engine_path(e.path, e.manifest, spec.device).is_file()] or found


def exported(spec: ModelSpec, graph: str) -> list[Exported]:
    """The graphs of a model that may be used: complete, and with today's contract; those of the smallest batch first.

    Raises:
        UsageError: there are none; the message says why, and what to type.
    """
    where = folder(spec.name, identity(spec.name, spec.weights), spec.precision)
    every = find(graph, where)
    found = [e for e in every if not e.manifest.outdated]
    if not found:
        why = f"{graph} is not in {where}"
        if every:
            why = f"{every[0].path.name} {every[0].manifest.outdated}; export it again"
        command = f"fgfast export {spec.name} --precision {spec.precision}"
        raise UsageError(f"{spec.name} is not exported for {spec.precision} ({why}): {command}")
    return sorted(found, key=lambda e: str(e.manifest.contract.inputs[0].shape[0]).zfill(9))


def load(found: Exported, spec: ModelSpec) -> Session:
    """A session of an exported graph, whose files are verified first.

    Raises:
        GraphError: a file changed since the export, or the backend cannot load it.
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
    raise UsageError(f"no backend {spec.backend!r} for exported graphs; there are onnxruntime and tensorrt")
