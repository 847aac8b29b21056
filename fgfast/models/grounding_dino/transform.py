"""Sizes of resized images for Grounding DINO, equal to those of transformers' image processor. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fgfast.errors import UsageError
from fgfast.records import Size

# Pillow's number for BILINEAR, which both checkpoints' preprocessor_config.json have as `resample`.
_BILINEAR = 2


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of resized images, in pixels.

    Attributes:
        shorter: length of the shorter edge, unless the longer one would exceed `longest`.
        longest: maximum length of the longer edge.
    """

    shorter: int
    longest: int

    def resized_size(self, height: int, width: int) -> Size:
        """Return the size after resizing, by the same operations as transformers' get_size_with_aspect_ratio.

        They round the shorter edge and truncate the longer one, so that ratios change by up to a pixel.
        """
        low, high = float(min(height, width)), float(max(height, width))
        exact: float = self.shorter
        if high / low * self.shorter > self.longest:
            exact = self.longest * low / high
        shorter = round(exact)
        if min(height, width) == shorter:
            return Size(height, width)
        if width < height:
            return Size(int(exact * height / width), shorter)
        return Size(shorter, int(exact * width / height))


def edges_of(image_processor: Any) -> Edges:
    """Return the edges of transformers' GroundingDinoImageProcessorPil.

    Raises:
        UsageError: it does not resize bilinearly by the edges.
    """
    size, filtered = image_processor.size, int(image_processor.resample)
    try:
        edges = Edges(int(size["shortest_edge"]), int(size["longest_edge"]))
    except (KeyError, TypeError):
        raise UsageError(
            f"the checkpoint resizes images to {size}; Grounding DINO's say shortest_edge and longest_edge"
        ) from None
    if filtered != _BILINEAR:
        raise UsageError(
            f"the checkpoint resizes images with Pillow's filter {filtered}, not with {_BILINEAR}, bilinear"
        )
    return edges
