"""How well the colours of a mask's subject and of its surroundings are told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, Float32, UInt8

Counts = NDArray[np.float64]

BINS = (8, 12, 12)
"""Of Lab. The trial's 9,216 told colours apart no better on photographs of 256 px."""
STEPS = (32, 10, 10)
"""Grey levels per bin. Chroma varies less with light than lightness does; 12 bins of 10 cover +-60."""
SMOOTH = (0.125, 0.75, 0.125)
"""Of neighbouring bins on each axis, so that a gradient is one colour."""
PRIOR = 0.1
"""Pixels of every colour that each region has anyway: a colour that occurs nowhere is hardly evidence."""
BLOCK = 24
"""Pixels of the checkerboard's squares: a classifier is fitted on the black ones and tried on the white ones."""
LEAST = 20
"""Pixels of each region that is counted, as in the trial."""
EDGE, OUTLINE, BAND = 1.0, 1.5, 5.0
"""Pixels from the outline: from EDGE to BAND are the bands beside it; nearer than OUTLINE, two colours mix."""
RING, DEEP, LEAST_RADIUS = 0.12, 0.1, 4.0
"""The ring around the mask reaches RING roots of its area and LEAST_RADIUS further; the mask's inside begins at DEEP
roots; both are LEAST_RADIUS px at least."""


def contrast(pixels: UInt8, bits: Bool) -> dict[str, float]:
    """Compute the numbers of colour; see `fgfast.ops.evidence`.

    Args:
        pixels: (h, w, 3) uint8 RGB, shrunk.
        bits: (h, w) bool; True is subject.

    Returns:
        "alike colours": 1 - area under the ROC curve of a classifier that tells the subject from a ring around it by
        colour, fitted on half the blocks and tried on the others, and the other way round. "alike surroundings": from
        everything else. "colour leaks out": the part of the band outside the outline that has rather the subject's
        colour. "colour leaks in": the part of the band inside that has rather the colour of what is far. Those
        without enough pixels are absent.
    """
    root = math.sqrt(int(np.count_nonzero(bits)))
    ring, deep = max(LEAST_RADIUS, RING * root) + LEAST_RADIUS, max(LEAST_RADIUS, DEEP * root)
    levels_in, levels_out = sorted({EDGE, OUTLINE, BAND, deep}), sorted({EDGE, OUTLINE, BAND, ring})
    counts = _counted(_bins(pixels), bits, levels_in, levels_out)
    inside, outside = counts[: len(levels_in) + 1], counts[len(levels_in) + 1 :]

    def between(at: Counts, levels: Sequence[float], low: float, high: float = math.inf) -> Counts:
        last = len(at) if high == math.inf else levels.index(high) + 1
        return np.asarray(at[levels.index(low) + 1 : last].sum(axis=0))  # (2, bins): white and black squares

    core, out = between(inside, levels_in, OUTLINE), between(outside, levels_out, OUTLINE)
    core = core if core.sum() >= LEAST else inside.sum(axis=0)
    if out.sum() < LEAST:
        return {}
    near, far = between(outside, levels_out, OUTLINE, ring), between(outside, levels_out, ring)
    near = near if near.sum() >= LEAST else out
    middle = between(inside, levels_in, deep)
    found: dict[str, float] = {}
    for name, other in (("alike colours", near), ("alike surroundings", out)):
        if (auc := _tried(core, other)) is not None:
            found[name] = 1 - auc
    subject, beyond = middle if middle.sum() >= LEAST else core, far if far.sum() >= LEAST else out
    odds = _odds(subject.sum(axis=0), beyond.sum(axis=0))
    for name, band, wrong in (
        ("colour leaks out", between(outside, levels_out, EDGE, BAND), odds > 0),
        ("colour leaks in", between(inside, levels_in, EDGE, BAND), odds < 0),
    ):
        if total := float(band.sum()):
            found[name] = float(band[:, wrong].sum()) / total
    return found


def _bins(pixels: UInt8) -> NDArray[np.int32]:
    """Return each pixel's colour as a number below the product of `BINS`, (h, w)."""
    import cv2

    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    grey = np.arange(256)
    (n, step), *chroma = zip(BINS, STEPS, strict=True)
    tables = [np.minimum(grey // step, n - 1) * (BINS[1] * BINS[2])]
    tables += [np.clip((grey - 128) // step + n // 2, 0, n - 1) for n, step in chroma]
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
        (len(inside) + 1 + len(outside) + 1, 2, bins) float64, whole numbers: first the subject, by the number of
        distances that a pixel's exceeds, then the surroundings.
    """
    place = np.where(bits, 0, len(inside) + 1).astype(np.int32)
    for distance, levels in ((_distance(bits), inside), (_distance(~bits), outside)):  # 0 on the other side
        for level in levels:
            place += distance > level
    rows, columns = (np.arange(n) // BLOCK for n in bits.shape)
    square = (rows[:, None] + columns[None]) % 2
    bins = math.prod(BINS)
    code = ((2 * place + square) * bins + colours).ravel()
    count = len(inside) + len(outside) + 2
    return np.bincount(code, minlength=count * 2 * bins).reshape(count, 2, bins).astype(np.float64)


def _distance(bits: Bool) -> Float32:
    """Return each True pixel's distance from the nearest False one, (h, w) float32 px, 0 on the others."""
    import cv2

    if bits.all():  # OpenCV's answer would be a very large number
        return np.full(bits.shape, np.float32(max(bits.shape)))
    return np.asarray(cv2.distanceTransform(bits.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5), np.float32)


def _odds(subject: Counts, other: Counts) -> Counts:
    """Return the log-likelihood ratio of each colour, (bins,), from the counts of two regions."""
    counts = np.stack([subject, other]).reshape(2, *BINS)
    for axis in (1, 2, 3):
        edges = [(0, 0)] * 4
        edges[axis] = (1, 1)
        padded = np.pad(counts, edges, mode="edge")
        n = counts.shape[axis]
        low, mid, high = (padded[(slice(None),) * axis + (slice(k, k + n),)] for k in range(3))
        counts = SMOOTH[0] * low + SMOOTH[1] * mid + SMOOTH[2] * high
    counts = counts.reshape(2, -1) + PRIOR
    counts /= counts.sum(axis=1, keepdims=True)
    return np.asarray(np.log(counts[0] / counts[1]))


def _tried(subject: Counts, other: Counts) -> float | None:
    """Return the mean area under the ROC curve of both halves, fitted on one and tried on the other."""
    if min(subject.sum(axis=1).min(), other.sum(axis=1).min()) < LEAST:
        return None
    areas = [_area(_odds(subject[fit], other[fit]), subject[1 - fit], other[1 - fit]) for fit in (0, 1)]
    return sum(areas) / 2


def _area(odds: Counts, subject: Counts, other: Counts) -> float:
    """Return the area under the ROC curve of colours ordered by odds; equal odds count half."""
    seen = np.flatnonzero(subject + other)
    order = seen[np.argsort(odds[seen], kind="stable")]
    starts = np.flatnonzero(np.diff(odds[order], prepend=-np.inf))
    mine, theirs = (np.add.reduceat(counts[order], starts) for counts in (subject, other))
    before = np.cumsum(theirs) - theirs
    return float((mine * (before + theirs / 2)).sum() / (subject.sum() * other.sum()))
