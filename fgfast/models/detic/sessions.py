"""Builds Detic's detector, in PyTorch or from exported graphs."""

from __future__ import annotations

import logging
from functools import partial

from fgfast import graphs as contracts
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.canvas import CANVASES, LARGEST, LARGEST_TURNED
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.split import SplitDetic
from fgfast.models.detic.suppression import suppress_on_gpu
from fgfast.models.files.graph_files import Exported
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, AnyCanvas, Canvases, Fixed, FixedCanvases
from fgfast.models.serving.exported import exported_canvases, graphs_of
from fgfast.models.serving.speed import fastest_form
from fgfast.models.vocabulary import load_vocabulary
from fgfast.ops import cuda
from fgfast.records import Size

log = logging.getLogger("fgfast")

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
    return DeticDetector(canvases(spec), SWIN_B, names, embeddings)


def canvases(spec: ModelSpec) -> Canvases:
    """Return sessions of Detic's graph; raises the errors of `detector`. In PyTorch they have the fastest form."""
    if spec.backend != "torch":
        return exported_canvases(spec, graphs)
    batch = spec.batch or default_batch(spec.device)
    make = partial(detic_in_torch, build_detic(spec), batch=batch)
    key = f"{spec.name} {spec.precision}"
    if spec.eager:
        return make()
    return make(fastest_form(key, lambda form: make(form).session(LARGEST, batch), spec.device, batch))


def detic_in_torch(model: Detic, form: str = "eager", multiple: int = CANVAS_MULTIPLE, batch: int = 1) -> Canvases:
    """Return sessions of a Detic. On a GPU it gets the native suppression, if built, which never waits for the GPU.

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
        if cuda.available():
            model.proposal_generator.suppress = suppress_on_gpu
        else:
            log.info("fgfast was built without CUDA: suppression of Detic's proposals waits for the GPU")
    if form == "eager":
        graph = DetectorGraph(model)

        def session(canvas: Size, images: int) -> Session:
            return TorchSession(graph, contracts.detic_detector(canvas, images, proposals), device)

        return AnyCanvas(session, multiple, batch, str(device))

    def split(images: int) -> dict[Size, Fixed]:
        return {
            canvas: Fixed(
                contracts.detic_detector(canvas, images, proposals), partial(SplitDetic, model, canvas, images, form)
            )
            for canvas in (_COMPILED if "compiled" in form else CANVASES)
        }

    return FixedCanvases(split, batch, str(device))


def graphs(spec: ModelSpec) -> list[Exported]:
    """Return the exported graph of every canvas; raises UsageError where an image fits on none."""
    return graphs_of(spec, "detic_detector", (LARGEST, LARGEST_TURNED))


def timed(spec: ModelSpec) -> Session:
    """Return the session of the largest canvas."""
    found = canvases(spec)
    return found.session(found.bucket(LARGEST), 1)
