"""k-means (Lloyd, "Least squares quantization in PCM", 1982), computed the same way on every machine and thread.

scikit-learn's is no dependency, and its sums, as those of SciPy's `kmeans2`, go through a BLAS whose last digits depend
on the number of threads: two workers could disagree about a point between two centres. SciPy's `cdist` sums in order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STARTS = 3
"""How often k-means begins anew; the start with the least sum of squares counts."""

ROUNDS = 100
"""Rounds after which a start ends, where its assignments still change; scikit-learn's limit is 300."""

Points = NDArray[np.float64]
Labels = NDArray[np.int64]


def k_means(
    points: Points, k: int, generator: np.random.Generator, starts: int = STARTS, rounds: int = ROUNDS
) -> Points:
    """Return the centres of clusters, (min(k, number of different points), D) float64, the largest cluster first.

    Each start draws its centres by k-means++ (Arthur and Vassilvitskii, 2007).

    Args:
        points: (N, D) float64; N may be 0.
        k: the number of clusters, at least 1.
        generator: draws the starts; only `random` is called.
        starts: see `STARTS`.
        rounds: see `ROUNDS`.

    Raises:
        ValueError: k, starts or rounds is below 1, or the points are not finite.
    """
    if min(k, starts, rounds) < 1:
        raise ValueError(f"k, starts and rounds must be at least 1, not {k}, {starts} and {rounds}")
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be (N, D) and finite, not of shape {points.shape}")
    if not len(points):
        return np.zeros((0, points.shape[1]))
    best, least = points[:1], np.inf
    for _ in range(starts):
        centres, cost = _descend(points, _spread(points, k, generator), rounds)
        if cost < least:
            best, least = centres, cost
    sizes = np.bincount(nearest(points, best), minlength=len(best))
    # Of clusters of one size the one with the smaller coordinates comes first.
    return best[np.lexsort((*best.T[::-1], -sizes))]


def nearest(points: Points, centres: Points) -> Labels:
    """Return the number of the nearest centre of each point, the first of several: (N, D), (K, D) -> (N,) int64."""
    if not len(points):
        return np.zeros(0, np.int64)
    labels: Labels = _squares(points, centres).argmin(axis=1)
    return labels


def _squares(points: Points, centres: Points) -> Points:
    from scipy.spatial.distance import cdist

    found: Points = cdist(points, centres, "sqeuclidean")
    return found


def _spread(points: Points, k: int, generator: np.random.Generator) -> Points:
    """Draw centres far from each other: each with a chance in proportion to its squared distance to those drawn."""
    drawn = [int(generator.random() * len(points))]
    squares = _squares(points, points[drawn])[:, 0]
    while len(drawn) < k:
        chances = np.cumsum(squares)
        if chances[-1] <= 0:  # every point lies on a centre
            break
        drawn.append(min(int(np.searchsorted(chances, generator.random() * chances[-1], "right")), len(points) - 1))
        squares = np.minimum(squares, _squares(points, points[drawn[-1:]])[:, 0])
    return points[drawn]


def _descend(points: Points, centres: Points, rounds: int) -> tuple[Points, float]:
    """Move centres to the means of their points until no assignment changes; return them and the sum of squares."""
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        squares = _squares(points, centres)
        now = squares.argmin(axis=1)
        if np.array_equal(now, labels):
            break
        labels, own = now, squares.min(axis=1)
        for index in range(len(centres)):
            members = labels == index
            if members.any():
                centres[index] = points[members].mean(axis=0)
            else:  # an empty cluster takes the point that is farthest from its own centre
                far = int(own.argmax())
                centres[index], own[far] = points[far], 0
    return centres, float(_squares(points, centres).min(axis=1).sum())
