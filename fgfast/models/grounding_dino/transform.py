"""How large Grounding DINO sees an image: what transformers' image processor does, without its detours. No torch."""

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
        shorter: what the shorter edge becomes,
        longest: unless the longer one would exceed this.
    """

    shorter: int
    longest: int

    def resized_size(self, height: int, width: int) -> Size:
        """The size after resizing, with the order of operations of transformers' get_size_with_aspect_ratio.

        There the shorter edge is rounded and the longer cut off, so that ratios change by up to a pixel.
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
    """What transformers' GroundingDinoImageProcessorPil makes of images.

    Raises:
        UsageError: something else than a bilinear resizing by the edges.
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
