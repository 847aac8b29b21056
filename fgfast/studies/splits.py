"""Which samples train, which validate, which test: the data set's own splits, and seeded parts of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fgfast import seeds
from fgfast.errors import UsageError
from fgfast.studies.pairs import Pairs
from fgfast.studies.predictions import some_keys

Indexes = NDArray[np.int64]

VALIDATION = 0.1
"""The share of a training set that validates."""


def holdout(
    pairs: Pairs, indexes: Indexes, seed: int, share: float = VALIDATION, purpose: str = "validation"
) -> tuple[Indexes, Indexes]:
    """Take a part of some samples away, from each class alike.

    Which samples it takes depends on the seed and their keys alone. Each class gives its share, rounded down; where
    that leaves the part too small, classes with the largest remainders give one more. Each keeps at least one sample.

    Args:
        pairs: all samples.
        indexes: those to be divided, (N,).
        seed: of the choice.
        share: of each class, 0..1.
        purpose: what the part is for; parts for different purposes are drawn independently.

    Returns:
        What is left, and the part; both in ascending order.
    """
    if not 0 < share < 1:
        raise UsageError(f"the share of {purpose} must lie between 0 and 1, not {share:g}")
    ranked = {}
    for label in np.unique(pairs.labels[indexes]).tolist():
        its = indexes[pairs.labels[indexes] == label].tolist()
        ranked[label] = sorted(its, key=lambda n: seeds.number(seed, purpose, pairs.keys[n]))
    counts = {label: int(share * len(its)) for label, its in ranked.items()}
    lacking = round(share * len(indexes)) - sum(counts.values())
    by_remainder = sorted(
        (label for label, its in ranked.items() if counts[label] + 1 < len(its)),
        key=lambda label: (counts[label] - share * len(ranked[label]), seeds.number(seed, purpose, str(label))),
    )
    for label in by_remainder[: max(0, lacking)]:
        counts[label] += 1
    part = np.array(sorted(n for label, its in ranked.items() for n in its[: counts[label]]), np.int64)
    return np.setdiff1d(indexes, part), part


def train_and_test(pairs: Pairs, seed: int, test_share: float | None = None) -> tuple[Indexes, Indexes]:
    """Return the samples that train and those that test.

    Args:
        pairs: all samples.
        seed: of the choice where the data set has no test split.
        test_share: take this share of each class as the test set, whatever the splits are.

    Raises:
        UsageError: there is no train or test split, and no share was given; a class of the test set is in no training
            sample.
    """
    splits = np.array(pairs.splits)
    if test_share is not None:
        train, test = holdout(pairs, np.arange(len(pairs.keys)), seed, test_share, "test")
    else:
        train, test = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
    if not len(train) or not len(test):
        there = ", ".join(sorted({split or "no name" for split in pairs.splits}))
        raise UsageError(
            f"a study needs samples of the splits train and test; this data set has {there}: "
            "use --test-share 0.3 to test on a seeded part of each class"
        )
    check_disjoint([pairs.keys[n] for n in train], [pairs.keys[n] for n in test])
    unseen = set(pairs.labels[test].tolist()) - set(pairs.labels[train].tolist())
    if unseen:
        names = [pairs.classes[n] for n in sorted(unseen)]
        raise UsageError(f"no training sample is of {some_keys(names)}, which the test set has")
    return train, test


def check_disjoint(train: Iterable[str], test: Sequence[str]) -> None:
    """Check that no image is both trained on and tested.

    Raises:
        UsageError: one is; the message names it.
    """
    both = sorted(set(train) & set(test))
    if both:
        raise UsageError(f"{len(both):,} images are in the training set and in the test set: {some_keys(both)}")
