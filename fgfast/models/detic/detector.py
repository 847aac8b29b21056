"""Images and a vocabulary to detections, through whatever computes Detic's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.models.detic.cascade import clip
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.suppression import nms
from fgfast.models.detic.transform import Selected, Selection, resized_size, to_stored
from fgfast.models.detic.vocabulary import classifier
from fgfast.models.serving.batches import CanvasDetector, ImageSlot
from fgfast.models.serving.canvases import Canvases
from fgfast.records import Detections, Float32, Image, Size


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of one image and where they come from.

    Attributes:
        detections: in pixels of the stored image, descending.
        classes: (N,) int64, rows of the vocabulary.
        proposal_index: (N,) int64, the proposal of each.
    """

    detections: Detections
    classes: NDArray[np.int64]
    proposal_index: NDArray[np.int64]


class DeticDetector(CanvasDetector[Found]):
    """A Detic with a vocabulary: images in, detections in pixels of the stored images out.

    Args:
        canvases: what computes the graph.
        config: the model's sizes.
        names: C class names.
        embeddings: (C, 512) float32 text embeddings, CLIP ViT-B/32 of "a " + name.
        selection: what counts as a detection.
    """

    # All scores go to the host, 1.2 MB per image with LVIS's 1203 names: a twentieth of a millisecond that passes
    # beside the next batch. How many boxes are chosen from them depends on the data; choosing on a GPU, the host would
    # have to wait for every image.
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
            raise ValueError(f"{len(names)} names for {len(embeddings)} text embeddings; there must be one each")
        super().__init__(canvases)
        self.config, self.names = config, tuple(names)
        self.selection = selection or Selection()
        self._vocabulary = classifier(torch.as_tensor(embeddings)).contiguous()

    def __call__(self, images: Sequence[Image]) -> list[Found]:
        """The detections of each image, as if it were alone."""
        return self._each(list(images))

    def resized_size(self, height: int, width: int) -> Size:
        """The size that a stored image is resized to, pixels."""
        return resized_size(height, width, self.config.shorter_edge, self.config.longest_edge)

    def read(self, slot: ImageSlot, row: int) -> Detections:
        """What was found in the image of a row, after `wait`. Any thread."""
        return self._result(slot, row).detections

    def _others(self, rows: int) -> dict[str, Tensor]:
        self._vocabulary = self._vocabulary.to(self.device)
        return {"vocabulary": self._vocabulary}

    @torch.inference_mode()
    def _result(self, slot: ImageSlot, row: int) -> Found:
        boxes, scores = (slot.results[name][row].numpy() for name in self.outputs)
        rows, classes = pairs(boxes, scores, self.selection)
        size, stored = slot.size(row), slot.stored[row]
        near = clip(torch.from_numpy(boxes[rows])[None], torch.tensor([size]))[0]
        good, of, at = (torch.from_numpy(a) for a in (scores[rows, classes], classes, rows))
        kept = nms(near, good, self.selection.overlap, self.selection.limit, of)
        found = to_stored(Selected(near[kept], good[kept], of[kept], at[kept]), size, stored)
        names = tuple(self.names[c] for c in found.classes.tolist())
        detections = Detections(found.boxes.numpy(), found.scores.numpy(), names)
        return Found(detections, found.classes.numpy(), found.proposal_index.numpy())


def pairs(boxes: Float32, scores: Float32, selection: Selection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The proposals and classes that count, before suppression: as `select` finds them, in NumPy.

    Of LVIS's 300,000 scores few are left, too few for PyTorch's threads, which are the models'.

    Args:
        boxes: (N, 4) float32; proposals with a number that is none do not count.
        scores: (N, C + 1) float32, the last column background.
        selection: what counts.

    Returns:
        Row and column of each, (K,) int64, row by row.
    """
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(scores[:, :-1].max(1) > selection.threshold)
    rows = rows[np.isfinite(scores[rows]).all(1) & np.isfinite(boxes[rows]).all(1)]
    named = scores[rows, :-1]
    chosen = named > selection.threshold
    if selection.one_class:
        chosen &= named == named.max(1, keepdims=True)
    at, classes = np.nonzero(chosen)
    return rows[at], classes
