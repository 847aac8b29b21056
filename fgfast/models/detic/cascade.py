"""The cascade: three box heads, each pooling the boxes that the one before refined."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.roi import BINS, levels_of, pool
from fgfast.models.detic.transform import clip
from fgfast.models.detic.vocabulary import EMBEDDING, class_logits

# ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS, and detectron2's clamp of the exponent.
STAGE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LARGEST_LOG = math.log(1000.0 / 16)


class Refined(NamedTuple):
    """The cascade's results for N boxes per image and C classes.

    Attributes:
        boxes: (B, N, 4) float32, pixels of the resized image, unclipped.
        scores: (B, N, C + 1) float32 in 0..1, the last column background.
    """

    boxes: Tensor
    scores: Tensor


class StageResult(NamedTuple):
    """Tensors of one stage: pooled and refined boxes (B, N, 4) float32 pixels, levels (B, N), pooled (B, N, F, 7, 7),
    features (B, N, D), deltas (B, N, 4) float32, and class embeddings (B, N, 512) float32.
    """

    input_boxes: Tensor
    level: Tensor
    pooled: Tensor
    features: Tensor
    deltas: Tensor
    refined_boxes: Tensor
    embeddings: Tensor


class BoxHead(nn.Module):
    """Two linear layers on pooled features."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * BINS * BINS, features)
        self.fc2 = nn.Linear(features, features)

    def forward(self, pooled: Tensor) -> Tensor:
        """(n, F, 7, 7) -> (n, D), in the precision of the weights."""
        flat = pooled.flatten(1).to(self.fc1.weight.dtype)
        return functional.relu(self.fc2(functional.relu(self.fc1(flat))))


class ClassEmbedding(nn.Module):
    """From box features to the space of the text embeddings; the vocabulary is an input of the model."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, EMBEDDING)

    def forward(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, 512) float32, not normalised."""
        return self.linear(features.to(self.linear.weight.dtype)).float()


class BoxPredictor(nn.Module):
    """Class embedding and class-agnostic box deltas."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.cls_score = ClassEmbedding(features)
        self.bbox_pred = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 4))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) -> class embeddings (n, 512) and deltas (n, 4), float32."""
        first, last = self.bbox_pred[0], self.bbox_pred[2]
        hidden = functional.relu(first(features.to(first.weight.dtype)))
        return self.cls_score(features), last(hidden.to(last.weight.dtype)).float()


class Cascade(nn.Module):
    """Box heads and predictors of the three stages."""

    def __init__(self, config: DeticConfig) -> None:
        super().__init__()
        width = config.box_features
        self.box_head = nn.ModuleList(BoxHead(config.pyramid_channels, width) for _ in STAGE_WEIGHTS)
        self.box_predictor = nn.ModuleList(BoxPredictor(width) for _ in STAGE_WEIGHTS)
        # May be replaced by an exportable operator of the same signature.
        self.pool = pool

    def forward(self, maps: list[Tensor], boxes: Tensor, sizes: Tensor, valid: Tensor | None) -> list[StageResult]:
        """Run all three stages.

        Args:
            maps: p3, p4, p5, (B, C, h, w).
            boxes: (B, N, 4) float32, the proposals, pixels, unclipped.
            sizes: (B, 2) int64, (h, w) of the resized images.
            valid: (B, 2) int64, pixels, or None; see canvas.py.
        """
        results = []
        for number in range(len(STAGE_WEIGHTS)):
            if number:
                boxes = clip(boxes, sizes)
            results.append(self.stage(number, maps, boxes, valid))
            boxes = results[-1].refined_boxes
        return results

    def stage(self, number: int, maps: list[Tensor], boxes: Tensor, valid: Tensor | None) -> StageResult:
        """Run one stage on the boxes that it pools; for the arguments see forward."""
        level = levels_of(boxes)
        pooled = self.pool(maps, boxes, level, valid)
        # The boxes of all images in rows: each linear layer is one product, also in a graph.
        features = self.box_head[number](pooled.flatten(0, 1))
        found = features, *self.box_predictor[number](features)
        features, embeddings, deltas = (rows.unflatten(0, boxes.shape[:2]) for rows in found)
        refined = decode(boxes, deltas, STAGE_WEIGHTS[number])
        return StageResult(boxes, level, pooled, features, deltas, refined, embeddings)


def decode(boxes: Tensor, deltas: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Move boxes (..., 4) by deltas (..., 4): centres by fractions of the extent, extents by exponentials; float32.

    The weights of x and y are equal, and so are those of width and height.
    """
    assert weights[::2] == weights[1::2]
    extent = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + 0.5 * extent
    # A tensor of the weights would be copied from the host, which would wait for the GPU.
    shift, growth = (part / torch.full_like(part, w) for part, w in zip(deltas.split(2, -1), weights[::2], strict=True))
    centre = shift * extent + centre
    half = 0.5 * torch.exp(growth.clamp(max=LARGEST_LOG)) * extent
    return torch.cat([centre - half, centre + half], -1)


def combine(stages: list[StageResult], proposal_scores: Tensor, vocabulary: Tensor) -> Refined:
    """Return the boxes of the last stage, and scores from the mean of all three and the proposal's own.

    Args:
        stages: of the cascade.
        proposal_scores: (B, N) float32.
        vocabulary: (512, C + 1) float32, see vocabulary.classifier.
    """
    total = torch.stack([class_logits(stage.embeddings, vocabulary).sigmoid() for stage in stages]).mean(0)
    return Refined(stages[-1].refined_boxes, torch.sqrt(total * proposal_scores[..., None]))
