"""Which cells of a feature map are foreground, and what masking does with pixels, maps and pooling.

Gradients need no rule of their own: features are multiplied by 0 or 1, and so are their gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from fgfast.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Fills that a model can write into normalised pixels; the others look at the image and are made at stored size.
_FILLS = ("black", "mean")


def cells(mask: Tensor, size: tuple[int, int], share: float) -> Tensor:
    """Return which cells are foreground.

    Args:
        mask: (B, 1, H, W), subject 1, background 0.
        size: (h, w) of the feature map.
        share: a cell is foreground where at least this share of it is subject.

    Returns:
        (B, 1, h, w) of the mask's dtype, 0 or 1. A mask that is not empty has at least one cell: the one with most of
        the subject, the first of several.
    """
    shares = functional.interpolate(mask, size, mode="area")
    flat = shares.flatten(1)
    most = flat.argmax(1, keepdim=True)
    chosen = flat >= share
    chosen = chosen.scatter(1, most, chosen.gather(1, most) | (flat.gather(1, most) > 0))
    return chosen.view(shares.shape).to(mask.dtype)


def early(pixels: Tensor, mask: Tensor, fill: str, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return normalised pixels with the background overwritten.

    Args:
        pixels: (B, 3, H, W), normalised with mean and std.
        mask: (B, 1, H, W); the subject is where it is above 0.5.
        fill: "black" or "mean".
        mean: of the model's normalisation, 0..1.
        std: of the model's normalisation, 0..1.

    Raises:
        UsageError: the fill depends on the image, and was to be written at stored size.
    """
    if fill not in _FILLS:
        raise UsageError(
            f"a model can fill the background with {' or '.join(_FILLS)}, not {fill}: that is done on stored pixels "
            "(fgfast.studies.arms), and the model then gets the strategy without its early part"
        )
    colour = [-m / s if fill == "black" else 0.0 for m, s in zip(mean, std, strict=True)]
    return torch.where(mask > 0.5, pixels, pixels.new_tensor(colour).view(1, -1, 1, 1))


def pooled_fg(features: Tensor, keep: Tensor) -> Tensor:
    """Return the mean over foreground cells, (B, D); zeros where a mask is empty.

    Args:
        features: (B, N, D).
        keep: (B, N, 1), 0 or 1.
    """
    return (features * keep).sum(1) / keep.sum(1).clamp(min=1)


def visible_keys(keep: Tensor, prefix: int) -> Tensor:
    """Return the attention mask that hides the background's keys from every query, (B, 1, 1, prefix + N) bool.

    Args:
        keep: (B, N, 1), 0 or 1.
        prefix: class and register tokens before the patches, which stay visible.
    """
    seen = torch.ones(keep.shape[0], prefix, dtype=torch.bool, device=keep.device)
    return torch.cat([seen, keep[..., 0] > 0.5], 1)[:, None, None]
