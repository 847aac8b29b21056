"""How well found parts localise annotated ones: the usual measures of unsupervised part discovery on CUB.

A linear regression from the centres of the parts to each landmark, fitted on the training images and tested on the
others, with distances as fractions of the annotated box: Huang and Li, "Interpretable and Accurate Fine-grained
Recognition via Region Grouping", 2020 (their src/cub200/eval_interp.py). Normalised mutual information of landmark
and part: Choudhury et al., "Unsupervised Part Discovery from Contrastive Reconstruction", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

DRAWS = 2000
"""Resamples of a bootstrap interval: enough for the percentiles of 95 % (Efron and Tibshirani, 1993, section 13)."""


def in_box(points: Numbers, boxes: Numbers) -> Numbers:
    """Return points, (N, P, 2) x y, as fractions of boxes, (N, 4) x0 y0 x1 y1 with sides greater than 0."""
    found: Numbers = (points - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])
    return found


def regressed(centres: Numbers, landmarks: Numbers, fitted: NDArray[np.bool_]) -> Numbers:
    """Return landmarks as a linear regression predicts them from the centres of parts.

    As published, columns are standardised and there is no intercept; least squares, of several solutions that of the
    least norm. A part that an image lacks is where it is on average.

    Args:
        centres: (N, K, 2) float64; NaN for parts that an image lacks.
        landmarks: (N, L, 2) float64; NaN for landmarks that cannot be seen.
        fitted: (N,) bool, the images that the regression is fitted on.

    Returns:
        (N, L, 2) float64; NaN for a landmark that fewer than two of the fitted images show.
    """
    inputs = centres.reshape(len(centres), 2 * centres.shape[1])
    predicted = np.full(landmarks.shape, np.nan)
    for index in range(landmarks.shape[1]):
        own = landmarks[:, index]
        rows = fitted & ~np.isnan(own).any(axis=1)
        if rows.sum() >= 2:
            (middle, scale), (mean, spread) = _scale(inputs[rows]), _scale(own[rows])
            # What an image lacks is at the mean: 0 once it is standardised.
            given = np.nan_to_num((inputs - middle) / scale)
            weights = np.linalg.lstsq(given[rows], (own[rows] - mean) / spread, rcond=None)[0]
            predicted[:, index] = given @ weights * spread + mean
    return predicted


def _scale(values: Numbers) -> tuple[Numbers, Numbers]:
    """Return the means and deviations of columns without NaN; 0 and 1 where these leave nothing, or no difference."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(axis=0) / count)
    return mean, np.where(deviation > 0, deviation, 1.0)


def distances(predicted: Numbers, landmarks: Numbers) -> Numbers:
    """Return the mean distance of each image's landmarks to the predicted ones, (N,) float64.

    Args:
        predicted, landmarks: (N, L, 2) float64; a landmark that is NaN in one of them does not count.

    Returns:
        NaN for an image without landmarks that count.
    """
    each = np.linalg.norm(predicted - landmarks, axis=2)
    known = ~np.isnan(each)
    counts = known.sum(axis=1)
    sums = np.where(known, each, 0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def contingency(
    images: Sequence[int], rows: Sequence[int], columns: Sequence[int], shape: tuple[int, int, int]
) -> Numbers:
    """Return how often labels come together in each image, (N, L, K) float64.

    Args:
        images: the image of each thing, 0 .. N - 1.
        rows, columns: its two labels, 0 .. L - 1 and 0 .. K - 1.
        shape: N, L and K.
    """
    table = np.zeros(shape)
    np.add.at(table, (np.asarray(images, int), np.asarray(rows, int), np.asarray(columns, int)), 1)
    return table


def mutual_information(table: Numbers) -> float:
    """Return the normalised mutual information of two labellings of the same things, 0..1.

    The arithmetic mean of the entropies normalises, as in scikit-learn. It is 1 where both have one label or none.

    Args:
        table: (L, K) float64, how often labels come together, at least 0.
    """
    shares = table / max(float(table.sum()), 1.0)
    entropies = _entropy(shares.sum(axis=1)) + _entropy(shares.sum(axis=0))
    shared = entropies - _entropy(shares.ravel())
    return float(min(max(2 * shared / entropies, 0.0), 1.0)) if entropies > 0 else 1.0


def information_interval(
    first: Numbers, second: Numbers, generator: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, over images, of the second mutual information minus the first.

    Args:
        first, second: (N, L, K) float64 each, see `contingency`; N at least 1.
        generator: draws the resamples; only `integers` is called.
        draws: see `DRAWS`.
    """
    count, differences = len(first), []
    for _ in range(draws):
        weights = np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
        with_first, with_second = (np.tensordot(weights, tables, 1) for tables in (first, second))
        differences.append(mutual_information(with_second) - mutual_information(with_first))
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _entropy(shares: Numbers) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def mean_interval(values: Numbers, generator: np.random.Generator, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 95 % bootstrap interval, by percentiles, of the mean of values.

    Args:
        values: (N,) float64, N at least 1, as the paired differences of N images.
        generator: draws the resamples; only `integers` is called.
        draws: see `DRAWS`.
    """
    means = [float(values[generator.integers(0, len(values), len(values))].mean()) for _ in range(draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
