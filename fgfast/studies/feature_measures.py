"""How classes lie in a space of features: nearest neighbours, silhouettes, distances, a linear probe.

Distances are cosine distances, 1 - cos, 0..2. Each measure is a mean over test images, as scikit-learn's scores are,
and its interval a bootstrap over classes: another draw of classes is what a claim about "classes" is about. A class
that is drawn brings all its images; what they were measured against, all classes, stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UsageError
from fgfast.records import Float32
from fgfast.studies.figures import LEVEL, RESAMPLES, Estimate

Floats = NDArray[np.float64]
NEIGHBOURS = 20
"""Nearest training samples that vote, each with its cosine; no more than a class has on average, see `neighbours`.

20 is the number of DINO's protocol (arXiv 2104.14294), which has a thousand and more images of each class."""
LEAST_CLASSES = 10
"""With fewer classes a bootstrap over them says nothing about others."""
# Inverse strengths of regularisation of the linear probe, of which validation chooses one.
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_AT_ONCE = 512  # rows of a block of cosines


@dataclass(frozen=True, slots=True)
class Space:
    """Features of one arm.

    Attributes:
        train, test: (N, D) float32.
        train_labels, test_labels: (N,) int64, index of the class.
        keys: of the test samples.
        fit, chosen: indexes into `train`: the linear probe is fitted on the first while its strength is chosen on the
            second.

    Raises:
        UsageError: lengths differ, a feature is no number, there is one class only, or nothing trains.
    """

    train: Float32
    train_labels: NDArray[np.int64]
    test: Float32
    test_labels: NDArray[np.int64]
    keys: tuple[str, ...]
    fit: NDArray[np.int64]
    chosen: NDArray[np.int64]

    def __post_init__(self) -> None:
        for values, labels in ((self.train, self.train_labels), (self.test, self.test_labels)):
            if len(values) != len(labels) or values.ndim != 2:
                raise UsageError(f"there are {len(values)} rows of features for {len(labels)} labels")
            if not np.isfinite(values).all():
                raise UsageError("a feature is no number (NaN or infinite): the backbone's weights may be damaged")
        if not len(self.train):
            raise UsageError("there is no training sample, and no test sample has a neighbour")
        if len(self.keys) != len(self.test):
            raise UsageError(f"there are {len(self.test)} rows of features for {len(self.keys)} images")
        if len(np.unique(self.test_labels)) < 2:
            raise UsageError("features of one class have no neighbours of another one: two classes are needed")


def _unit(values: Float32) -> Float32:
    """Rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Float32 = (values / np.maximum(length, np.float32(1e-12))).astype(np.float32)
    return unit


def neighbours(space: Space) -> int:
    """Return how many nearest training samples vote."""
    return max(1, min(NEIGHBOURS, len(space.train) // len(np.unique(space.train_labels))))


def nearest_right(space: Space) -> NDArray[np.bool_]:
    """Return whether the nearest training samples say each test sample's class, (N,)."""
    train, test = _unit(space.train), _unit(space.test)
    classes = int(max(space.train_labels.max(), space.test_labels.max())) + 1
    count = neighbours(space)
    right = np.zeros(len(test), np.bool_)
    for start in range(0, len(test), _AT_ONCE):
        cosines = test[start : start + _AT_ONCE] @ train.T
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        weights = np.take_along_axis(cosines, near, 1).astype(np.float64)
        votes = np.zeros((len(cosines), classes))
        rows = np.repeat(np.arange(len(cosines)), count)
        np.add.at(votes, (rows, space.train_labels[near].ravel()), weights.ravel())
        right[start : start + _AT_ONCE] = votes.argmax(1) == space.test_labels[start : start + _AT_ONCE]
    return right


def probe_right(space: Space) -> NDArray[np.bool_]:
    """Return whether a logistic regression on the training samples says each test sample's class, (N,).

    Features are standardised; the strength of regularisation is chosen on a part of the training samples alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(strength: float, rows: NDArray[np.int64]) -> object:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        return model.fit(space.train[rows], space.train_labels[rows])

    best = 1.0
    if len(space.chosen):
        scores = [
            float((fitted(s, space.fit).predict(space.train[space.chosen]) == space.train_labels[space.chosen]).mean())  # type: ignore[attr-defined]
            for s in _STRENGTHS
        ]
        best = _STRENGTHS[int(np.argmax(scores))]
    model = fitted(best, np.arange(len(space.train)))
    right: NDArray[np.bool_] = model.predict(space.test) == space.test_labels  # type: ignore[attr-defined]
    return right


def silhouettes(space: Space) -> Floats:
    """Return the silhouette of each test sample, -1..1 (Rousseeuw 1987); 0 for the only one of its class."""
    from sklearn.metrics import silhouette_samples

    found: Floats = silhouette_samples(_unit(space.test), space.test_labels, metric="cosine")
    return found


def distances(space: Space) -> tuple[Floats, Floats]:
    """Return each test sample's mean distance to others of its class, NaN without any; and to all other classes'."""
    unit = _unit(space.test).astype(np.float64)
    inside, outside = np.full(len(unit), np.nan), np.full(len(unit), np.nan)
    total = unit.sum(0)
    for label in np.unique(space.test_labels):
        its = space.test_labels == label
        own, count = unit[its].sum(0), int(its.sum())
        if count > 1:  # the mean over the others: the sample's own cosine with itself is left out
            inside[its] = 1 - (unit[its] @ own - (unit[its] ** 2).sum(1)) / (count - 1)
        outside[its] = 1 - unit[its] @ (total - own) / (len(unit) - count)
    return inside, outside


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured in a space.

    Attributes:
        sums: name -> the sum of a measure over each class's test images, (classes,).
        counts: name -> how many of them have the measure, (classes,).
        keys: of the test images, in order.
        images: training and test images together.
        neighbours: that vote in k-NN.
    """

    sums: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    keys: tuple[str, ...]
    images: int
    neighbours: int


def measure(space: Space, classes: int) -> Measured:
    """Measure a space."""
    inside, outside = distances(space)
    values = {
        "k-NN": nearest_right(space),
        "linear probe": probe_right(space),
        "silhouette": silhouettes(space),
        "within": inside,
        "between": outside,
    }
    sums, counts = dict[str, Floats](), dict[str, Floats]()
    for name, each in values.items():
        there = np.isfinite(each)
        labels = space.test_labels[there]
        sums[name] = np.bincount(labels, weights=each[there].astype(np.float64), minlength=classes).astype(np.float64)
        counts[name] = np.bincount(labels, minlength=classes).astype(np.float64)
    images = len(space.train) + len(space.test)
    return Measured(MappingProxyType(sums), MappingProxyType(counts), space.keys, images, neighbours(space))


FIGURES = ("k-NN", "linear probe", "silhouette", "within", "between", "within / between")
"""What `figure` knows: shares, a silhouette of -1..1, distances of 0..2, and their ratio."""


def figure(name: str, found: Measured, drawn: Floats | None = None) -> Floats:
    """Return a figure of all images, (), or of draws of classes, (draws,); NaN where no image has it.

    Args:
        name: of `FIGURES`.
        found: what was measured.
        drawn: (draws, classes), how often each class was drawn.
    """
    if " / " in name:
        first, second = (figure(part, found, drawn) for part in name.split(" / "))
        return _divided(first, second)
    total, count = found.sums[name], found.counts[name]
    return _divided(total.sum(), count.sum()) if drawn is None else _divided(drawn @ total, drawn @ count)


def _divided(first: Any, second: Any) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):  # no image, or no distance between classes
        ratio: Floats = np.asarray(first, np.float64) / np.asarray(second, np.float64)
    return ratio


def over_classes(name: str, first: Measured, second: Measured | None = None, seed: int = 0) -> Estimate:
    """Return a figure, or the first space's minus the second's, with the interval of a bootstrap over classes.

    Both spaces are resampled alike, so that a difference is paired. Where a figure of a draw is no number, as the
    distance within classes of an image each, the draw does not count; where half of them do not, there is no interval.

    Raises:
        UsageError: the two are of other images.
    """
    if second is not None and first.keys != second.keys:
        raise UsageError("features of other images cannot be compared")
    spaces = [one for one in (first, second) if one is not None]
    there = np.flatnonzero(first.counts["silhouette"])
    drawn = np.zeros((RESAMPLES, len(first.counts["silhouette"])))
    drawn[:, there] = np.random.default_rng(seed).multinomial(len(there), [1 / len(there)] * len(there), RESAMPLES)
    values = [figure(name, one) for one in spaces]
    draws = [figure(name, one, drawn) for one in spaces]
    value = float(values[0] - values[1] if second is not None else values[0])
    each = draws[0] - draws[1] if second is not None else draws[0]
    finite = each[np.isfinite(each)]
    if len(there) < 2 or not np.isfinite(value) or len(finite) < len(each) / 2:
        return Estimate(value, count=len(there))
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), len(there))
