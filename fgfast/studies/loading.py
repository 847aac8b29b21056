"""Batches of an arm: each sample is shown, masked where the strategy masks pixels, then brought to the model's input.

Order and augmentation depend on seed, epoch and key alone: not on threads, not on batches, not on what came before.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fgfast import seeds
from fgfast.errors import UsageError
from fgfast.runner import in_order
from fgfast.studies.arms import Fill, Shows
from fgfast.studies.cell import Arm, Strategy
from fgfast.studies.pairs import Pair
from fgfast.studies.splits import Indexes
from fgfast.studies.transforms import Prepare

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch.

    Attributes:
        x: (B, 3, H, W) float32, normalised.
        mask: (B, 1, H, W) float32, the share of subject in each pixel, 0..1.
        y: (B,) int64, index of the class.
        keys: of the samples.
    """

    x: Tensor
    mask: Tensor
    y: Tensor
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some samples of an arm; several threads load them.

    Attributes:
        shown: shows samples.
        arm: of the samples.
        indexes: of the samples, (N,).
        prepare: brings them to the model's input.
        strategy: masks pixels where it is early: at the stored size, before any resize.
        seed: of order and augmentation.
        colour: the model's mean colour, for the fill "mean".
    """

    shown: Shows
    arm: Arm
    indexes: Indexes
    prepare: Prepare
    strategy: Strategy
    seed: int
    colour: tuple[int, int, int] = (124, 116, 104)

    def sample(self, n: int, epoch: int) -> tuple[Tensor, Tensor, int, str]:
        """Return image and mask as the model takes them, label, key."""
        number = int(self.indexes[n])
        key = self.shown.pairs.keys[number]
        pair = self.shown.show(self.arm, number)
        if self.strategy.early:
            pair = Pair(Fill(self.strategy.fill, self.colour, self.seed).over(pair, key), pair.mask)
        x, mask = self.prepare(pair, key, str(epoch), seed=self.seed)
        return x, mask, int(self.shown.pairs.labels[number]), key


class Loader:
    """The batches of some samples.

    Args:
        samples: what is loaded.
        batch: samples per batch.
        train: whether each epoch has an order of its own. A last batch of one sample then joins the one before it:
            batch normalisation has no statistics of one sample. No sample is dropped or shown twice, ever.
        threads: that load ahead, a batch each.
    """

    def __init__(self, samples: Samples, batch: int, train: bool, threads: int = 1) -> None:
        if not len(samples.indexes):
            raise UsageError(f"there is no sample to {'train on' if train else 'test'} of the arm {samples.arm}")
        self.samples, self.batch, self.train, self._threads = samples, batch, train, threads

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._cut(range(len(self.samples.indexes))))

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Raises:
            SampleError: an image cannot be loaded; the message names it.
        """
        count = len(self.samples.indexes)
        order: Sequence[int] = range(count)
        if self.train:
            order = seeds.generator(self.samples.seed, "order", str(epoch)).permutation(count).tolist()
        works = (_Work(part, epoch) for part in self._cut(order))
        for finished in in_order(works, [_Load(self.samples)], threads=self._threads):
            if finished.error is not None:
                raise finished.error
            assert finished.item.batch is not None
            yield finished.item.batch

    def _cut(self, order: Sequence[int]) -> list[Sequence[int]]:
        parts = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        if self.train and len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [[*parts[-2], *parts[-1]]]
        return parts


@dataclass(slots=True, eq=False)
class _Work:
    """A batch to load, and the batch."""

    numbers: Sequence[int]
    epoch: int
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class _Load:
    """Loads a batch."""

    samples: Samples
    name: str = "load"

    def __call__(self, work: _Work) -> None:
        found = [self.samples.sample(n, work.epoch) for n in work.numbers]
        xs, masks, labels, keys = zip(*found, strict=True)
        y = torch.from_numpy(np.array(labels, np.int64))
        work.batch = Batch(torch.stack(xs), torch.stack(masks), y, keys)


def mean_colour(mean: Sequence[float]) -> tuple[int, int, int]:
    """Return a model's mean colour, which its normalisation makes zero up to rounding, as levels of 0..255."""
    red, green, blue = (min(255, max(0, math.floor(255 * value + 0.5))) for value in mean)
    return red, green, blue
