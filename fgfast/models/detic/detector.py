"""Images and a vocabulary to detections, with any sessions of Detic's graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.transform import Selection, resized_size, select, to_stored
from fgfast.models.detic.vocabulary import classifier
from fgfast.models.serving.batches import CanvasDetector, ImageSlot
from fgfast.models.serving.canvases import Canvases
from fgfast.records import Detections, Size


class DeticDetector(CanvasDetector):
    """A Detic with a vocabulary: images in, detections in pixels of the stored images out.

    Args:
        canvases: sessions of the graph.
        config: the model's sizes.
        names: C class names.
        embeddings: (C, 512) float32 text embeddings, CLIP ViT-B/32 of "a " + name.
        selection: the rules for selecting detections.
    """

    title = "Detic"
    # All scores are copied to the host: 1.2 MB per image with LVIS's 1203 names, a twentieth of a millisecond, which
    # overlaps with the next batch. How many boxes are selected depends on the data; if a GPU selected them, the host
    # would have to wait for every image.
    outputs = ("boxes", "scores")

    def __init__(
        self,
        canvases: Canvases,
        config: DeticConfig,
        names: Sequence[str],
        embeddings: Tensor | NDArray[np.float32],
        selection: Selection | None = None,
    ) -> None:
        if len(names) != len(embeddings):
            raise ValueError(f"{len(names)} names for {len(embeddings)} text embeddings; there must be one per name")
        super().__init__(canvases)
        self.config, self.names = config, tuple(names)
        self.selection = selection or Selection()
        self._vocabulary = classifier(torch.as_tensor(embeddings)).contiguous()

    def resized_size(self, height: int, width: int) -> Size:
        return resized_size(height, width, self.config.shorter_edge, self.config.longest_edge)

    @torch.inference_mode()
    def detections(self, slot: ImageSlot, row: int) -> Detections:
        size = slot.size(row)
        chosen = select(slot.results["boxes"][row], slot.results["scores"][row], size, self.selection)
        found = to_stored(chosen, size, slot.stored[row])
        names = tuple(self.names[c] for c in found.classes.tolist())
        return Detections(found.boxes.numpy(), found.scores.numpy(), names)

    def _others(self, rows: int) -> dict[str, Tensor]:
        self._vocabulary = self._vocabulary.to(self.device)
        return {"vocabulary": self._vocabulary}
