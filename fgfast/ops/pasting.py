"""Pasting a subject into another image: the other image is scaled and cropped to cover it, then mixed by levels.

Both steps are those of the generator of Waterbirds (kohpangwei/group_DRO, dataset_scripts/dataset_utils.py), to the
level, wherever that one has a result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import ImageRefusedError
from fgfast.image_formats import MAX_PIXELS
from fgfast.records import Bool, Size, UInt8

OPAQUE = 255
"""The level of a pixel that is wholly subject."""


def cover_crop(pixels: UInt8, size: Size) -> UInt8:
    """Scale and crop an image so that it covers a size: evenly on both sides, Lanczos filter, not distorted.

    An image that is smaller than the size in width or height is enlarged first, until both cover it.

    Args:
        pixels: (h, w, 3) uint8.
        size: height and width of the result, in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ImageRefusedError: its sides are so unlike that it had more than `MAX_PIXELS` once enlarged.
    """
    import PIL.Image as pillow

    image = pillow.fromarray(pixels)
    if image.width < size.width or image.height < size.height:
        image = image.resize(_enlarged(image.size, size), pillow.Resampling.LANCZOS)
    cropped = image.crop(_window(image.size, size))
    return np.asarray(cropped.resize((size.width, size.height), pillow.Resampling.LANCZOS))


def _enlarged(own: tuple[int, int], size: Size) -> tuple[int, int]:
    """Return the width and height, in pixels, to which an image is enlarged: by its width where that suffices."""
    by_width = size.width, int((size.width / own[0]) * own[1])
    by_height = int((size.height / own[1]) * own[0]), size.height
    # The quotient may end just below a whole number, where the published code ends with an error.
    new = by_width if by_width[1] >= size.height else (max(by_height[0], size.width), by_height[1])
    if new[0] * new[1] > MAX_PIXELS:
        raise ImageRefusedError(
            "too large",
            f"{own[0]}x{own[1]} pixels would have to be enlarged to {new[0]}x{new[1]} to cover "
            f"{size.width}x{size.height}; at most {MAX_PIXELS:,} are handled",
        )
    return new


def _window(own: tuple[int, int], size: Size) -> tuple[int, int, int, int]:
    """Return left, upper, right, lower in pixels: the middle of an image with about the shape of `size`."""
    width, height = own
    shape = size.width / size.height
    if width / height > shape:
        off = min((width - int(shape * height)) // 2, (width - 1) // 2)  # at least a pixel is left
        return off, 0, width - off, height
    off = min((height - int(width / shape)) // 2, (height - 1) // 2)
    return 0, off, width, height - off


def paste(pixels: UInt8, background: UInt8, levels: UInt8) -> UInt8:
    """Mix a subject with a background: each is weighted and rounded to a whole number, then both are added.

    Args:
        pixels: (H, W, 3) uint8, the image with the subject.
        background: (H, W, 3) uint8.
        levels: (H, W) uint8; 255 is subject alone, 0 background alone.

    Returns:
        (H, W, 3) uint8.
    """
    if pixels.shape != background.shape or levels.shape != pixels.shape[:2]:
        raise ValueError(f"shapes must agree, not {pixels.shape}, {background.shape} and {levels.shape}")
    share = levels[:, :, None].astype(np.int32)
    mixed = _weighted(pixels, share) + _weighted(background, OPAQUE - share)  # at most 255: neither rounds a half up
    return mixed.astype(np.uint8)


def _weighted(values: UInt8, share: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return values * share / 255, rounded to the nearest; there is no tie, as 255 is odd."""
    return (values * (2 * share) + OPAQUE) // (2 * OPAQUE)


def hard_levels(bits: Bool) -> UInt8:
    """Return the levels of a mask, (H, W) uint8: 255 where it is True."""
    levels: UInt8 = bits.view(np.uint8) * np.uint8(OPAQUE)
    return levels
