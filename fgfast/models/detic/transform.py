"""Sizes of resized images for Detic, and the selection of detections from its boxes and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.models.detic.suppression import nms
from fgfast.records import Float32, Size


def resized_size(height: int, width: int, shorter: int, longest: int) -> Size:
    """Return the size after resizing: the shorter edge becomes `shorter` unless the longer would exceed `longest`.

    In double arithmetic, with detectron2's order of operations; the result is one scale per axis.
    """
    scale = shorter / min(height, width)
    new_h, new_w = (shorter, scale * width) if height < width else (scale * height, shorter)
    if max(new_h, new_w) > longest:
        scale = longest / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return Size(int(new_h + 0.5), int(new_w + 0.5))


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules for selecting detections.

    Attributes:
        threshold: scores must be above it (0.02 in the config, SCORE_THRESH_TEST; 0.5 in Detic's demo).
        one_class: keep only the best class of each proposal (ONE_CLASS_PER_PROPOSAL; on in the demo).
        overlap: IoU above which a detection suppresses another of its class (NMS_THRESH_TEST).
        limit: maximum number of detections per image (DETECTIONS_PER_IMAGE).
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
        proposal_index: (K,) int64, the proposal of each.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    proposal_index: Tensor


def select(boxes: Tensor, scores: Tensor, size: Size, selection: Selection) -> Selected:
    """Select the detections of one image.

    Args:
        boxes: (N, 4) float32 on the CPU, refined, pixels of the resized image.
        scores: (N, C + 1) float32 on the CPU, the last column background.
        size: (h, w) of the resized image.
        selection: the rules.

    Returns:
        Detections in pixels of the resized image, clipped to it.
    """
    rows, classes = map(torch.from_numpy, pairs(boxes.numpy(), scores.numpy(), selection))
    near = clip(boxes[rows][None], torch.tensor([size]))[0]
    found = scores[rows, classes]
    kept = nms(near, found, selection.overlap, selection.limit, classes)
    return Selected(near[kept], found[kept], classes[kept], rows[kept])


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip boxes (B, N, 4) to images of sizes (B, 2) = (h, w)."""
    height, width = sizes.to(boxes.dtype).unbind(1)
    limit = torch.stack([width, height, width, height], 1)[:, None]
    return torch.minimum(boxes.clamp(min=0), limit)


def pairs(boxes: Float32, scores: Float32, selection: Selection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the proposals and classes that pass the threshold, before suppression.

    In NumPy, because few of LVIS's 300,000 scores pass, too few for PyTorch's threads, which belong to the models.

    Args:
        boxes: (N, 4) float32; proposals with a box or score that is not finite are dropped.
        scores: (N, C + 1) float32, the last column background.
        selection: the rules.

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


def to_stored(found: Selected, size: Size, stored: Size) -> Selected:
    """Convert pixels of the resized image to pixels of the stored one; clip boxes to it and drop those without extent.

    Args:
        found: of one image.
        size, stored: (h, w) of the resized and of the stored image.
    """
    scale = found.boxes.new_tensor([stored[1] / size[1], stored[0] / size[0]]).repeat(2)
    boxes = clip((found.boxes * scale)[None], torch.tensor([stored], device=scale.device))[0]
    extent = boxes[:, 2:] - boxes[:, :2]
    full = (extent > 0).all(1)
    return Selected(boxes[full], *(column[full] for column in found[1:]))
