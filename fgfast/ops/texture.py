"""Texture inside a mask: grey levels that lie side by side, and local binary patterns.

Neither looks across the mask's edge. A pair of pixels counts where both are subject; a pattern counts where its whole
neighbourhood is. scikit-image, which knows no masks, computes the same where everything is subject; tests compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgfast.records import Bool, UInt8

DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""(rows, columns) to the neighbour: 0, 45, 90 and 135 degrees, as Haralick, Shanmugam and Dinstein (1973) have them."""
PATTERNS = 10
"""Rotation-invariant uniform patterns of 8 neighbours: 0 .. 8 brighter ones side by side, and all others."""
MEASURES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
"""Names of what `haralick` returns."""
# Of a neighbour on the diagonal, one pixel away: its position is rounded to 5 decimals, as in scikit-image.
_DIAGONAL = 0.70711


def cooccurrence(grey: UInt8, bits: Bool, levels: int, distance: int) -> NDArray[np.int64]:
    """Count pairs of grey levels at a distance in the four directions, both ways, where both pixels are subject.

    Args:
        grey: (H, W) uint8.
        bits: (H, W) bool; True is subject.
        levels: of grey, 2 .. 256; the level of a value v is floor(v * levels / 256).
        distance: in pixels, along rows and columns, 1 or more.

    Returns:
        (levels, levels) int64, symmetric. Its sum is twice the number of pairs; 0 where there is none.
    """
    level = (grey.astype(np.int64) * levels) >> 8
    counts = np.zeros(levels * levels, np.int64)
    height, width = grey.shape
    for down, right in DIRECTIONS:
        rows, columns = down * distance, right * distance
        if rows >= height or abs(columns) >= width:
            continue
        here = slice(0, height - rows), slice(max(0, -columns), width - max(0, columns))
        there = slice(rows, height), slice(max(0, columns), width - max(0, -columns))
        both = bits[here] & bits[there]
        counts += np.bincount(level[here][both] * levels + level[there][both], minlength=levels * levels)
    once = counts.reshape(levels, levels)
    pairs: NDArray[np.int64] = once + once.T
    return pairs


def haralick(pairs: NDArray[np.int64]) -> dict[str, float | None]:
    """Compute measures of a co-occurrence matrix.

    With p the shares of the matrix, i and j its levels: contrast sum p (i-j)^2, dissimilarity sum p |i-j|, homogeneity
    sum p / (1 + (i-j)^2), energy sqrt(sum p^2), correlation of i and j (1 where there is one level alone), all as in
    scikit-image; entropy -sum p log2 p, in bits.

    Args:
        pairs: (L, L) int64, symmetric; see `cooccurrence`.

    Returns:
        Name -> number, of `MEASURES`; all None where the matrix is empty.
    """
    total = int(pairs.sum())
    if not total:
        return dict.fromkeys(MEASURES)
    shares = pairs / total
    i, j = np.ogrid[: len(pairs), : len(pairs)]
    apart = i - j
    mean = float((shares * i).sum())
    variance = float((shares * (i - mean) ** 2).sum())
    together = float((shares * (i - mean) * (j - mean)).sum())
    some = shares[shares > 0]
    return {
        "contrast": float((shares * apart**2).sum()),
        "dissimilarity": float((shares * np.abs(apart)).sum()),
        "homogeneity": float((shares / (1 + apart**2)).sum()),
        "energy": float(np.sqrt((shares**2).sum())),
        # The matrix is symmetric, so that i and j have one mean and one variance.
        "correlation": together / variance if variance > 1e-15 else 1.0,
        # 0.0 rather than -0.0 where there is one level alone.
        "entropy": float(-(some * np.log2(some)).sum()) + 0.0,
    }


def binary_patterns(grey: UInt8, bits: Bool) -> NDArray[np.int64]:
    """Count the local binary patterns of subject pixels whose eight neighbours are subject, too.

    The pattern is the rotation-invariant uniform one of Ojala, Pietikäinen and Mäenpää (2002) with 8 neighbours on a
    circle of 1 pixel; those on the diagonals are interpolated between four pixels, all among the eight and the centre.

    Args:
        grey: (H, W) uint8.
        bits: (H, W) bool; True is subject.

    Returns:
        (10,) int64: how often a pixel has 0 .. 8 neighbours that are at least as bright, side by side; the last one
        counts all other patterns. Pixels at the image's border have no whole neighbourhood.
    """
    height, width = grey.shape
    if height < 3 or width < 3:
        return np.zeros(PATTERNS, np.int64)
    value = grey.astype(np.float64)
    around = {
        (y, x): (slice(1 + y, height - 1 + y), slice(1 + x, width - 1 + x)) for y in (-1, 0, 1) for x in (-1, 0, 1)
    }
    whole = np.logical_and.reduce([bits[place] for place in around.values()])
    centre = value[around[0, 0]]

    def corner(y: int, x: int) -> NDArray[np.float64]:
        """Return the value 0.70711 pixels along both axes, in this diagonal direction."""
        near, far = 1 - _DIAGONAL, _DIAGONAL
        level = near * centre + far * value[around[0, x]]
        beside = near * value[around[y, 0]] + far * value[around[y, x]]
        mixed: NDArray[np.float64] = near * level + far * beside
        return mixed

    circle = [
        *(value[around[0, 1]], corner(-1, 1), value[around[-1, 0]], corner(-1, -1)),
        *(value[around[0, -1]], corner(1, -1), value[around[1, 0]], corner(1, 1)),
    ]
    # Interpolated values of equal pixels differ from them by rounding errors, which must not decide.
    brighter = np.stack([np.round(neighbour - centre, 6) >= 0 for neighbour in circle])
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, brighter.sum(axis=0), PATTERNS - 1)
    return np.bincount(pattern[whole], minlength=PATTERNS)
