"""Drawing and painting filters, each (H, W, 3) uint8 RGB -> (H, W, 3) uint8 RGB; the same input gives the same bytes.

Strokes are a share of the longer side, so that an image looks the same at any size. All but the sketch are filters of
OpenCV; the paint is that of its contrib module xphoto.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fgfast.records import Bool, UInt8

# The widest stroke as a share of the longer side, and its bounds in pixels: oil takes time by its square.
_STROKE, _MOST_STROKE = 0.01, 8
# The blur that a sketch divides by, as a share of the longer side: wider ones draw broader shades.
_SKETCH_BLUR = 0.02
# Range of colours, 0..1, that are one surface, and lightness of the shades: OpenCV's defaults but the first, 0.07, with
# which feathers become an even dark grey.
_PENCIL_RANGE, _PENCIL_SHADE, _WATER_RANGE = 0.25, 0.05, 0.45
# Sigma of these two as a share of the longer side: their default, 60 pixels, on an image of 500; OpenCV's most is 200.
_SMOOTH, _MOST_SMOOTH = 0.12, 200.0
# Cartoon: rounds of the bilateral filter, its diameter in pixels and its sigma of colours; levels of each channel; how
# much darker than its surroundings a line is, in levels of grey.
_ROUNDS, _DIAMETER, _SIGMA, _LEVELS, _DARKER = 3, 9, 60, 8, 6
# Levels of brightness among which oil takes the most frequent; OpenCV counts in steps of this.
_OIL_STEP = 1
# Width in pixels of the rim of a mask where colours are mixed with the background's.
_RIM = 2
# Sigma in pixels of the blur before edges are found: the noise of cameras is finer.
_EDGE_BLUR = 1.4


def extended(pixels: UInt8, bits: Bool) -> UInt8:
    """Give every pixel of the background the colour of the nearest pixel of the subject.

    A filter that looks around a pixel then sees neither the background nor an edge where it begins.

    Args:
        pixels: (H, W, 3) uint8.
        bits: (H, W) bool; True is subject. Without any the image is returned.

    Returns:
        (H, W, 3) uint8. Distances are Euclidean, within 2 % (OpenCV's distance transform with a mask of 5x5).
    """
    import cv2

    if not bits.any() or bits.all():
        return pixels
    labels: Any
    _, labels = cv2.distanceTransformWithLabels(
        (~bits).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    colours[labels[bits]] = pixels[bits]
    filled: UInt8 = colours[labels]
    return filled


def inner(bits: Bool) -> Bool:
    """Return a mask without its rim, whose pixels lenses mix with the background; thin parts are kept whole.

    Args:
        bits: (H, W) bool; True is subject.

    Returns:
        (H, W) bool, True nowhere else than `bits`, and somewhere where that is.
    """
    import cv2

    whole, square = bits.astype(np.uint8), np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)
    core: Any = cv2.erode(whole, square, borderType=cv2.BORDER_REPLICATE)
    # A part is thin where the core, grown again and by a pixel for corners, does not reach.
    reached: Any = cv2.dilate(cv2.dilate(core, square), np.ones((3, 3), np.uint8))
    kept: Bool = bits & ((core > 0) | (reached == 0))
    return kept


def sketch(pixels: UInt8) -> UInt8:
    """Draw dark lines on white: grey divided by its blur ("colour dodge"), at most white."""
    import cv2

    grey: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    blurred: Any = cv2.GaussianBlur(grey, (0, 0), max(1.0, _SKETCH_BLUR * _longer(grey)))
    return _three(divided(grey, blurred))


def divided(values: UInt8, by: UInt8) -> UInt8:
    """Return 255 * values / by, rounded to the nearest, at most 255; 255 where `by` is 0."""
    share = values.astype(np.float32) * 255 / np.maximum(by, 1).astype(np.float32)
    return np.where(by == 0, 255, np.minimum(np.rint(share), 255)).astype(np.uint8)


def pencil(pixels: UInt8) -> UInt8:
    """Shade with a grey pencil on paper with a grain."""
    import cv2

    grey, _ = cv2.pencilSketch(pixels, sigma_s=_smooth(pixels), sigma_r=_PENCIL_RANGE, shade_factor=_PENCIL_SHADE)
    return _three(np.asarray(grey))


def watercolour(pixels: UInt8) -> UInt8:
    """Paint even surfaces with dark borders, as wet paint leaves them."""
    import cv2

    return np.asarray(cv2.stylization(pixels, sigma_s=_smooth(pixels), sigma_r=_WATER_RANGE))


def cartoon(pixels: UInt8) -> UInt8:
    """Print few even colours, with black lines."""
    import cv2

    flat: Any = pixels
    for _ in range(_ROUNDS):
        flat = cv2.bilateralFilter(flat, _DIAMETER, _SIGMA, _DIAMETER)
    step = 256 // _LEVELS
    colours = (flat // step * step + step // 2).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY), 5)
    around = 2 * _stroke(pixels) + 1
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, around, _DARKER)
    return np.asarray(colours & np.asarray(lines)[:, :, None])


def oil(pixels: UInt8) -> UInt8:
    """Paint with a round brush: each pixel has the mean colour of the most frequent brightness under it."""
    import cv2

    return np.asarray(cv2.xphoto.oilPainting(pixels, _stroke(pixels), _OIL_STEP))


def edges(pixels: UInt8) -> UInt8:
    """Draw white edges on black (Canny 1986); the thresholds are Otsu's of the grey levels, and half of it."""
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), _EDGE_BLUR)
    high, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    return _three(np.asarray(cv2.Canny(grey, high / 2, high)))


STYLES: Mapping[str, Callable[[UInt8], UInt8]] = {
    "sketch": sketch,
    "pencil": pencil,
    "watercolour": watercolour,
    "cartoon": cartoon,
    "oil": oil,
    "edges": edges,
}
"""Name -> filter."""


def _three(grey: UInt8) -> UInt8:
    """Return a grey image, (H, W), as (H, W, 3)."""
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def _stroke(pixels: UInt8) -> int:
    """Return the radius of a stroke in pixels."""
    return min(max(1, round(_STROKE * _longer(pixels))), _MOST_STROKE)


def _smooth(pixels: UInt8) -> float:
    """Return the sigma of OpenCV's edge-aware filters, in pixels."""
    return min(max(1.0, _SMOOTH * _longer(pixels)), _MOST_SMOOTH)


def _longer(pixels: UInt8) -> int:
    """Return the longer side in pixels."""
    return max(int(pixels.shape[0]), int(pixels.shape[1]))
