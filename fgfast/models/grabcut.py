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
from numpy.typing import NDArray

from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
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
DATA_WEIGHT = 2.0  # of the odds against the edge term; 1 would be GrabCut's, which cuts thin parts off
SPECK, HOLE = 0.05, 0.005  # smaller parts are removed, smaller holes filled; fractions of the largest part
# L in steps of 16; a and b in finer steps of AB_STEP, because chroma varies less with light.
LAB_BINS = (16, 24, 24)
AB_STEP = 5.0  # 24 bins of 5 cover +-60; stronger chroma, which is rare, is in the last bin
BIN_BLUR = 0.6  # bins; joins neighbours so that a gradient is one colour; 1.5 joins similar colours
COLOUR_LIMIT = 5.0  # nats; the odds of one colour never exceed 150 : 1
PSEUDO_COUNT = 0.05  # pixels; a colour that occurs nowhere is hardly evidence
EDGE_FLOOR = 4.0  # Lab units; less contrast than this is shading and noise, and free to cross
STEP_COST = 1.0  # Lab units per pixel of a path: deep inside a flat region is less surely background than at its rim
SURE = 0.98  # probability of a cut's labels when colours are counted again
ODDS_LEVELS = 16.0  # grey levels per nat, in the 8 bits the solver reads: +-8 nats
ODDS_VARIANCE = 1e4  # wide enough that the exponentials of the solver's Gaussians stay far from underflow
COLOUR_VARIANCE = 1e8  # the solver's Gaussians must not see the two colour channels


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


def shrink(pixels: UInt8, side: int) -> UInt8:
    """Shrink an image to a longer side of at most `side` px."""
    import cv2

    h, w = pixels.shape[:2]
    scale = side / max(h, w)
    if scale >= 1:
        return pixels
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def cheapest_paths(lab: Float32, start: Bool) -> Float32:
    """Return the cost of the cheapest path from each pixel of lab (h, w, 3) to `start`: (h, w) float32, Lab units."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    h, w = start.shape
    outside = h * w  # one more node, next to every pixel of `start`
    ids = np.arange(h * w, dtype=np.int32).reshape(h, w)
    sources = ids[start]
    rows, columns, costs = [np.full(len(sources), outside)], [sources], [np.full(len(sources), 1e-6)]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = slice(0, h - dy), slice(max(0, -dx), w - max(0, dx))
        there = slice(dy, h), slice(max(0, dx), w + min(0, dx))
        edge = np.sqrt(((lab[here] - lab[there]) ** 2).sum(-1))
        rows.append(ids[here].ravel())
        columns.append(ids[there].ravel())
        costs.append((np.maximum(edge - EDGE_FLOOR, 0) + STEP_COST * math.hypot(dx, dy)).ravel())
    entries = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
    graph = csr_matrix(entries, shape=(h * w + 1, h * w + 1))
    return dijkstra(graph, directed=False, indices=outside)[:-1].reshape(h, w).astype(np.float32)


def colour_bins(lab: UInt8) -> NDArray[np.intp]:
    """Return the histogram bin of each pixel of lab (H, W, 3) uint8: (H, W)."""
    luma = lab[..., 0].astype(np.intp) * LAB_BINS[0] // 256
    chroma = (lab[..., 1:].astype(np.float32) - 128) / AB_STEP + LAB_BINS[1] / 2
    a, b = np.moveaxis(np.clip(chroma, 0, LAB_BINS[1] - 1).astype(np.intp), 2, 0)
    return (luma * LAB_BINS[1] + a) * LAB_BINS[2] + b


def colour_odds(bins: NDArray[np.intp], subject: Float32) -> Float32:
    """Return log p(colour | subject) - log p(colour | background), (H, W) nats, given (H, W) probabilities."""
    from scipy.ndimage import gaussian_filter

    logs = []
    for weight in (subject, 1 - subject):
        counts = np.bincount(bins.ravel(), weight.ravel().astype(np.float64), math.prod(LAB_BINS))
        density = gaussian_filter(counts.reshape(LAB_BINS), BIN_BLUR, mode="nearest", truncate=2.5)
        logs.append(np.log((density + PSEUDO_COUNT) / (float(weight.sum(dtype=np.float64)) + 1)))
    return np.clip(logs[0] - logs[1], -COLOUR_LIMIT, COLOUR_LIMIT).astype(np.float32).ravel()[bins]


def principal(pixels: UInt8) -> UInt8:
    """Project pixels (H, W, 3) onto the two directions in which their colours vary most: (H, W, 2) uint8."""
    # Integers, and einsum instead of BLAS: sums do not depend on the number of BLAS threads.
    flat = pixels.reshape(-1, 3).astype(np.int64)
    total = flat.sum(0)
    _, axes = np.linalg.eigh((len(flat) * (flat.T @ flat) - np.outer(total, total)).astype(np.float64))
    planes = np.einsum("nc,cd->nd", flat - total / len(flat), axes[:, :0:-1]).reshape(*pixels.shape[:2], 2)
    return np.clip(planes + 128, 0, 255).astype(np.uint8)


def solver_model(sign: int, weight: float) -> NDArray[np.float64]:
    """Return a mixture for cv2.grabCut (5 weights, 15 means, 45 covariances): one component, on channel 0 only.

    Two Gaussians of variance v and means 128 +- d differ in log density by 2 d (x - 128) / v: linear in x. With d as
    chosen here that is `weight` nats per ODDS_LEVELS grey levels.
    """
    model = np.zeros((1, 65))
    model[0, 0] = 1
    model[0, 5:8] = 128 + sign * weight / ODDS_LEVELS * ODDS_VARIANCE / 2, 128, 128
    model[0, 20:29:4] = ODDS_VARIANCE, COLOUR_VARIANCE, COLOUR_VARIANCE
    return model


def minimum_cut(odds: Float32, colours: UInt8, never: Bool, always: Bool | None = None) -> Bool:
    """Return the labelling of least energy: odds (H, W) in nats per pixel, and GrabCut's edge term between neighbours.

    cv2.grabCut solves it in its frozen mode: no learning, one cut. It takes no odds, but odds stored as a channel of
    the image, with models made for it, are equivalent; the edge term includes that channel as well.
    """
    import cv2

    channel = np.clip(odds * ODDS_LEVELS + 128, 0, 255).astype(np.uint8)
    labels = np.where(never, cv2.GC_BGD, cv2.GC_PR_BGD).astype(np.uint8)
    if always is not None:
        labels[always] = cv2.GC_FGD
    background, subject = solver_model(-1, DATA_WEIGHT), solver_model(1, DATA_WEIGHT)
    cv2.grabCut(np.dstack([channel, colours]), labels, None, background, subject, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return (labels & 1).astype(np.bool_)


def tidy(cut: Bool) -> Bool:
    """Remove specks and fill small holes; larger parts stay, because a branch may divide a subject."""
    import cv2

    _, parts, stats, _ = cv2.connectedComponentsWithStats(cut.astype(np.uint8), connectivity=8)
    largest = int(stats[1:, cv2.CC_STAT_AREA].max())
    keep = stats[:, cv2.CC_STAT_AREA] >= SPECK * largest
    keep[0] = False
    kept = keep[parts]
    _, gaps, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)
    fill = stats[:, cv2.CC_STAT_AREA] < HOLE * largest
    fill[0] = False
    return kept | fill[gaps]
