"""`colour_contrast` in NumPy; distances are OpenCV's.

Colours are ranked by fractions of whole numbers: without logarithms, whose last digits differ between processors, equal
odds are equal, and the native op has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Float32, UInt8

Counts = NDArray[np.int64]
Float64 = NDArray[np.float64]

BINS = (8, 12, 12)
"""Of Lab: 1,152 colours, each seen often enough in an image of 256 px. The trial had 9,216."""
STEPS = (32, 10, 10)
"""Grey levels per bin. Chroma varies less with light than lightness does; 12 bins of 10 cover +-60."""
SMOOTH = (1, 6, 1)
"""Eighths of neighbouring bins on each axis, so that a gradient is one colour."""
PER_PIXEL, PRIOR = 5, 256
"""A pixel's weight is 5 after smoothing has multiplied it by 8 ** 3; every colour has a tenth of that, 256, anyway: a
colour that occurs nowhere is hardly evidence."""
BLOCK = 24
"""Pixels of the checkerboard's squares: a classifier is fitted on the black ones and tried on the white ones."""
LEAST = 20
"""Pixels of each region that is counted, as in the trial."""
EDGE, OUTLINE, BAND = 1.0, 1.5, 5.0
"""Pixels from the outline: from EDGE to BAND are the bands beside it; nearer than OUTLINE, two colours mix."""
RING, DEEP, LEAST_RADIUS = 0.12, 0.1, 4.0
"""The ring around the mask reaches RING roots of its area and LEAST_RADIUS further; the mask's inside begins at DEEP
roots; both are LEAST_RADIUS px at least."""


def colour_contrast(lab: UInt8, bits: Bool) -> Float64:
    """Compute fgfast.ops.colour_contrast."""
    found = np.full(4, np.nan)
    if np.count_nonzero(~bits) < LEAST:
        return found
    root = math.sqrt(int(np.count_nonzero(bits)))
    ring, deep = max(LEAST_RADIUS, RING * root) + LEAST_RADIUS, max(LEAST_RADIUS, DEEP * root)
    levels_in, levels_out = sorted({EDGE, OUTLINE, BAND, deep}), sorted({EDGE, OUTLINE, BAND, ring})
    counts = _counted(_bins(lab), bits, levels_in, levels_out)
    inside, outside = counts[: len(levels_in) + 1], counts[len(levels_in) + 1 :]

    def between(at: Counts, levels: Sequence[float], low: float, high: float = math.inf) -> Counts:
        last = len(at) if high == math.inf else levels.index(high) + 1
        return np.asarray(at[levels.index(low) + 1 : last].sum(axis=0))  # (2, bins): white and black squares

    core, out = between(inside, levels_in, OUTLINE), between(outside, levels_out, OUTLINE)
    core = core if core.sum() >= LEAST else inside.sum(axis=0)
    if out.sum() < LEAST:
        return found
    near, far = between(outside, levels_out, OUTLINE, ring), between(outside, levels_out, ring)
    near = near if near.sum() >= LEAST else out
    middle = between(inside, levels_in, deep)
    found[:2] = _alike(core, near), _alike(core, out)
    subject, beyond = middle if middle.sum() >= LEAST else core, far if far.sum() >= LEAST else out
    weights = _weights(subject.sum(axis=0)), _weights(beyond.sum(axis=0))
    mine, theirs = (weights[n] * weights[1 - n].sum() for n in range(2))
    found[2] = _part(between(outside, levels_out, EDGE, BAND), mine > theirs)
    found[3] = _part(between(inside, levels_in, EDGE, BAND), mine < theirs)
    return found


def _bins(lab: UInt8) -> NDArray[np.int32]:
    """Return each pixel's colour as a number below the product of `BINS`, (h, w)."""
    grey = np.arange(256)
    tables = [np.minimum(grey // STEPS[0], BINS[0] - 1) * (BINS[1] * BINS[2])]
    tables += [np.clip((grey - 128) // STEPS[k] + BINS[k] // 2, 0, BINS[k] - 1) for k in (1, 2)]
    tables[1] = tables[1] * BINS[2]
    light, a, b = (np.asarray(table, np.int32)[lab[..., n]] for n, table in enumerate(tables))
    return np.asarray(light + a + b)


def _counted(colours: NDArray[np.int32], bits: Bool, inside: Sequence[float], outside: Sequence[float]) -> Counts:
    """Count colours by distance from the outline and by square.

    Args:
        colours: (h, w), from `_bins`.
        bits: (h, w).
        inside, outside: ascending distances, px.

    Returns:
        (len(inside) + 1 + len(outside) + 1, 2, bins) int64: first the subject, by the number of distances that a
        pixel's exceeds, then the surroundings.
    """
    place = np.where(bits, 0, len(inside) + 1).astype(np.int32)
    for distance, levels in ((_distance(bits), inside), (_distance(~bits), outside)):  # 0 on the other side
        for level in levels:
            place += distance > np.float32(level)
    rows, columns = (np.arange(n) // BLOCK for n in bits.shape)
    square = (rows[:, None] + columns[None]) % 2
    bins = math.prod(BINS)
    code = ((2 * place + square) * bins + colours).ravel()
    count = len(inside) + len(outside) + 2
    return np.bincount(code, minlength=count * 2 * bins).reshape(count, 2, bins).astype(np.int64)


def _distance(bits: Bool) -> Float32:
    """Return each True pixel's distance from the nearest False one, (h, w) float32 px, 0 on the others."""
    import cv2

    if bits.all():  # OpenCV's answer would be a very large number
        return np.full(bits.shape, np.float32(max(bits.shape)))
    image = np.ascontiguousarray(bits).view(np.uint8)
    return np.asarray(cv2.distanceTransform(image, cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)


def _weights(counts: Counts) -> Counts:
    """Return each colour's weight in a region, (bins,): its smoothed count and the prior."""
    smooth = counts.reshape(BINS)
    for axis in range(3):
        edges = [(0, 0)] * 3
        edges[axis] = (1, 1)
        padded = np.pad(smooth, edges, mode="edge")
        n: int = smooth.shape[axis]
        low, mid, high = (padded[(slice(None),) * axis + (slice(k, k + n),)] for k in range(3))
        smooth = SMOOTH[0] * low + SMOOTH[1] * mid + SMOOTH[2] * high
    return np.asarray(smooth.ravel() * PER_PIXEL + PRIOR)


def _alike(subject: Counts, other: Counts) -> float:
    """Return 1 - the mean area under the ROC curve of both halves, fitted on one and tried on the other, or NaN."""
    if min(subject.sum(axis=1).min(), other.sum(axis=1).min()) < LEAST:
        return math.nan
    areas = [_area(_weights(subject[n]) / _weights(other[n]), subject[1 - n], other[1 - n]) for n in (0, 1)]
    return 1 - sum(areas) / 2


def _area(odds: Float64, subject: Counts, other: Counts) -> float:
    """Return the area under the ROC curve of colours ordered by odds; equal odds count half."""
    seen = np.flatnonzero(subject + other)
    order = seen[np.argsort(odds[seen], kind="stable")]
    starts = np.flatnonzero(np.diff(odds[order], prepend=-np.inf))
    mine, theirs = (np.add.reduceat(counts[order], starts) for counts in (subject, other))
    before = np.cumsum(theirs) - theirs
    return float((mine * (2 * before + theirs)).sum()) / float(2 * subject.sum() * other.sum())


def _part(band: Counts, wrong: Bool) -> float:
    """Return the part of a band's pixels that have the wrong colours, or NaN."""
    total = float(band.sum())
    return float(band[:, wrong].sum()) / total if total else math.nan
