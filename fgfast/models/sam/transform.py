"""What happens to images and boxes before SAM, and to logits after it.

Frames: the *stored* image; the *resized* one, its longer edge as long as the side of SAM's square input; the
*square*, the resized image with zeros to its right and below.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from torch import Tensor
from torch.nn import functional

from fgfast.records import Float32, Size, UInt8

# segment-anything, build_sam.py: pixel_mean and pixel_std, RGB in grey levels.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# segment-anything, automatic_mask_generator.py: stability_score_offset, in logits.
_STABILITY_OFFSET = 1.0
# segment-anything, sam.py: mask_threshold, in logits.
THRESHOLD = 0.0


def resized_size(height: int, width: int, side: int) -> Size:
    """The size in pixels after resizing a stored image so that its longer edge is `side`."""
    scale = side / max(height, width)
    # segment-anything, ResizeLongestSide: halves are rounded up.
    return Size(int(height * scale + 0.5), int(width * scale + 0.5))


def resize(pixels: UInt8, side: int) -> UInt8:
    """(H, W, 3) uint8 RGB -> (h, w, 3) uint8: Pillow's bilinear filter with antialiasing, enlarging small images."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], side)
    image = PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
    return np.asarray(image)


def scale_boxes(boxes: Float32, height: int, width: int, side: int) -> Float32:
    """(N, 4) float32 x0 y0 x1 y1 in pixels of the stored image of (height, width) -> the same in the resized one.

    Each axis by its own factor, for the resized edges are whole numbers; in float64 within, as the reference does.
    """
    new_height, new_width = resized_size(height, width, side)
    factors = np.array([new_width / width, new_height / height] * 2)
    scaled: Float32 = (boxes.astype(np.float64) * factors).astype(np.float32)
    return scaled


def to_stored_size(low_res: Tensor, height: int, width: int, side: int) -> Tensor:
    """Logits of one image at the size it is stored in.

    Two bilinear steps without antialiasing, as in the reference: to the square, cut to the resized image, to the
    stored one. One step would give other masks.

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
    """(..., h, w) float32 logits -> (...) float32: pixels above +1 as a part of those above -1; NaN where none are."""
    surely = (logits > THRESHOLD + _STABILITY_OFFSET).sum((-1, -2))
    perhaps = (logits > THRESHOLD - _STABILITY_OFFSET).sum((-1, -2))
    return surely / perhaps
