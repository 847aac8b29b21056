"""Backgrounds made from an image. All images are uint8 RGB, (H, W, 3)."""

from __future__ import annotations

import math

import numpy as np

from fgfast.records import Bool, UInt8

# Standard deviation of the blur as a fraction of the image's longer side: shapes vanish, colours stay.
_BLUR_SIGMA = 0.04
# A scaled image is at most so many times as long and as wide as the part of it that is wanted.
_AT_ONCE = 4
# Longer side in pixels at which the blur is computed; a blur contains no finer detail.
_BLUR_SIDE = 256


def blurred_background(pixels: UInt8, bits: Bool) -> UInt8:
    """Blur the background alone, so that the subject's colours do not bleed into it.

    Normalised convolution (Knutsson and Westin 1993): blur(background * weight) / blur(weight), weight 0 on the
    subject.

    Args:
        pixels: (H, W, 3) uint8.
        bits: (H, W) bool, True is subject.

    Returns:
        (H, W, 3) uint8.
    """
    import cv2

    height, width = bits.shape
    scale = min(1.0, _BLUR_SIDE / max(height, width))
    small_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    weight = (~bits).astype(np.float32)
    weighted = pixels.astype(np.float32) * weight[:, :, None]
    small_weight = cv2.resize(weight, small_size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(weighted, small_size, interpolation=cv2.INTER_AREA)
    sigma = max(1.0, _BLUR_SIGMA * max(small_size))
    total = cv2.GaussianBlur(small_weight, (0, 0), sigma)
    mean = cv2.GaussianBlur(small, (0, 0), sigma) / np.maximum(total, 1e-6)[:, :, None]
    blurred = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.rint(blurred), 0, 255), np.uint8)


def extended_view(image: UInt8, window: tuple[int, int, int, int]) -> UInt8:
    """Crop an image to the window x0 y0 x1 y1, extended by its edge pixels: (y1 - y0, x1 - x0, 3)."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = window
    if window == (0, 0, width, height):
        return image
    rows = np.clip(np.arange(y0, y1), 0, height - 1)
    columns = np.clip(np.arange(x0, x1), 0, width - 1)
    return np.ascontiguousarray(image[rows[:, None], columns])


def cover(image: UInt8, width: int, height: int) -> UInt8:
    """Scale an image to cover (height, width) and crop it at the centre: (height, width, 3)."""
    import cv2

    scale = max(width / image.shape[1], height / image.shape[0])
    # Of a very thin image the middle suffices; all of it would be many times as large as the result.
    for axis, side in enumerate((height, width)):
        spare = image.shape[axis] - math.ceil(_AT_ONCE * side / scale)
        if spare > 1:
            image = image.take(range(spare // 2, image.shape[axis] - spare // 2), axis)
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[y : y + height, x : x + width])
