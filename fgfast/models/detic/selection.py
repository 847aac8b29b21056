"""From refined boxes and scores to detections. Lists of varying length: on the host, after the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fgfast.models.detic.cascade import clip
from fgfast.models.detic.suppression import nms
from fgfast.records import Size


@dataclass(frozen=True, slots=True)
class Selection:
    """What counts as a detection.

    Attributes:
        threshold: scores must be above it (0.02 in the config, SCORE_THRESH_TEST; 0.5 in Detic's demo).
        one_class: keep only the best class of each proposal (ONE_CLASS_PER_PROPOSAL; on in the demo).
        overlap: IoU above which a detection suppresses another of its class (NMS_THRESH_TEST).
        limit: most detections of an image (DETECTIONS_PER_IMAGE).
    """

    threshold: float = 0.5
    one_class: bool = True
    overlap: float = 0.5
    limit: int = 300


class Selected(NamedTuple):
    """K detections of one image in descending order of score.

    Attributes:
        boxes: (K, 4) float32, pixels.
        scores: (K,) float32.
        classes: (K,) int64, rows of the vocabulary.
        proposal_index: (K,) int64, the proposal each came from.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    proposal_index: Tensor


def select(boxes: Tensor, scores: Tensor, size: Size, selection: Selection) -> Selected:
    """The detections of one image.

    Args:
        boxes: (N, 4) float32, refined, pixels of the resized image.
        scores: (N, C + 1) float32, the last column background.
        size: (h, w) of the resized image.

    Returns:
        Detections in pixels of the resized image, clipped to it.
    """
    boxes, scores = boxes.float(), scores.float()
    finite = torch.isfinite(boxes).all(1) & torch.isfinite(scores).all(1)
    scores = torch.where(finite[:, None], scores[:, :-1], 0.0)
    boxes = clip(boxes[None], torch.tensor([size], device=boxes.device))[0]
    chosen = scores > selection.threshold
    if selection.one_class:
        chosen &= scores == scores.amax(1, keepdim=True)
    rows, classes = (chosen & finite[:, None]).nonzero(as_tuple=True)
    pair_scores = scores[rows, classes]
    kept = nms(boxes[rows], pair_scores, selection.overlap, selection.limit, classes)
    return Selected(boxes[rows[kept]], pair_scores[kept], classes[kept], rows[kept])


def to_stored(found: Selected, size: Size, stored: Size) -> Selected:
    """From pixels of the resized image to pixels of the stored one, clipped to it; boxes without extent
    are dropped.

    Args:
        found: of one image.
        size, stored: (h, w) of the resized and of the stored image.
    """
    scale = found.boxes.new_tensor([stored[1] / size[1], stored[0] / size[0]]).repeat(2)
    boxes = clip((found.boxes * scale)[None], torch.tensor([stored], device=scale.device))[0]
    extent = boxes[:, 2:] - boxes[:, :2]
    full = (extent > 0).all(1)
    return Selected(boxes[full], *(column[full] for column in found[1:]))
