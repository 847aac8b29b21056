"""What happens to images before Detic, and to its boxes and scores after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fgfast.models.detic.cascade import clip
from fgfast.models.detic.suppression import nms
from fgfast.models.serving.batches import resized
from fgfast.models.serving.canvases import CANVAS_MULTIPLE, canvas_of
from fgfast.records import Size, UInt8

# MODEL.PIXEL_MEAN and PIXEL_STD of the config: ImageNet's, red, green, blue, on 0..255.
PIXEL_MEAN = (123.675, 116.280, 103.530)
PIXEL_STD = (58.395, 57.120, 57.375)


def resized_size(height: int, width: int, shorter: int, longest: int) -> Size:
    """The size after resizing: the shorter edge becomes `shorter` unless the longer would exceed `longest`.

    In double arithmetic, with detectron2's order of operations; one scale for each axis results.
    """
    scale = shorter / min(height, width)
    new_h, new_w = (shorter, scale * width) if height < width else (scale * height, shorter)
    if max(new_h, new_w) > longest:
        scale = longest / max(new_h, new_w)
        new_h, new_w = new_h * scale, new_w * scale
    return Size(int(new_h + 0.5), int(new_w + 0.5))


def resize(pixels: UInt8, size: Size) -> UInt8:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 with Pillow's BILINEAR, which averages when it shrinks."""
    return resized(pixels, size)


def normalise(pixels: UInt8) -> Tensor:
    """(h, w, 3) uint8 RGB -> (3, h, w) float32, zero mean and unit deviation."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(torch.float32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return planes.sub_(mean).div_(std)


def stack(
    images: Sequence[UInt8], multiple: int = CANVAS_MULTIPLE, canvas: Size | None = None
) -> tuple[Tensor, Tensor]:
    """Resized images as one batch, zero-padded right and bottom.

    Args:
        images: (h, w, 3) uint8 each, resized.
        multiple: the canvas grows in these steps, pixels.
        canvas: (H, W) of the canvas, multiples of 32; None: the smallest that holds all.

    Returns:
        (B, 3, H, W) float32, normalised, and the sizes (B, 2) int64, (h, w) in pixels.
    """
    sizes = [Size(*p.shape[:2]) for p in images]
    height, width = canvas or canvas_of(sizes, multiple)
    if any(h > height or w > width for h, w in sizes):
        raise ValueError(f"images of {sizes} (h, w) do not fit on a canvas of {(height, width)}")
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[0], : image.shape[1]] = normalise(image)
    return batch, torch.tensor(sizes, dtype=torch.int64)


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
