"""Detic ready to detect: in PyTorch, or from the graphs that were exported."""

from __future__ import annotations

import logging
from functools import partial

from fgfast import graphs as contracts
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.detic.graph import DetectorGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.split import SplitDetic
from fgfast.models.detic.suppression_on_gpu import suppress
from fgfast.models.files.graph_files import Exported
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, AnyCanvas, Canvases, Fixed, FixedCanvases
from fgfast.models.serving.exported import exported_canvases, graphs_of
from fgfast.models.serving.speed import fastest_form
from fgfast.models.vocabulary import load_vocabulary
from fgfast.ops import cuda
from fgfast.records import Size

log = logging.getLogger("fgfast")

# The canvas that holds the widest image Detic sees, in pixels; turned, the tallest.
LARGEST = Size(SWIN_B.shorter_edge, -(-SWIN_B.longest_edge // CANVAS_MULTIPLE) * CANVAS_MULTIPLE)
LARGEST_TURNED = Size(*LARGEST[::-1])


def detector(spec: ModelSpec, words: str) -> DeticDetector:
    """Detic with a vocabulary.

    Args:
        spec: what to build.
        words: what it looks for, see fgfast.models.vocabulary.load_vocabulary.

    Raises:
        UsageError: the words are none, or the backend is asked for and the model is not exported.
        UnknownNameError, ModelNotCachedError, WeightsError: see build_detic.
    """
    names, embeddings = load_vocabulary(words, spec.weights)
    return DeticDetector(canvases(spec), SWIN_B, names, embeddings)


def canvases(spec: ModelSpec) -> Canvases:
    """Detic's graph on canvases; errors are those of `detector`. PyTorch takes the fastest form of it."""
    if spec.backend != "torch":
        return exported_canvases(spec, graphs)
    batch = spec.batch or default_batch(spec.device)
    make = partial(detic_in_torch, build_detic(spec), batch=batch)
    key = f"{spec.name} {spec.precision}"
    return make(fastest_form(key, lambda form: make(form).session(LARGEST, batch), spec.device, batch))


def detic_in_torch(model: Detic, form: str = "eager", multiple: int = CANVAS_MULTIPLE, batch: int = 1) -> Canvases:
    """A built Detic as sessions. On a GPU it gets the native suppression, if there is one, for which nothing waits.

    Args:
        model: with weights.
        form: one of fgfast.backends.torch.FORMS. All but "eager" work on fixed shapes, two canvases that hold every
            image, for each is compiled and recorded by itself: the two halves apart, and non-maximum suppression,
            whose work depends on the data, between them.
        multiple: canvases of "eager" grow in these steps, in pixels.
        batch: images that a slot holds.
    """
    device, proposals = str(model.device), model.config.proposals
    if model.device.type == "cuda":
        if cuda.available():
            model.proposal_generator.suppress = suppress
        else:
            log.info("fgfast was built without CUDA: suppression of Detic's proposals waits for the GPU")
    if form == "eager":
        graph = DetectorGraph(model)
        return AnyCanvas(
            lambda c, n: TorchSession(graph, contracts.detic_detector(c, n, proposals), model.device),
            multiple,
            batch,
            device,
        )

    def split(images: int) -> dict[Size, Fixed]:
        return {
            canvas: Fixed(
                contracts.detic_detector(canvas, images, proposals), partial(SplitDetic, model, canvas, images, form)
            )
            for canvas in (LARGEST, LARGEST_TURNED)
        }

    return FixedCanvases(split, batch, device)


def graphs(spec: ModelSpec) -> list[Exported]:
    """The exported graph on every canvas there is; UsageError where an image fits on none."""
    return graphs_of(spec, "detic_detector", (LARGEST, LARGEST_TURNED))


def timed(spec: ModelSpec) -> Session:
    """The session on the largest canvas."""
    ((session, _),) = canvases(spec).share([LARGEST])
    return session
