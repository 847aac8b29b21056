"""The open vocabulary: class names as vectors, chosen at run time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# CLIP ViT-B/32's embedding (ZEROSHOT_WEIGHT_DIM), Detic's NORM_TEMP, and the least norm by which torch's normalize
# divides.
EMBEDDING = 512
TEMPERATURE = 50.0
LEAST_NORM = 1e-12


def classifier(embeddings: Tensor) -> Tensor:
    """Return the matrix that maps box embeddings to logits.

    Args:
        embeddings: (C, 512), text embeddings of C names, any floating type, not necessarily normalised.

    Returns:
        (512, C + 1) float32, unit columns; the last one, for background, is zero.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != EMBEDDING:
        raise ValueError(f"text embeddings must be (classes, {EMBEDDING}), not {tuple(embeddings.shape)}")
    columns = functional.pad(embeddings.to(torch.float32).T, (0, 1))
    return functional.normalize(columns, dim=0, eps=LEAST_NORM).contiguous()


def class_logits(embeddings: Tensor, vocabulary: Tensor) -> Tensor:
    """(B, N, 512) box embeddings, (512, C + 1) vocabulary -> (B, N, C + 1) float32, 50 times the cosine."""
    return (TEMPERATURE * functional.normalize(embeddings.float(), dim=-1, eps=LEAST_NORM)) @ vocabulary
