"""Grounding DINO through transformers: images and phrases in, detections in pixels of the stored images out.

Liu et al., "Grounding DINO" (2023). The network, its tokenizer and its image processor are those of transformers.
Beside this file: the `prompt`; the `detector`, which goes from token scores to one phrase a
box; the `precision`; and two forms of one graph: transformers' own (`graph`), and one for export that gives the same
numbers on any canvas (`canvas`, `swin`).

In PyTorch, images share a batch only where they have the same size after resizing. The reference pads a mixed batch,
and its pixel mask stops neither the windows of Swin nor the group norms: there an image's boxes depend on its
neighbours.

torch and transformers are imported when a detector is built, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast.errors import UnknownNameError
from fgfast.models.files import weights as cache
from fgfast.models.files.checkpoints import PRECISIONS, Precision
from fgfast.models.grounding_dino import checkpoint
from fgfast.models.grounding_dino.checkpoint import NAMES
from fgfast.models.grounding_dino.prompt import prompt_text

if TYPE_CHECKING:
    from fgfast.models.grounding_dino.detector import GroundingDinoDetector

__all__ = ["NAMES", "build", "prompt_text"]


def build(
    name: str,
    phrases: Sequence[str],
    weights: str | Path = "cached",
    *,
    pull: bool = False,
    device: str = "cpu",
    precision: Precision = "fp32",
    backend: str = "torch",
    batch: int | None = None,
    box_threshold: float | None = None,
    text_threshold: float | None = None,
) -> GroundingDinoDetector:
    """A detector by name.

    Args:
        name: grounding_dino_tiny or grounding_dino_base.
        phrases: subject words.
        weights: "cached" for the Hugging Face cache; a folder with the checkpoint's files; or "random:SEED", a small
            model of random weights whose tokenizer spells (a testing aid; `name` does not change it).
        pull: download what the cache lacks.
        device: where it computes.
        precision: of matrix products and convolutions; norms, boxes and scores are float32 always.
        backend: "torch", or one that computes exported graphs.
        batch: images per slot holds; None: as many as suit the device.
        box_threshold: see GroundingDinoDetector; None takes the model card's.
        text_threshold: see GroundingDinoDetector; None takes the model card's.

    Raises:
        UsageError: a request that cannot be carried out.
        ModelNotCachedError: the weights are not on this machine; says what to type.
        MissingExtraError: torch or transformers is not installed.
        WeightsError: the files are damaged or of another model.
        DownloadError: a pull failed.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if pull and str(weights) == "cached":
        cache.pull(name)
    tokenizer, processor = checkpoint.processors(name, weights)
    from fgfast.models.grounding_dino.detector import BOX_THRESHOLD, TEXT_THRESHOLD, GroundingDinoDetector
    from fgfast.models.serving import exported as sessions

    canvases = sessions.grounding_dino(name, str(weights), precision, device, backend, batch)
    box = BOX_THRESHOLD if box_threshold is None else box_threshold
    text = TEXT_THRESHOLD if text_threshold is None else text_threshold
    return GroundingDinoDetector(canvases, tokenizer, processor, phrases, box, text)
