"""GrabCut: the segmenter that needs no weights, from a box to the subject's mask.

The idea is Rother, Kolmogorov, Blake, "GrabCut" (2004): colour models of subject and background alternate with a
minimum cut. Three things differ from cv2.grabCut with a rectangle:

1. Two more cues than colour: the place of a pixel in the box (subjects are in the middle, not in the corners), and the
   number of edges between a pixel and the outside of the box (Wei et al., "Geodesic saliency using background priors",
   2012). They start the colour models, then fade, but never vanish: otherwise masks collapse or fill the box.
2. Colour models are smoothed histograms in Lab, not Gaussian mixtures: no k-means, so no random numbers.
3. The cut is OpenCV's, but its input is our own odds (see `minimum_cut`).

The cut is computed on the box and its surroundings, shrunk; a guided filter (He et al., 2010) transfers its outline to
the stored image. The same input gives the same bits on every thread; no global state of OpenCV changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
from fgfast.models.colour_cut import (
    SURE,
    cheapest_paths,
    colour_bins,
    colour_odds,
    minimum_cut,
    principal,
    shrink,
    tidy,
)
from fgfast.records import Bool, Float32, Mask, UInt8

Box = tuple[float, float, float, float]

# Settings: round numbers chosen on 26 photographs; their neighbours do about as well.
SIZE = 320  # px, longer side of the crop while it is cut; time grows with its square
MARGIN = 0.3  # box sizes, surroundings included on each side, which show the background nearby
SLACK = 0.04  # box sizes by which a subject may exceed its box; annotators are a few per cent off
SOFT_ROUNDS, CUT_ROUNDS = 4, 2  # colour models from probabilities, then from cuts
# The place prior is ELLIPSE * (CENTRE - r) nats, where r is the radius of a superellipse of this power.
ELLIPSE, POWER, CENTRE = 3.0, 2.5, 0.95
WALK = 3.0  # nats between the average and the most enclosed pixel of a box
FADE, WALK_FADE = 0.1, 0.3  # what remains of the two priors for cuts; with nothing left, masks collapse
FILTER_SIDE = 640  # px, longer side of the crop for the guided filter; bounds time and memory
FILTER_RADIUS, FILTER_EPS = 3.0, 400.0  # of the guided filter: px of the working size, squared grey levels (20)
EVIDENCE = 0.25  # nats by which subject and background colours must differ on average, else the mask is empty

OUTSIDE = 3.0  # nats against pixels outside the box but within SLACK
GEODESIC_SIDE = 160  # px; the walk needs regions, not detail, and takes 7 ms at this size
CORNER = 1.2  # `_ellipse` radius from which the image's frame counts as outside; only corners of boxes have it
MINIMUM_BOX = 2.0  # px; a smaller box gives no evidence


def segmenter(spec: ModelSpec) -> Callable[[UInt8, Float32, int], Mask]:
    """Return GrabCut as a segmenter: (pixels, box, banner rows) -> mask."""
    return lambda pixels, box, banner: Mask(segment(pixels, box, banner))


def check_opencv() -> None:
    """Raise UsageError unless the installed OpenCV has the guided filter."""
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise UsageError(
            "GrabCut needs the guided filter of opencv-contrib-python-headless, but another OpenCV package hides it: "
            "pip uninstall opencv-python opencv-python-headless opencv-contrib-python, then "
            "pip install --force-reinstall opencv-contrib-python-headless"
        )


def opencv_version() -> str:
    """Return the version of OpenCV, on whose cuts, filters and encoders the results of a run depend."""
    import cv2

    return str(cv2.__version__)


def scale(box: Box, old: UInt8, new: UInt8) -> Box:
    """Convert a box from pixels of `old` to pixels of `new`."""
    sx, sy = new.shape[1] / old.shape[1], new.shape[0] / old.shape[0]
    return box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy


def _ellipse(shape: tuple[int, ...], box: Box) -> Float32:
    """Return the distance from the box's centre, float32 of `shape`: 1 in the middle of a side, 1.3 in a corner."""
    u = np.abs((2 * np.arange(shape[1]) + 1 - box[0] - box[2]) / (box[2] - box[0]))
    v = np.abs((2 * np.arange(shape[0]) + 1 - box[1] - box[3]) / (box[3] - box[1]))
    return ((u[None] ** POWER + v[:, None] ** POWER) ** (1 / POWER)).astype(np.float32)


def outside(shape: tuple[int, ...], box: Box, slack: float) -> Bool:
    """Return bool of `shape`: pixels whose centres are more than `slack` box sizes outside the box."""
    dx, dy = slack * (box[2] - box[0]), slack * (box[3] - box[1])
    x, y = np.arange(shape[1])[None] + 0.5, np.arange(shape[0])[:, None] + 0.5
    return (x < box[0] - dx) | (x > box[2] + dx) | (y < box[1] - dy) | (y > box[3] + dy)


def segment(pixels: UInt8, box: Float32, banner_rows: int = 0) -> Bool:
    """Return the subject's mask, (H, W) bool, at the size of the image.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        box: (4,) float32 x0 y0 x1 y1, pixels; may exceed the image.
        banner_rows: rows at the bottom that are not part of the scene; they are ignored and never subject.

    The mask is empty without evidence: for a box with less than 2 px inside the image on an axis, or where colours
    inside and outside do not differ (a uniform image). The caller has to flag that.
    """
    mask = np.zeros(pixels.shape[:2], np.bool_)
    scene = pixels[: max(0, len(pixels) - max(0, banner_rows))]
    if (window := surroundings(scene.shape[:2], box)) is None:
        return mask
    rows, columns, inner = window
    crop = np.ascontiguousarray(scene[rows, columns])
    small = shrink(crop, SIZE)
    cut = _cut(small, scale(inner, crop, small))
    if cut.any():
        mask[rows, columns] = outline(cut, crop) & ~outside(crop.shape, inner, SLACK)
    return mask


def surroundings(shape: tuple[int, ...], box: Float32) -> tuple[slice, slice, Box] | None:
    """Return the part of a scene (height, width) that a box is cut in: its rows, its columns, and the box within.

    None where the box has less than 2 px inside the scene on an axis, or is not a number.
    """
    height, width = shape
    x0, x1 = (float(np.clip(x, 0, width)) for x in box[0::2])
    y0, y1 = (float(np.clip(y, 0, height)) for y in box[1::2])
    if not (x1 - x0 >= MINIMUM_BOX and y1 - y0 >= MINIMUM_BOX):  # also when the box is not a number
        return None
    # The long sides of a slim box have surroundings as well: at least half of those of its short sides.
    reach = MARGIN * max(x1 - x0, y1 - y0) / 2
    dx, dy = (max(1.0, reach, MARGIN * side) for side in (x1 - x0, y1 - y0))
    left, right = max(0, math.floor(x0 - dx)), min(width, math.ceil(x1 + dx))
    top, bottom = max(0, math.floor(y0 - dy)), min(height, math.ceil(y1 + dy))
    return slice(top, bottom), slice(left, right), (x0 - left, y0 - top, x1 - left, y1 - top)


def outline(cut: Bool, crop: UInt8) -> Bool:
    """Transfer a cut, (h, w) bool, to the size of its crop (H, W, 3) uint8, along the edges there: (H, W) bool."""
    import cv2

    guide = shrink(crop, FILTER_SIDE)
    radius = max(1, round(FILTER_RADIUS * max(guide.shape) / max(*cut.shape, 3)))
    soft = cv2.resize(cut.astype(np.float32), guide.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    soft = cv2.ximgproc.guidedFilter(guide, soft, radius, FILTER_EPS)
    soft = cv2.resize(soft, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft > 0.5, np.bool_)


def priors(pixels: UInt8, box: Box) -> tuple[Bool, Float32, Float32]:
    """Return what a box says of pixels (h, w, 3) uint8 before their colours do.

    Returns:
        The pixels that are surely not the subject, and two odds in nats: of the place, of the edges around; all (h, w).
    """
    place = ELLIPSE * (CENTRE - _ellipse(pixels.shape, box))
    place = np.maximum(place - OUTSIDE * outside(pixels.shape, box, 0), -2 * OUTSIDE).astype(np.float32)
    return outside(pixels.shape, box, SLACK), place, WALK * _enclosed(pixels, box)


def _cut(pixels: UInt8, box: Box) -> Bool:
    """Return the mask at working size, (h, w) bool, for a box within pixels (h, w, 3) uint8."""
    import cv2

    never, place, walk = priors(pixels, box)
    bins = colour_bins(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.uint8))
    colours = principal(pixels)
    odds = prior = place + walk
    for _ in range(SOFT_ROUNDS):
        probability = np.where(never, 0, 1 / (1 + np.exp(-odds))).astype(np.float32)
        odds = colour_odds(bins, np.asarray(cv2.blur(probability, (5, 5)), np.float32)) + prior
    probability = np.where(never, 0, 1 / (1 + np.exp(-odds))).astype(np.float32)
    cut, colour = np.zeros_like(never), np.zeros_like(place)
    for _ in range(CUT_ROUNDS):
        colour = colour_odds(bins, probability)
        cut = minimum_cut(colour + FADE * place + WALK_FADE * walk, colours, never)
        probability = np.where(never, 0, np.where(cut, SURE, 1 - SURE)).astype(np.float32)
    if cut.all() or not cut.any() or colour[cut].mean() - colour[~cut].mean() < EVIDENCE:
        return np.zeros_like(never)
    return tidy(cut)


def _enclosed(pixels: UInt8, box: Box) -> Float32:
    """Return how well edges enclose each pixel: (h, w) float32, -1 not at all, 0 average, 1 best."""
    import cv2

    small = shrink(pixels, GEODESIC_SIDE)
    inner = scale(box, pixels, small)
    never = outside(small.shape, inner, SLACK)
    # Where the box touches the image's border there is no outside; the frame replaces it, but only near the box's
    # corners, because a subject that the border cuts off crosses it in the middle.
    start = _ellipse(small.shape, inner) > CORNER
    start[1:-1, 1:-1] = False
    start |= never
    if not start.any() or start.all():
        return np.zeros(pixels.shape[:2], np.float32)
    smooth = cv2.bilateralFilter(small, 5, 20, 3)  # 5 px, 20 grey levels: grain goes, edges stay
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32)
    distance = cheapest_paths(lab, start)
    distance = np.minimum(distance / max(float(np.percentile(distance[~never], 95)), 1e-6), 1)
    mean = float(np.clip(distance[~never].mean(dtype=np.float64), 0.05, 0.95))
    relative = (distance - mean) / np.where(distance < mean, mean, 1 - mean).astype(np.float32)
    return np.asarray(cv2.resize(relative, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
