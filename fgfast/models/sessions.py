"""Models as sessions: in PyTorch, or from the graphs that were exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgfast import graphs
from fgfast.backends.session import Session, described
from fgfast.backends.torch import TorchSession
from fgfast.errors import GraphError, UsageError
from fgfast.models.build import Precision, build_detic, build_sam
from fgfast.models.detic.canvas import CANVAS_MULTIPLE
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import AnyCanvas, Canvases, FixedCanvases, Size
from fgfast.models.detic.graph import BackboneGraph, DetectorGraph, HeadsGraph, best_proposals
from fgfast.models.detic.model import Detic
from fgfast.models.graph_files import Exported, find, folder, identity
from fgfast.models.grounding_dino import checkpoint
from fgfast.models.grounding_dino.canvas import largest
from fgfast.models.grounding_dino.graph import OwnCanvases, PictureGraph
from fgfast.models.grounding_dino.precision import with_precision
from fgfast.models.sam.graph import ImageEncoderGraph, MaskDecoderGraph
from fgfast.models.sam.model import Sam
from fgfast.models.sam.segmenter import SamSegmenter
from fgfast.models.speed import fastest_form

# The canvas that holds the widest picture Detic sees, (height, width) in pixels; turned, the tallest.
LARGEST = SWIN_B.shorter_edge, -(-SWIN_B.longest_edge // CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def sam(name: str, weights: str, precision: Precision, device: str, backend: str) -> SamSegmenter:
    """SAM ready to segment.

    Args:
        name: "sam_vit_l", ...
        weights: "cached", "random:SEED" or a file.
        precision: of the encoder's matrix products.
        device: as torch names it.
        backend: "torch", "onnxruntime" or "tensorrt". PyTorch takes whichever form of the graph is fastest.

    Raises:
        UsageError: the backend is asked for and the model is not exported; says what to type.
        as build_sam.
    """
    if backend == "torch":
        model = build_sam(name.removeprefix("sam_"), weights, precision, device)
        key = f"{name} {precision}"
        return sam_in_torch(model, form=fastest_form(key, lambda form: sam_in_torch(model, form=form).encoder, device))
    encoder, decoder = graphs_of(name, weights, precision)
    return SamSegmenter(load(encoder, backend, device), load(decoder, backend, device))


def sam_in_torch(model: Sam, multimask: bool = False, form: str = "eager") -> SamSegmenter:
    """A built SAM as sessions. The decoder, a four-hundredth of the arithmetic, is never compiled or recorded."""
    side, device = model.architecture.side, model.device
    return SamSegmenter(
        TorchSession(ImageEncoderGraph(model), graphs.sam_image_encoder(side), device, form),
        TorchSession(MaskDecoderGraph(model, multimask), graphs.sam_mask_decoder(side, 3 if multimask else 1), device),
    )


def detic(weights: str, precision: Precision, device: str, backend: str) -> Canvases:
    """Detic ready to detect; arguments and errors as for `sam`."""
    if backend == "torch":
        model = build_detic("swinb", weights, precision, device)
        return detic_in_torch(model, fastest_form(f"detic {precision}", partial(_largest, model), device))
    found = graphs_of("detic", weights, precision)
    return FixedCanvases({canvas_of(e): _loader(e, backend, device) for e in found})


def detic_in_torch(model: Detic, form: str = "eager", multiple: int = CANVAS_MULTIPLE) -> Canvases:
    """A built Detic as sessions.

    Args:
        model: with weights.
        form: one of fgfast.backends.torch.FORMS. All but "eager" work on fixed shapes, two canvases that hold every
            picture, for each is compiled and recorded by itself: the two halves apart, and non-maximum suppression,
            whose work depends on the data, between them.
        multiple: canvases of "eager" grow in these steps, pixels.
    """
    if form == "eager":
        graph = DetectorGraph(model)
        return AnyCanvas(lambda c, n: TorchSession(graph, graphs.detic_detector(c, n), model.device), multiple)
    return FixedCanvases({canvas: partial(SplitDetic, model, canvas, 1, form) for canvas in (LARGEST, LARGEST[::-1])})


def grounding_dino(name: str, weights: str, precision: Precision, device: str, backend: str) -> Canvases:
    """Grounding DINO ready to detect; arguments and errors as for `sam`, and as fgfast.models.grounding_dino.build.

    PyTorch computes it as it stands: its canvases have the size of the pictures, too many to compile.
    """
    if backend == "torch":
        return grounding_dino_in_torch(checkpoint.network(name, weights).to(device), precision)
    found = graphs_of(name, weights, precision)
    return FixedCanvases({canvas_of(e): _loader(e, backend, device) for e in found})


def grounding_dino_in_torch(model: Any, precision: Precision = "fp32") -> OwnCanvases:
    """transformers' GroundingDinoForObjectDetection in float32, on its device, as sessions."""
    graph, queries = PictureGraph(with_precision(model, precision), precision), model.config.num_queries
    return OwnCanvases(lambda c, n: TorchSession(graph, graphs.grounding_dino(c, n, queries), model.device))


def _largest(model: Detic, form: str) -> Session:
    ((session, _),) = detic_in_torch(model, form).share([LARGEST])
    return session


class SplitDetic:
    """`detic_detector` as backbone, suppression, heads: a Session like any other.

    Args:
        model: with weights.
        canvas: (height, width), pixels.
        batch: pictures a call.
        form: of the two halves.
    """

    backend = "torch"

    def __init__(self, model: Detic, canvas: Size, batch: int, form: str) -> None:
        config, device = model.config, model.device
        precision = model.precision
        self.contract = graphs.detic_detector(canvas, batch, config.proposals)
        self.device, self._model = device, model
        first = graphs.detic_backbone(canvas, batch, config.pyramid_channels, config.level_candidates, precision)
        second = graphs.detic_heads(canvas, batch, config.pyramid_channels, config.proposals, precision)
        self._first = TorchSession(BackboneGraph(model), first, device, form)
        self._second = TorchSession(HeadsGraph(model), second, device, form)

    def prepare(self, sizes: Mapping[str, int] | None = None) -> None:
        """As Session.prepare."""
        self._first.prepare()
        self._second.prepare(sizes)

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """As Session.run."""
        self.contract.bind(described(inputs))
        with torch.cuda.stream(stream):
            found = self._first.run({name: inputs[name] for name in ("pixels", "sizes")})
            boxes, scores = best_proposals(self._model, found.pop("candidates"), found.pop("candidate_scores"))
            others = {"sizes": inputs["sizes"], "vocabulary": inputs["vocabulary"]}
            return self._second.run({**found, "proposals": boxes, "proposal_scores": scores, **others})

    def close(self) -> None:
        """As Session.close."""
        self._first.close()
        self._second.close()


def graphs_of(name: str, weights: str, precision: Precision) -> list[Exported]:
    """The graphs that a run of a model loads: SAM's encoder and decoder, or a detector's on every canvas there is; of
    several batches the smallest.

    Raises:
        UsageError: one is missing, or there are pictures that no canvas holds; says what to type.
    """
    where = folder(name, identity(name, weights), precision)
    if name.startswith("sam_"):
        return [exported(name, graph, where, precision)[0] for graph in ("sam_image_encoder", "sam_mask_decoder")]
    graph = "detic_detector" if name == "detic" else "grounding_dino"
    found = {canvas_of(e): e for e in reversed(exported(name, graph, where, precision))}
    needed = (LARGEST, LARGEST[::-1]) if name == "detic" else largest(checkpoint.processors(name, weights)[1])
    for height, width in needed:
        if not any(canvas[0] >= height and canvas[1] >= width for canvas in found):
            raise UsageError(
                f"{name} is exported for {sorted(found)} only, which does not hold every picture: "
                f"fgfast export {name} --precision {precision} --canvas {height}x{width}"
            )
    return list(found.values())


def exported(name: str, graph: str, where: Path, precision: str) -> list[Exported]:
    """The graphs of a model that may be used, whole and of today's contract; those of the smallest batch first, for
    stages take one picture at a time.

    Raises:
        UsageError: there are none; says what to type.
    """
    found = [e for e in find(graph, where) if e.manifest.contract == _contract_of_today(e)]
    if not found:
        raise UsageError(
            f"{name} is not exported for {precision} ({graph} is not in {where}): "
            f"fgfast export {name} --precision {precision}"
        )
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

        return OnnxRuntimeSession(found.path, found.manifest.contract, device)
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


def _loader(found: Exported, backend: str, device: str) -> Callable[[], Session]:
    return lambda: load(found, backend, device)


def _contract_of_today(found: Exported) -> graphs.Contract | None:
    """What the contract would be if the graph were exported now; None where that cannot be said."""
    contract = found.manifest.contract
    try:
        shape = contract.inputs[0].shape
        if contract.graph == "sam_image_encoder":
            return graphs.sam_image_encoder(int(shape[1]), shape[0])
        if contract.graph == "sam_mask_decoder":
            return graphs.sam_mask_decoder(16 * int(shape[2]), int(contract.outputs[1].shape[1]))
        if contract.graph == "detic_detector":
            proposals = int(contract.outputs[0].shape[1])
            return graphs.detic_detector((int(shape[1]), int(shape[2])), int(shape[0]), proposals)
        if contract.graph == "grounding_dino":
            queries, text = int(contract.outputs[0].shape[1]), contract.inputs[2].shape[1]
            return graphs.grounding_dino((int(shape[1]), int(shape[2])), int(shape[0]), queries, text)
    except (ValueError, IndexError, GraphError):
        pass
    return None
