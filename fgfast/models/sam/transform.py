"""Pre-processing of images and boxes for SAM, and post-processing of its logits.

Frames: the *stored* image; the *resized* one, whose longer edge equals the side of SAM's square input; the *square*,
which is the resized image padded with zeros at the right and bottom.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fgfast.records import Float32, Size

# segment-anything, automatic_mask_generator.py: stability_score_offset, in logits.
_STABILITY_OFFSET = 1.0
# segment-anything, sam.py: mask_threshold, in logits.
THRESHOLD = 0.0


def resized_size(height: int, width: int, side: int) -> Size:
    """Return the size in pixels of a stored image after resizing its longer edge to `side`."""
    scale = side / max(height, width)
    # segment-anything, ResizeLongestSide: halves are rounded up.
    return Size(int(height * scale + 0.5), int(width * scale + 0.5))


def scale_boxes(boxes: Float32, height: int, width: int, side: int) -> Float32:
    """(N, 4) float32 x0 y0 x1 y1 in pixels of the stored image of (height, width) -> the same in the resized one.

    Each axis has its own factor, because the resized edges are whole numbers; computed in float64, like the reference.
    """
    new_height, new_width = resized_size(height, width, side)
    factors = np.array([new_width / width, new_height / height] * 2)
    return (boxes.astype(np.float64) * factors).astype(np.float32)


def to_stored_size(low_res: Tensor, height: int, width: int, side: int) -> Tensor:
    """Resize the logits of one image to its stored size.

    Two bilinear steps without antialiasing, as in the reference: to the square, cropped to the resized image, and to
    the stored size. One step would give different masks. The reference for ops.mask_post.

    Args:
        low_res: (N, M, s, s) float32 logits over the square.
        height: of the stored image, in pixels.
        width: of the stored image, in pixels.
        side: of the square, in pixels.

    Returns:
        (N, M, height, width) float32.
    """
    resized_height, resized_width = resized_size(height, width, side)
    square = functional.interpolate(low_res.float(), (side, side), mode="bilinear", align_corners=False)
    resized = square[..., :resized_height, :resized_width]
    return functional.interpolate(resized, (height, width), mode="bilinear", align_corners=False)


def stability(logits: Tensor) -> Tensor:
    """(..., h, w) float32 logits -> (...) float32: pixels above +1 as a fraction of those above -1; NaN without any.

    Counted in float32, because graphs must not calculate with integers; exact for up to 2**24 pixels.
    """
    limits = (THRESHOLD + _STABILITY_OFFSET, THRESHOLD - _STABILITY_OFFSET)
    above, below = ((logits > limit).sum((-1, -2), dtype=torch.float32) for limit in limits)
    return above / below
