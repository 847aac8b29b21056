"""Sizes of resized images for Grounding DINO, equal to those of transformers' image processor. No torch here."""

from __future__ import annotations

from typing import Any

from fgfast.errors import UsageError
from fgfast.records import Size

# Pillow's number for BILINEAR, the value of `resample` in both checkpoints' preprocessor_config.json.
_BILINEAR = 2


def resized_size(height: int, width: int, shorter: int, longest: int) -> Size:
    """Return the size after resizing, by the same operations as transformers' get_size_with_aspect_ratio.

    They round the shorter edge and truncate the longer one, so that ratios change by up to a pixel.

    Args:
        height, width: of the stored image, in pixels.
        shorter: length of the shorter edge, unless the longer one would exceed `longest`.
        longest: maximum length of the longer edge.
    """
    low, high = float(min(height, width)), float(max(height, width))
    exact: float = shorter
    if high / low * shorter > longest:
        exact = longest * low / high
    rounded = round(exact)
    if min(height, width) == rounded:
        return Size(height, width)
    if width < height:
        return Size(int(exact * height / width), rounded)
    return Size(rounded, int(exact * width / height))


def edges_of(image_processor: Any) -> tuple[int, int]:
    """Return the shorter and the longest edge, in pixels, of transformers' GroundingDinoImageProcessorPil.

    Raises:
        UsageError: it does not resize bilinearly by the edges.
    """
    size, filtered = image_processor.size, int(image_processor.resample)
    try:
        edges = int(size["shortest_edge"]), int(size["longest_edge"])
    except (KeyError, TypeError):
        raise UsageError(
            f"the checkpoint resizes images to {size}; Grounding DINO needs shortest_edge and longest_edge"
        ) from None
    if filtered != _BILINEAR:
        raise UsageError(
            f"the checkpoint resizes images with Pillow's filter {filtered}, not with {_BILINEAR}, bilinear"
        )
    return edges
