"""Models as sessions: in PyTorch, or from the graphs that were exported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fgfast import graphs
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import UsageError
from fgfast.models.detic.canvas import CANVAS_MULTIPLE
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.split import SplitDetic
from fgfast.models.detic.suppression_on_gpu import suppress
from fgfast.models.files.checkpoints import Precision, build_detic, build_sam
from fgfast.models.files.graph_files import Exported, find, folder, identity
from fgfast.models.grounding_dino import checkpoint
from fgfast.models.grounding_dino.canvas import largest
from fgfast.models.grounding_dino.graph import ImageGraph, OwnCanvases
from fgfast.models.grounding_dino.precision import with_precision
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import SamSegmenter
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import AnyCanvas, Canvases, Fixed, FixedCanvases, Size
from fgfast.models.serving.speed import fastest_form
from fgfast.ops import cuda

log = logging.getLogger("fgfast")

# The canvas that holds the widest image Detic sees, (height, width) in pixels; turned, the tallest.
LARGEST = SWIN_B.shorter_edge, -(-SWIN_B.longest_edge // CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def sam(
    name: str, weights: str, precision: Precision, device: str, backend: str, batch: int | None = None
) -> SamSegmenter:
    """SAM ready to segment.

    Args:
        name: "sam_vit_l", ...
        weights: "cached", "random:SEED" or a file.
        precision: of the encoder's matrix products.
        device: as torch names it.
        backend: "torch", "onnxruntime" or "tensorrt". PyTorch takes whichever form of the graph is fastest.
        batch: images per call; None: as many as suit the device. Of exported graphs, whose shapes are fixed, the
            largest that is full then, else the smallest there is.

    Raises:
        UsageError: the backend is asked for and the model is not exported; says what to type.
        as build_sam.
    """
    batch = batch or default_batch(device)
    if backend == "torch":
        model = build_sam(name.removeprefix("sam_"), weights, precision, device)
        make = partial(sam_in_torch, model, batch=batch)
        form = fastest_form(f"{name} {precision}", lambda form: make(form=form).encoder, device, batch)
        return make(form=form)

    def encoder(images: int) -> Session:
        return load(graphs_of(name, weights, precision, images, backend, device)[0], backend, device)

    decoder = graphs_of(name, weights, precision)[1]
    return SamSegmenter(encoder(batch), load(decoder, backend, device), batch, encoder)


def sam_in_torch(model: Sam, multimask: bool = False, form: str = "eager", batch: int = 1) -> SamSegmenter:
    """A built SAM as sessions. The decoder, a four-hundredth of the arithmetic, is never compiled or recorded.

    Args:
        model: with weights.
        multimask: three masks a box instead of one.
        form: of the encoder, one of fgfast.backends.torch.FORMS. All but "eager" take `batch` images at a time, for
            each number would be compiled and recorded by itself.
        batch: images per slot holds.
    """
    side, device, graph = model.architecture.side, model.device, ImageEncoderGraph(model)

    def encoder(images: int) -> Session:
        many = "batch" if form == "eager" else images
        return TorchSession(graph, graphs.sam_image_encoder(side, many), device, form)

    decoder = TorchSession(
        MaskDecoderGraph(model, multimask), graphs.sam_mask_decoder(side, 3 if multimask else 1), device
    )
    return SamSegmenter(encoder(batch), decoder, batch, encoder)


def detic(weights: str, precision: Precision, device: str, backend: str, batch: int | None = None) -> Canvases:
    """Detic ready to detect; arguments and errors as for `sam`."""
    batch = batch or default_batch(device)
    if backend == "torch":
        model = build_detic("swinb", weights, precision, device)
        make = partial(detic_in_torch, model, batch=batch)
        measured = f"detic {precision}"
        form = fastest_form(measured, lambda form: make(form).session(LARGEST, batch), device, batch)
        return make(form)
    return _exported_canvases("detic", weights, precision, device, backend, batch)


def detic_in_torch(model: Detic, form: str = "eager", multiple: int = CANVAS_MULTIPLE, batch: int = 1) -> Canvases:
    """A built Detic as sessions. On a GPU it gets the native suppression, if there is one, for which nothing waits.

    Args:
        model: with weights.
        form: one of fgfast.backends.torch.FORMS. All but "eager" work on fixed shapes, two canvases that hold every
            image, for each is compiled and recorded by itself: the two halves apart, and non-maximum suppression,
            whose work depends on the data, between them.
        multiple: canvases of "eager" grow in these steps, pixels.
        batch: images per slot holds.
    """
    device = str(model.device)
    if model.device.type == "cuda":
        if cuda.available():
            model.proposal_generator.suppress = suppress
        else:
            log.info("fgfast was built without CUDA: suppression of Detic's proposals waits for the GPU")
    if form == "eager":
        graph = DetectorGraph(model)
        return AnyCanvas(
            lambda c, n: TorchSession(graph, graphs.detic_detector(c, n, model.config.proposals), model.device),
            multiple,
            batch,
            device,
        )

    def split(images: int) -> dict[Size, Fixed]:
        return {
            canvas: Fixed(
                graphs.detic_detector(canvas, images, model.config.proposals),
                partial(SplitDetic, model, canvas, images, form),
            )
            for canvas in (LARGEST, LARGEST[::-1])
        }

    return FixedCanvases(split, batch, device)


def grounding_dino(
    name: str, weights: str, precision: Precision, device: str, backend: str, batch: int | None = None
) -> Canvases:
    """Grounding DINO ready to detect; arguments and errors as for `sam`, and as fgfast.models.grounding_dino.build.

    PyTorch computes it as it stands: its canvases have the size of the images, too many to compile.
    """
    batch = batch or default_batch(device)
    if backend == "torch":
        return grounding_dino_in_torch(checkpoint.network(name, weights).to(device), precision, batch)
    return _exported_canvases(name, weights, precision, device, backend, batch)


def grounding_dino_in_torch(model: Any, precision: Precision = "fp32", batch: int = 1) -> OwnCanvases:
    """transformers' GroundingDinoForObjectDetection in float32, on its device, as sessions."""
    graph, queries = ImageGraph(with_precision(model, precision), precision), model.config.num_queries
    return OwnCanvases(
        lambda c, n: TorchSession(graph, graphs.grounding_dino(c, n, queries), model.device), batch, str(model.device)
    )


def _exported_canvases(
    name: str, weights: str, precision: Precision, device: str, backend: str, batch: int
) -> FixedCanvases:
    def graphs_for(images: int) -> dict[Size, Fixed]:
        found = graphs_of(name, weights, precision, images, backend, device)
        return {canvas_of(e): Fixed(e.manifest.contract, partial(load, e, backend, device)) for e in found}

    return FixedCanvases(graphs_for, batch, device)


def graphs_of(
    name: str, weights: str, precision: Precision, batch: int = 1, backend: str = "", device: str = ""
) -> list[Exported]:
    """The graphs that a run of a model loads: SAM's encoder and decoder, or a detector's on every canvas there is.

    Args:
        name, weights, precision: as for `sam`.
        batch: images per call; see `of_batch`.
        backend, device: leave out what TensorRT has no engine of, unless that leaves nothing.

    Raises:
        UsageError: one is missing, or there are images that no canvas holds; says what to type.
    """
    where = folder(name, identity(name, weights), precision)
    if name.startswith("sam_"):
        encoders = _with_engine(exported(name, "sam_image_encoder", where, precision), backend, device)
        return [of_batch(encoders, batch), exported(name, "sam_mask_decoder", where, precision)[0]]
    graph = "detic_detector" if name == "detic" else "grounding_dino"
    by_canvas: dict[Size, list[Exported]] = {}
    for one in reversed(_with_engine(exported(name, graph, where, precision), backend, device)):
        by_canvas.setdefault(canvas_of(one), []).append(one)
    needed = (LARGEST, LARGEST[::-1]) if name == "detic" else largest(checkpoint.processors(name, weights)[1])
    for height, width in needed:
        if not any(canvas[0] >= height and canvas[1] >= width for canvas in by_canvas):
            raise UsageError(
                f"{name} is exported for {sorted(by_canvas)} only, which does not hold every image: "
                f"fgfast export {name} --precision {precision} --canvas {height}x{width}"
            )
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


def _with_engine(found: list[Exported], backend: str, device: str) -> list[Exported]:
    """Those that TensorRT can load, where it is to; all of them, if it can load none, so that loading says why."""
    if backend != "tensorrt":
        return found
    from fgfast.backends.tensorrt_engine import engine_path

    return [e for e in found if engine_path(e.path, e.manifest, device).is_file()] or found


def exported(name: str, graph: str, where: Path, precision: str) -> list[Exported]:
    """The graphs of a model that may be used: complete, and with today's contract; those of the smallest batch first.

    Raises:
        UsageError: there are none; says why, and what to type.
    """
    every = find(graph, where)
    found = [e for e in every if not e.manifest.outdated]
    if not found:
        why = f"{graph} is not in {where}"
        if every:
            why = f"{every[0].path.name} {every[0].manifest.outdated}; export it again"
        command = f"fgfast export {name} --precision {precision}"
        raise UsageError(f"{name} is not exported for {precision} ({why}): {command}")
    return sorted(found, key=lambda e: str(e.manifest.contract.inputs[0].shape[0]).zfill(9))


def load(found: Exported, backend: str, device: str) -> Session:
    """A session of an exported graph, whose files are verified first.

    Raises:
        GraphError: a file changed since the export, or the backend cannot load it.
        UsageError: the backend is not installed.
    """
    found.verify()
    if backend == "onnxruntime":
        from fgfast.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(found.path, found.manifest.contract, device, threads=torch.get_num_threads())
    if backend == "tensorrt":
        from fgfast.backends.tensorrt import TensorRtSession
        from fgfast.backends.tensorrt_engine import engine_path

        contract = found.manifest.contract
        engine = TensorRtSession(engine_path(found.path, found.manifest, device), contract, device)
        if not contract.free:
            engine.prepare()
        return engine
    raise UsageError(f"no backend {backend!r}; there are torch, onnxruntime and tensorrt")


def canvas_of(found: Exported) -> Size:
    """(height, width) of the canvas that a detector's graph was exported for."""
    height, width = found.manifest.contract.inputs[0].shape[1:3]
    return int(height), int(width)
