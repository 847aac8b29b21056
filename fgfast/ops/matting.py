"""Soft edges: an alpha from a hard mask, the colours of foreground and background under it, and putting them together.

A pixel on the edge of a subject is alpha * F + (1 - alpha) * B. Laid on another background with its colour unchanged,
it takes the old background along; so F is estimated first. All images are RGB, (H, W, 3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.distances import distances
from fgfast.records import Bool, Float32, UInt8

PASSES = (91, 7, 7, 7)
"""Sides of the blurs of the passes in pixels. Forte 2021 has two, of 90 and 6; here they are odd, so that a blur is
centred, and the small one is repeated: of the error that is left on drawn subjects that takes a third to a half."""
_REACH = PASSES[-1]
"""Side of the square, in pixels, in which `interior` looks for pixels that are wholly subject, or background."""
# So many of them are enough: one alone may be the tip of a corner, and as wrong as the mask.
_ENOUGH = 2
# Below it a blurred alpha is 0 up to rounding: a single pixel of 1/255 gives 4.7e-7 in the larger blur.
_NOTHING = np.float32(1e-7)


def feathered(bits: Bool, width: float) -> Float32:
    """Turn a hard mask into an alpha that rises linearly across the outline.

    alpha = clip(1/2 + d / width, 0, 1), where d is the distance of the pixel's centre from the outline, positive
    inside: the Euclidean distance to the centre of the nearest pixel of the other side, less half a pixel. Where a
    subject leaves the image there is no outline.

    Args:
        bits: (H, W) bool; True is subject. It may be empty, or cover everything.
        width: of the rise in pixels, more than 0.

    Returns:
        (H, W) float32, 0 to 1; at least 1/2 on the mask and less off it.
    """
    if not width > 0:
        raise ValueError(f"width must be a number of pixels of more than 0, not {width}")
    if bits.all() or not bits.any():
        return bits.astype(np.float32)
    distance = np.where(bits, distances(bits) - np.float32(0.5), np.float32(0.5) - distances(~bits))
    alpha: Float32 = np.clip(np.float32(0.5) + distance / np.float32(width), 0, 1).astype(np.float32)
    return alpha


def blur_fusion(pixels: UInt8, alpha: Float32) -> tuple[Float32, Float32]:
    """Estimate the colours of foreground and background under an alpha.

    Blur fusion (M. Forte, Approximate Fast Foreground Colour Estimation, ICIP 2021), in passes of a box blur. With
    F = B = the image I at first:

        F' = blur(F alpha) / blur(alpha),    B' = blur(B (1 - alpha)) / blur(1 - alpha)
        F = clip(F' + alpha (I - alpha F' - (1 - alpha) B')),    B = B'

    Args:
        pixels: (H, W, 3) uint8, the image.
        alpha: (H, W) float32, 0 to 1.

    Returns:
        Foreground and background, (H, W, 3) float32 of 0 to 255 each. They are estimates where alpha is neither 0
        nor 1; where it is 1 the foreground, and where it is 0 the background is the image. The respective other one is
        the image, too: it has no weight there.
    """
    foreground = pixels.astype(np.float32)
    background = foreground.copy()
    soft = (alpha > 0) & (alpha < 1)
    window = _around(soft, sum(side // 2 for side in PASSES))
    if window is not None:
        image, weight = foreground[window].copy(), alpha[window][:, :, None]
        here = soft[window]
        front, back = image, image
        parts = {side: (_part(weight, side), _part(1 - weight, side)) for side in set(PASSES)}
        for side in PASSES:
            front, back = _fuse(image, weight, front, back, side, parts[side])
        foreground[window][here] = front[here]
        background[window][here] = np.clip(back[here], 0, 255)
    return foreground, background


def interior(pixels: UInt8, alpha: Float32) -> tuple[Float32, Float32]:
    """Estimate the colours under an alpha that is a guess, as that of `feathered` is, without looking at its pixels.

    A soft pixel has the mean colour of the pixels with alpha 1 around it as its foreground, of those with alpha 0 as
    its background. Blur fusion trusts alpha instead: where a mask is a pixel too large, or an edge sharper than its
    alpha, it takes the old background for the subject's own colour. Where there are no such pixels around, as on legs
    that are thinner than the soft edge, the colours are those of blur fusion.

    Args:
        pixels: (H, W, 3) uint8, the image.
        alpha: (H, W) float32, 0 to 1.

    Returns:
        See `blur_fusion`.
    """
    foreground, background = blur_fusion(pixels, alpha)
    soft = (alpha > 0) & (alpha < 1)
    window = _around(soft, _REACH // 2)
    if window is not None:
        image, here = pixels[window].astype(np.float32), soft[window]
        for colours, level in ((foreground, 1), (background, 0)):
            sure = (alpha[window] == level).astype(np.float32)[:, :, None]
            part = _part(sure, _REACH)
            enough = here & (part[:, :, 0] * _REACH**2 > _ENOUGH - 0.5)
            colours[window][enough] = (_blurred(image * sure, _REACH) / part)[enough]
    return foreground, background


def _fuse(
    image: Float32, alpha: Float32, front: Float32, back: Float32, side: int, parts: tuple[Float32, Float32]
) -> tuple[Float32, Float32]:
    """One pass: image, front, back (h, w, 3); alpha, `_part` of it and of 1 - alpha (h, w, 1); new front, back."""
    mean_front: Float32 = _blurred(front * alpha, side) / parts[0]
    mean_back: Float32 = _blurred(back * (1 - alpha), side) / parts[1]
    fused: Float32 = mean_front + alpha * (image - alpha * mean_front - (1 - alpha) * mean_back)
    return np.clip(fused, np.float32(0), np.float32(255)), mean_back


def _part(weight: Float32, side: int) -> Float32:
    """The part of a square of `side` pixels that has weight, (h, w, 1), to divide by."""
    part: Float32 = np.maximum(_blurred(weight, side), _NOTHING)
    return part


def _blurred(values: Float32, side: int) -> Float32:
    """The mean over a square of `side` pixels, mirrored at the image's edge (without its last row): (h, w, c)."""
    import cv2

    mean: Any = cv2.blur(np.ascontiguousarray(values), (side, side), borderType=cv2.BORDER_REFLECT_101)
    result: Float32 = mean.reshape(values.shape)
    return result


def _around(bits: Bool, margin: int) -> tuple[slice, slice] | None:
    """The rows and columns around the True pixels of (H, W) bool, with a margin; None where there are none."""
    sides = []
    for axis in (1, 0):
        found = np.flatnonzero(bits.any(axis=axis))
        if not found.size:
            return None
        sides.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin))
    return sides[0], sides[1]


def mixed(foreground: UInt8 | Float32, alpha: Float32, background: UInt8 | Float32) -> UInt8:
    """Lay a foreground on a background: alpha * foreground + (1 - alpha) * background, rounded.

    Args:
        foreground: (H, W, 3) uint8, or float32 of 0 to 255.
        alpha: (H, W) float32, 0 to 1.
        background: as the foreground; or one colour, (3,).

    Returns:
        (H, W, 3) uint8. Where alpha is 1 it is the foreground, where it is 0 the background, both rounded.
    """
    weight = alpha[:, :, None]
    both: NDArray[Any] = foreground.astype(np.float32) * weight + background.astype(np.float32) * (1 - weight)
    return np.asarray(np.clip(np.rint(both), 0, 255), np.uint8)
