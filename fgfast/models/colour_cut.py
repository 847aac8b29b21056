"""The pieces of GrabCut that know no box: colour odds, walks over edges, the minimum cut, and the tidying after it.

Two segmenters share them: `grabcut`, from a box, and `seeds`, from a person's points and strokes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Float32, UInt8

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
