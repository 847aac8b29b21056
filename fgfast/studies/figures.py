"""Figures of a study, computed from predictions alone: accuracies, differences, and how sure they are.

Accuracy is correct / all, over images; no mean of batches or of classes. Shares are 0..1; the pages multiply by 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UsageError
from fgfast.studies.predictions import Predictions, some_keys

LEVEL = 0.95
"""Of every interval."""
LEAST_SEEDS = 3
"""Fewer trainings get no interval: that of two is 9 standard deviations to either side."""
RESAMPLES = 9999
"""Of a bootstrap; scipy's default. The standard error of an interval's end is then 0.7 % of its width."""
_BATCH_VALUES = 4_000_000  # drawn at once, of 8 bytes each


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: the figure.
        low, high: ends of the 95 % interval; None where there is none.
        count: what the interval is over: trainings, images or classes.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int = 1

    @property
    def sure(self) -> bool:
        """Whether it has an interval."""
        return self.low is not None


def accuracy(predictions: Predictions) -> float:
    """Return correct / all: each image counts once, whatever its class (micro)."""
    return float(predictions.correct.sum() / len(predictions.keys))


def per_class(predictions: Predictions, classes: int) -> NDArray[np.float64]:
    """Return each class's correct / all, (classes,); NaN for a class without an image.

    Raises:
        UsageError: a label is not below `classes`.
    """
    if predictions.labels.max() >= classes:
        raise UsageError(f"labels must be below the number of classes, {classes}, not {predictions.labels.max()}")
    all_of = np.bincount(predictions.labels, minlength=classes)
    right = np.bincount(predictions.labels[predictions.correct], minlength=classes)
    each = np.full(classes, np.nan)
    np.divide(right, all_of, out=each, where=all_of > 0)
    return each


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean over trainings with Student's interval, which fewer than `LEAST_SEEDS` do not have."""
    if not len(values):
        raise UsageError("a mean over trainings needs at least one of them")
    some = np.asarray(values, np.float64)
    mean = float(some.mean())
    if len(some) < LEAST_SEEDS:
        return Estimate(mean, count=len(some))
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(some) - 1) * some.std(ddof=1) / len(some) ** 0.5)
    return Estimate(mean, mean - half, mean + half, len(some))


def paired(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Return both in the order of the first, which must be of the same images.

    Raises:
        UsageError: an image is in one of them only, or has another label; the message names it.
    """
    only = sorted(set(first.keys) - set(second.keys)), sorted(set(second.keys) - set(first.keys))
    if only[0] or only[1]:
        sides = [f"only {side}: {some_keys(k)}" for side, k in zip(("here", "there"), only, strict=True) if k]
        raise UsageError(f"a difference needs the same images on both sides, here and there; {'; '.join(sides)}")
    second = second.ordered(first.keys)
    other = np.flatnonzero(first.labels != second.labels)
    if len(other):
        raise UsageError(f"images whose label differs between the sides: {some_keys([first.keys[n] for n in other])}")
    return first, second


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, of the same images and the same trainings.

    Attributes:
        images: with the interval of a paired bootstrap over images; each image's difference is its mean over the
            trainings, which are held fixed: it tells how the figure varies with the images tested.
        seeds: with Student's interval over the trainings' differences: how it varies with the training.
        mcnemar: p of McNemar's exact test, one for each training; pooling them would count each image several times.
        gained, lost: images right in the first only, and in the second only, for each training.
    """

    images: Estimate
    seeds: Estimate
    mcnemar: tuple[float, ...]
    gained: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def value(self) -> float:
        """The difference, -1..1."""
        return self.images.value

    @property
    def wide(self) -> Estimate:
        """The wider of both intervals at either end: the one that a verdict must hold for; none if trainings lack."""
        a, b = self.images, self.seeds
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return Estimate(self.value, count=b.count)
        return Estimate(self.value, min(a.low, b.low), max(a.high, b.high), b.count)


def difference(pairs: Sequence[tuple[Predictions, Predictions]], seed: int = 0) -> Difference:
    """Compare two test sets of the same images, or two models, over the trainings.

    Args:
        pairs: (first, second) of each training; all of the same images.
        seed: of the bootstrap.

    Raises:
        UsageError: there is no pair, or images or labels differ.
    """
    if not pairs:
        raise UsageError("a difference needs at least one pair of predictions")
    keys, rows, tests = pairs[0][0], [], []
    for first, second in pairs:
        a = paired(keys, first)[1].correct
        b = paired(keys, second)[1].correct
        rows.append(a.astype(np.float64) - b)
        tests.append((mcnemar(a, b), int((a & ~b).sum()), int((b & ~a).sum())))
    of_images = np.stack(rows).mean(0)
    ps, gained, lost = zip(*tests, strict=True)
    seeds = over_seeds([float(row.mean()) for row in rows])
    return Difference(bootstrap_mean(of_images, seed), seeds, ps, gained, lost)


def difference_of(firsts: Sequence[Predictions], seconds: Sequence[Predictions], seed: int = 0) -> Difference:
    """Compare two training sets' models on the same images; the trainings are paired by seed, in order."""
    if len(firsts) != len(seconds):
        raise UsageError(f"trainings are compared in pairs, not {len(firsts)} with {len(seconds)}")
    return difference(list(zip(firsts, seconds, strict=True)), seed)


def bootstrap_mean(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Return the mean with the percentile interval of a bootstrap (scipy); a single value has none.

    Where all values are equal the interval has no width: that is what a bootstrap says of them, and too sure.
    """
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Estimate(mean, count=count)
    if np.ptp(values) == 0:
        return Estimate(mean, mean, mean, count)
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(_BATCH_VALUES // count, 1),
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high), count)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return p of McNemar's exact test that both are right equally often, of bool (N,) of the same images."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    return float(test(table, exact=True).pvalue)


@dataclass(frozen=True, slots=True)
class Groups:
    """Accuracies of groups such as (bird, place) of Waterbirds: neither of the two figures stands alone.

    Attributes:
        each: group -> correct / all.
        average: mean of `each`, weighted by the groups' shares of the training set (Sagawa et al. 2020).
        worst: the least of `each`; `worst_group` is the first in alphabetical order that has it.
        plain: correct / all of the test set as it is, whose groups are balanced by design: no published average.
    """

    each: Mapping[str, float]
    average: float
    worst: float
    worst_group: str
    plain: float


def groups(predictions: Predictions, group_of: Mapping[str, str], train_counts: Mapping[str, int]) -> Groups:
    """Return the accuracies of groups.

    Args:
        predictions: of the test set.
        group_of: key -> group.
        train_counts: group -> images of it in the data set's own training set.

    Raises:
        UsageError: an image has no group; a group occurs on one side only.
    """
    lacking = [key for key in predictions.keys if key not in group_of]
    if lacking:
        raise UsageError(f"images without a group: {some_keys(lacking)}")
    of_each = np.array([group_of[key] for key in predictions.keys])
    names = sorted(set(of_each.tolist()))
    weights = {name: count for name, count in train_counts.items() if count > 0}
    if set(names) != set(weights):
        odd = sorted(set(names) ^ set(weights))
        raise UsageError(f"groups must occur in training and test; on one side only: {some_keys(odd)}")
    each = {name: float(predictions.correct[of_each == name].mean()) for name in names}
    average = sum(weights[name] * each[name] for name in names) / sum(weights.values())
    worst = min(names, key=lambda name: each[name])
    return Groups(each, average, each[worst], worst, accuracy(predictions))
