"""Grounding DINO ready to detect: in PyTorch, or from the graphs that were exported."""

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
from fgfast.models.grounding_dino.canvas import largest
from fgfast.models.grounding_dino.detector import BOX_THRESHOLD, TEXT_THRESHOLD, GroundingDinoDetector
from fgfast.models.grounding_dino.graph import ImageGraph, OwnCanvases
from fgfast.models.grounding_dino.precision import with_precision
from fgfast.models.serving.batches import default_batch
from fgfast.models.serving.canvases import Canvases
from fgfast.models.serving.exported import exported_canvases, graphs_of
from fgfast.models.vocabulary import read_names


def detector(spec: ModelSpec, words: str) -> GroundingDinoDetector:
    """Grounding DINO with phrases.

    Args:
        spec: "grounding_dino_tiny" or "grounding_dino_base". Its weights are "cached" for the Hugging Face cache, a
            folder with the checkpoint's files, or "random:SEED", a small model of random weights whose tokenizer spells
            (for tests; the name does not change it). Norms, boxes and scores are float32 in every precision.
        words: what it looks for, see fgfast.models.vocabulary.read_names.

    Raises:
        UsageError: a request that cannot be carried out.
        ModelNotCachedError: the weights are not on this machine; the message says what to type.
        MissingExtraError: torch or transformers is not installed.
        WeightsError: the files are damaged or of another model.
    """
    return build(spec, read_names(words))


def build(
    spec: ModelSpec,
    phrases: Sequence[str],
    box_threshold: float = BOX_THRESHOLD,
    text_threshold: float = TEXT_THRESHOLD,
) -> GroundingDinoDetector:
    """The same with phrases as they are, and with thresholds of one's own."""
    check_spec(spec, checkpoint.NAMES)
    tokenizer, processor = checkpoint.processors(spec.name, spec.weights)
    return GroundingDinoDetector(canvases(spec), tokenizer, processor, phrases, box_threshold, text_threshold)


def canvases(spec: ModelSpec) -> Canvases:
    """Grounding DINO's graph on canvases; errors are those of `detector`.

    PyTorch computes it as it stands: its canvases have the size of the images, too many to compile.
    """
    if spec.backend != "torch":
        return exported_canvases(spec, graphs)
    network = checkpoint.network(spec.name, spec.weights).to(spec.device)
    return grounding_dino_in_torch(network, spec.precision, spec.batch or default_batch(spec.device))


def grounding_dino_in_torch(model: Any, precision: Precision = "fp32", batch: int = 1) -> OwnCanvases:
    """transformers' GroundingDinoForObjectDetection in float32, on its device, as sessions."""
    graph, queries = ImageGraph(with_precision(model, precision), precision), model.config.num_queries
    return OwnCanvases(
        lambda c, n: TorchSession(graph, contracts.grounding_dino(c, n, queries), model.device),
        batch,
        str(model.device),
    )


def graphs(spec: ModelSpec) -> list[Exported]:
    """The exported graph on every canvas there is; UsageError where an image fits on none."""
    _, processor = checkpoint.processors(spec.name, spec.weights)
    return graphs_of(spec, "grounding_dino", largest(processor))


def timed(spec: ModelSpec) -> Session:
    """The session on a canvas that the model is exported for."""
    ((session, _),) = canvases(spec).share([graphs(spec)[0].canvas])
    return session
