"""Builds Detic's detector, in PyTorch or from exported graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from fgfast import graphs as contracts
from fgfast.backends.recording import Pool
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.canvas import CANVASES, LARGEST, LARGEST_TURNED
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.split import ExportedDetic, SplitDetic, classes_of, contract_of
from fgfast.models.detic.suppression import fastest_on, nms
from fgfast.models.files.graph_files import Exported
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, AnyCanvas, Canvases, Fixed, FixedCanvases, mean_share
from fgfast.models.serving.exported import command, exported, exported_canvases, graphs_of, load, with_engine
from fgfast.models.serving.forms import form_of
from fgfast.models.vocabulary import load_vocabulary
from fgfast.records import Size

# Canvases of compiled graphs: compiling one takes tens of seconds in every process, and the 24 % of the work that a
# closer canvas saves is about a millisecond of an image on an H200 (not measured), so that it pays after some 30,000
# images of one shape. And torch keeps at most 8 compilations of a function (torch._dynamo.config.recompile_limit),
# which two canvases reach when batches of 4, 2 and 1 image are tried. Recording one takes about a second.
_COMPILED = CANVASES[:2]


def detector(spec: ModelSpec, words: str) -> DeticDetector:
    """Return Detic with a vocabulary.

    Args:
        spec: of the model.
        words: the vocabulary, see fgfast.models.vocabulary.load_vocabulary.

    Raises:
        UsageError: the vocabulary is not valid, or the backend needs exported graphs, and there are none.
        UnknownNameError, ModelNotCachedError, WeightsError: see build_detic.
    """
    names, embeddings = load_vocabulary(words, spec.weights)
    return DeticDetector(canvases(spec, len(names)), SWIN_B, names, embeddings)


def canvases(spec: ModelSpec, words: int = 1) -> Canvases:
    """Return sessions of Detic's graph; raises the errors of `detector`. In PyTorch they have its form, or the best.

    Args:
        spec: of the model.
        words: of the vocabulary; matters to exported heads alone, which may be made for a fixed number.
    """
    if in_two_graphs(spec):
        batch = spec.batch or default_batch(spec.device)
        return FixedCanvases(lambda images: _fixed(replace(spec, batch=images), words), batch, spec.device)
    if spec.backend != "torch":
        return exported_canvases(spec, graphs)
    form = form_of(spec)  # measured, where it is not known, before the weights take memory here
    return detic_in_torch(build_detic(spec), form, batch=spec.batch or default_batch(spec.device))


def detic_in_torch(model: Detic, form: str = "eager", multiple: int = CANVAS_MULTIPLE, batch: int = 1) -> Canvases:
    """Return sessions of a Detic. On a GPU it gets the native suppression, which never waits for the GPU, if that runs.

    Args:
        model: with weights.
        form: one of fgfast.backends.torch.FORMS. All but "eager" have fixed shapes, the canvases of
            fgfast.models.detic.canvas, each of which is recorded separately: the two halves, with non-maximum
            suppression, whose work depends on the data, between them.
        multiple: step of the canvases of "eager", in pixels.
        batch: images per slot.
    """
    device, proposals = model.device, model.config.proposals
    if device.type == "cuda":
        model.proposal_generator.suppress = fastest_on(device)
    if form == "eager":
        graph = DetectorGraph(model)

        def session(canvas: Size, images: int) -> Session:
            return TorchSession(graph, contracts.detic_detector(canvas, images, proposals), device)

        return AnyCanvas(session, multiple, batch, str(device))

    # Of all canvases, which one batch uses at a time; the large ones need a gigabyte (not measured).
    pool = Pool(device) if "recorded" in form else None

    def split(images: int) -> dict[Size, Fixed]:
        return {
            canvas: Fixed(
                contracts.detic_detector(canvas, images, proposals),
                partial(SplitDetic, model, canvas, images, form, pool),
            )
            for canvas in _canvases_of(form)
        }

    return FixedCanvases(split, batch, str(device))


def graphs(spec: ModelSpec) -> list[Exported]:
    """Return the exported graphs of every canvas; raises UsageError where an image fits on none."""
    if in_two_graphs(spec):
        return [half for both in _halves(spec, 1) for half in both]
    return graphs_of(spec, "detic_detector", (LARGEST, LARGEST_TURNED))


def in_two_graphs(spec: ModelSpec) -> bool:
    """Whether a backend runs Detic as backbone and heads with suppression between.

    TensorRT always does: within a graph the number of suppressed boxes is known only once the GPU has computed it, and
    the thread that launches batches would wait for that. ONNX Runtime does on a GPU, where both halves are exported.
    """
    if spec.backend == "tensorrt":
        return True
    if spec.backend != "onnxruntime" or spec.device == "cpu":
        return False
    try:
        return bool(_halves(spec, 1))
    except UsageError:
        return False


def _fixed(spec: ModelSpec, words: int) -> Mapping[Size, Fixed]:
    """Return both halves of every canvas as one graph of fixed shapes."""

    def open_both(backbone: Exported, heads: Exported) -> Session:
        suppress = nms if spec.device == "cpu" else fastest_on(torch.device(spec.device))
        return ExportedDetic(load(backbone, spec), load(heads, spec), suppress, SWIN_B)

    return {
        backbone.canvas: Fixed(
            contract_of(backbone.manifest.contract, heads.manifest.contract), partial(open_both, backbone, heads)
        )
        for backbone, heads in _halves(spec, words)
    }


def _halves(spec: ModelSpec, words: int) -> list[tuple[Exported, Exported]]:
    """Return the exported backbone and heads of every canvas, the heads for the fewest words that suffice.

    Raises:
        UsageError: a half is missing, or all heads take fewer words; the message gives the command to type.
    """
    found = []
    for backbone in graphs_of(spec, "detic_backbone", (LARGEST, LARGEST_TURNED)):
        batch = backbone.manifest.contract.inputs[0].shape[0]
        same = [
            heads
            for heads in exported(spec, "detic_heads")
            if heads.canvas == backbone.canvas and heads.manifest.contract.inputs[0].shape[0] == batch
        ]
        able = [heads for heads in same if _most_words(heads) >= words]
        if not able:
            most = max(map(_most_words, same), default=0)
            raise UsageError(
                f"the vocabulary has {words} words, and detic_heads on {'x'.join(map(str, backbone.canvas))} is "
                f"exported for {most} at most: {command(spec, backbone.canvas, f'--words {words}')}"
                if same
                else f"detic_heads is not exported for {batch} images on {'x'.join(map(str, backbone.canvas))}: "
                f"{command(spec, backbone.canvas)}"
            )
        found.append((backbone, min(with_engine(able, spec), key=_most_words)))
    return found


def _most_words(heads: Exported) -> float:
    classes = classes_of(heads.manifest.contract)
    return float("inf") if classes is None else classes - 1


def share(spec: ModelSpec) -> float:
    """Return the work of a mean image as a share of that of `timed`: it depends on the canvases of the spec's form."""
    if spec.backend != "torch":
        return mean_share(len({found.canvas for found in graphs(spec)}))
    fixed = None if spec.form in (None, "eager") else len(_canvases_of(spec.form))
    return mean_share(fixed, spec.batch or default_batch(spec.device))


def _canvases_of(form: str) -> Sequence[Size]:
    return _COMPILED if "compiled" in form else CANVASES


def timed(spec: ModelSpec) -> Session:
    """Return the session of the largest canvas, for a full batch."""
    found = canvases(spec)
    return found.session(found.bucket(LARGEST), spec.batch or default_batch(spec.device))
