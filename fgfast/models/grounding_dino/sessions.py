"""Builds Grounding DINO's detector, in PyTorch or from exported graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgfast import graphs as contracts
from fgfast.backends.session import Session
from fgfast.backends.torch import TorchSession
from fgfast.methods import ModelSpec, Precision
from fgfast.models.files.checkpoints import check_spec
from fgfast.models.files.graph_files import Exported
from fgfast.models.grounding_dino import checkpoint
from fgfast.models.grounding_dino.canvas import common
from fgfast.models.grounding_dino.detector import BOX_THRESHOLD, TEXT_THRESHOLD, GroundingDinoDetector
from fgfast.models.grounding_dino.graph import ImageGraph, OwnCanvases
from fgfast.models.grounding_dino.precision import with_precision
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import Canvases, mean_share
from fgfast.models.serving.exported import exported_canvases, graphs_of
from fgfast.models.vocabulary import read_names
from fgfast.records import Size


def detector(spec: ModelSpec, words: str) -> GroundingDinoDetector:
    """Return Grounding DINO with phrases.

    Args:
        spec: "grounding_dino_tiny" or "grounding_dino_base". Its weights are "cached" for the Hugging Face cache, a
            folder with the checkpoint's files, or "random:SEED", a small model of random weights with a tokenizer of
            single letters (for tests; the same for both names). Norms, boxes and scores are float32 in every precision.
        words: the phrases, see fgfast.models.vocabulary.read_names.

    Raises:
        UsageError: the phrases, the checkpoint or the backend cannot be used.
        ModelNotCachedError: the weights are not on this machine; the message gives the command to type.
        MissingExtraError: torch or transformers is not installed.
        WeightsError: the files are damaged or belong to another model.
    """
    return build(spec, read_names(words))


def build(
    spec: ModelSpec,
    phrases: Sequence[str],
    box_threshold: float = BOX_THRESHOLD,
    text_threshold: float = TEXT_THRESHOLD,
) -> GroundingDinoDetector:
    """Return Grounding DINO with these phrases and thresholds; see `detector`."""
    check_spec(spec, checkpoint.NAMES)
    tokenizer, processor = checkpoint.processors(spec.name, spec.weights)
    return GroundingDinoDetector(canvases(spec), tokenizer, processor, phrases, box_threshold, text_threshold)


def canvases(spec: ModelSpec) -> Canvases:
    """Return sessions of Grounding DINO's graph; raises the errors of `detector`.

    In PyTorch they are eager: the canvases have the sizes of the images, which are too many to compile.
    """
    if spec.backend != "torch":
        return exported_canvases(spec, graphs)
    network = checkpoint.network(spec.name, spec.weights).to(spec.device)
    return grounding_dino_in_torch(network, spec.precision, spec.batch or default_batch(spec.device))


def grounding_dino_in_torch(model: Any, precision: Precision = "fp32", batch: int = 1) -> OwnCanvases:
    """Return sessions of transformers' GroundingDinoForObjectDetection in float32, on its device."""
    graph, queries = ImageGraph(with_precision(model, precision), precision), model.config.num_queries

    def session(canvas: Size, images: int) -> Session:
        return TorchSession(graph, contracts.grounding_dino(canvas, images, queries), model.device)

    return OwnCanvases(session, batch=batch, device=str(model.device))


def graphs(spec: ModelSpec) -> list[Exported]:
    """Return the exported graph of every canvas; raises UsageError where an image fits on none."""
    _, processor = checkpoint.processors(spec.name, spec.weights)
    return graphs_of(spec, "grounding_dino", common(processor)[:2])


def share(spec: ModelSpec) -> float:
    """Return the work of a mean image as a share of that on the largest canvas: in PyTorch each has its own."""
    if spec.backend != "torch":
        return mean_share(len({found.canvas for found in graphs(spec)}))
    return mean_share(None, spec.batch or default_batch(spec.device))


def timed(spec: ModelSpec) -> Session:
    """Return the session of a canvas that the model is exported for, for a full batch."""
    return canvases(spec).session(graphs(spec)[0].canvas, spec.batch or default_batch(spec.device))
