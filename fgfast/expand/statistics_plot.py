"""A plot of one subject's statistics, beside the same of the unmasked image; drawn with OpenCV.

Left: the whole image with all its keypoints. Right: those inside the mask, independent ones in green, others in orange.
Below: histograms of nine channels, the whole image as a grey area, the subject as a line, each as shares of its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fgfast.ops import histograms, keypoints
from fgfast.ops.keypoints import Keypoints
from fgfast.records import Bool, UInt8

# Pixels: the longer side of an image, the gap between panels, the height of a line of text, a histogram's height.
_SIDE, _GAP, _TEXT, _CHART = 360, 8, 20, 90
# RGB. Orange and green differ in brightness, too, for those who cannot tell them by hue.
_INK, _PAPER, _AREA = (40, 40, 40), (255, 255, 255), (205, 205, 205)
_FREE, _BOUND, _OTHER, _OUTLINE = (0, 230, 90), (255, 140, 0), (255, 235, 60), (255, 0, 255)
_LINE = (0, 90, 200)
# Pixels: ORB's keypoints are drawn as dots of this radius. Their circles, 31 px and more, would hide the image.
_DOT = 2
# Bins of a drawn histogram.
_BINS = 64
_NAMES = {"rgb": "RGB", "hsv": "HSV", "lab": "Lab"}
_FINDERS = {"sift": keypoints.sift, "orb": keypoints.orb}


def draw(pixels: UInt8, bits: Bool, grey: UInt8, found: Mapping[str, tuple[Keypoints, Bool]], strongest: int) -> UInt8:
    """Draw a subject's statistics.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole image.
        bits: (H, W) bool; True is subject.
        grey: (H, W) uint8.
        found: "sift", "orb" -> the subject's keypoints, and whether each is independent.
        strongest: number of keypoints of the whole image that are drawn at most.

    Returns:
        (h, w, 3) uint8 RGB, some 730 px wide.
    """
    import cv2

    scale = _SIDE / max(bits.shape)
    size = max(1, round(bits.shape[1] * scale)), max(1, round(bits.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    outlined = small.copy()
    mask = cv2.resize(bits.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(outlined, edges, -1, _OUTLINE, 1)
    rows = []
    for kind, (inside, free) in found.items():
        whole = _FINDERS[kind](grey, np.ones_like(bits), describe=False)
        whole = whole[np.arange(min(len(whole), strongest))]
        left = _marked(small, kind, whole, scale, np.zeros(len(whole), bool), (_OTHER, _OTHER))
        right = _marked(outlined, kind, inside, scale, free, (_FREE, _BOUND))
        rows += [
            _titled(left, f"{kind.upper()}, whole image: {len(whole)}"),
            _titled(right, f"subject: {len(inside)}; green, {int(free.sum())}: independent"),
        ]
    if not rows:
        rows = [_titled(small, "image"), _titled(outlined, "subject")]
    pairs = [_beside([a, b]) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    pairs += [_titled(_charts(pixels, bits, pairs[0].shape[1]), " Histograms; line: subject, grey: whole image")]
    width = max(pair.shape[1] for pair in pairs)
    return np.vstack([_padded(pair, width) for pair in pairs])


def _marked(
    pixels: UInt8, kind: str, points: Keypoints, scale: float, free: Bool, colours: tuple[tuple[int, ...], ...]
) -> UInt8:
    """Draw SIFT keypoints as circles of their size with a line in their direction, others as dots, on a copy.

    Args:
        free: (N,) bool; a keypoint that is gets the first of the two colours.
    """
    import cv2

    result: UInt8 = pixels.copy()
    # Small ones last, so that large ones do not hide them; in 1/16 px.
    for n in np.argsort(-points.sizes, kind="stable"):
        x, y = (points.points[n].astype(np.float64) + 0.5) * scale - 0.5
        centre, colour = (round(x * 16), round(y * 16)), colours[0] if free[n] else colours[1]
        if kind != "sift":
            cv2.circle(result, centre, _DOT * 16, colour, 1, cv2.LINE_AA, 4)
            continue
        radius, turn = float(points.sizes[n]) / 2 * scale, np.deg2rad(float(points.angles[n]))
        tip = round((x + radius * np.cos(turn)) * 16), round((y + radius * np.sin(turn)) * 16)
        cv2.circle(result, centre, round(radius * 16), colour, 1, cv2.LINE_AA, 4)
        cv2.line(result, centre, tip, colour, 1, cv2.LINE_AA, 4)
    return result


def _charts(pixels: UInt8, bits: Bool, width: int) -> UInt8:
    """Draw the histograms of all channels, three in a row."""
    rows = []
    for space, channels in histograms.SPACES.items():
        values = histograms.converted(pixels, space)
        row = []
        for n, channel in enumerate(channels):
            most = histograms.values_of(space, channel)
            whole = histograms.histogram(values[..., n].ravel(), _BINS, most)
            inside = histograms.histogram(histograms.inside(values, bits)[:, n], _BINS, most)
            title = f"{_NAMES[space]}: {channel.upper() if channel == 'l' else channel}, 0..{most - 1}"
            row.append(_titled(_chart(whole, inside, max(_BINS, (width - 4 * _GAP) // 3)), title))
        rows.append(_beside(row))
    return np.vstack(rows)


def _chart(whole: NDArray[np.int64], inside: NDArray[np.int64], width: int) -> UInt8:
    """Draw two histograms, (N,) int64 counts, as shares of their sums, on one scale."""
    import cv2

    result = np.full((_CHART, width, 3), 245, np.uint8)
    shares = [counts / max(1, counts.sum()) for counts in (whole, inside)]
    top = max(share.max() for share in shares)
    at = np.linspace(0, width - 1, len(whole))
    area, line = (np.stack([at, (_CHART - 1) * (1 - share / top)], 1).round().astype(np.int32) for share in shares)
    corners = np.array([[width - 1, _CHART - 1], [0, _CHART - 1]], np.int32)
    cv2.fillPoly(result, [np.vstack([area, corners])], _AREA)
    cv2.polylines(result, [line], False, _LINE, 1, cv2.LINE_AA)
    return result


def _titled(pixels: UInt8, title: str) -> UInt8:
    """Put a line of text above an image."""
    import cv2

    band = np.full((_TEXT, pixels.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(band, title, (2, _TEXT - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    return np.vstack([band, pixels])


def _beside(panels: list[UInt8]) -> UInt8:
    """Put images of one height side by side, with gaps around."""
    gap = np.full((panels[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    parts = [gap, *(part for panel in panels for part in (panel, gap))]
    return np.hstack(parts)


def _padded(pixels: UInt8, width: int) -> UInt8:
    """Make an image this wide, white at the right."""
    more = np.full((pixels.shape[0], width - pixels.shape[1], 3), _PAPER, np.uint8)
    return np.hstack([pixels, more])
