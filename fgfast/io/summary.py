"""The summary of a ledger for its report: counts, and evenly spread samples of bounded size."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Generic, TypeVar

from fgfast.records import STATUSES, Outcome, Sample, Status

FAILED_ROWS = 300
"""Most rows in the table of failed and skipped images; the ledger has the rest."""
BINS = 20
"""Bins of the histograms: of the subject's share of the image, of doubt, and of the flags' numbers."""
_COUNTS = ("parts",)
"""Numbers of flags that count things; they have no place on the histograms' axis from 0 to 1."""

GALLERY = 240
"""Default number of images in the gallery."""

SOME = 2048
"""A median is taken of at least this many values, or of all."""

DISTINCT = 1000
"""Most different reasons, combinations of reasons, and stages that are told apart; a run of fgfast has some dozens."""
OTHER = "other"

T = TypeVar("T")


class Spread(Generic[T]):
    """An evenly spread, deterministic sample of a stream of unknown length.

    The sample keeps every item until it holds twice its limit, then every second one, then every fourth, and so on.
    """

    def __init__(self, limit: int) -> None:
        """Keep every item of a stream of up to 2 * `limit`, and at least `limit` items of a longer one."""
        self._limit, self._stride, self._seen = max(limit, 1), 1, 0
        self.kept: list[T] = []

    def add(self, item: T) -> None:
        """Consider the stream's next item."""
        if self._seen % self._stride == 0:
            if len(self.kept) == 2 * self._limit:
                self.kept, self._stride = self.kept[::2], 2 * self._stride
            self.kept.append(item)
        self._seen += 1

    def take(self, count: int) -> list[T]:
        """Return at most `count` of the kept items, evenly spread."""
        count = min(count, len(self.kept))
        return [self.kept[n * len(self.kept) // count] for n in range(count)]


class Summary:
    """The counts of a ledger, and a bounded number of its outcomes.

    Attributes:
        counts: outcomes of each status.
        reasons: status -> reason -> number of outcomes with it.
        classes: class name -> status -> number of outcomes.
        doubts: status -> number of outcomes in each bin of doubt: five for each power of ten, from 0.0001 to 1.
        numbers: flag -> number of written images in each bin of its number, 0..1.
    """

    def __init__(self, samples: Mapping[str, Sample], gallery: int = GALLERY) -> None:
        """Start an empty summary; `add` takes the outcomes, in the data set's order.

        Args:
            samples: key -> sample.
            gallery: number of images to show.
        """
        self.counts: Counter[Status] = Counter()
        self.reasons: dict[Status, Counter[str]] = {status: Counter() for status in STATUSES}
        self.classes: dict[str, Counter[Status]] = defaultdict(Counter)
        self.seconds: Counter[str] = Counter()
        self.some_seconds: dict[str, Spread[float]] = defaultdict(lambda: Spread(SOME))
        self.shares: dict[Status, list[int]] = {"done": [0] * BINS, "flagged": [0] * BINS}
        self.some_shares: Spread[float] = Spread(SOME)
        self.doubts: dict[Status, list[int]] = {"done": [0] * BINS, "flagged": [0] * BINS}
        self.numbers: dict[str, list[int]] = defaultdict(lambda: [0] * BINS)
        self.unwritten: dict[Status, list[Outcome]] = {"failed": [], "skipped": []}
        self._done: Spread[tuple[int, Outcome]] = Spread(gallery)
        self._flagged: dict[tuple[str, ...], Spread[tuple[int, Outcome]]] = defaultdict(lambda: Spread(gallery))
        self._gallery, self._samples, self._position = gallery, samples, 0

    def add(self, outcome: Outcome) -> None:
        """Add the stream's next outcome."""
        sample = self._samples.get(outcome.key)
        self._count(outcome, sample.label if sample else "")
        self._keep(self._position, outcome)
        self._position += 1

    def _count(self, o: Outcome, label: str) -> None:
        self.counts[o.status] += 1
        if o.reasons:
            counter = self.reasons[o.status]
            counter.update(_limited(reason, counter) for reason in o.reasons)
        self.classes[label][o.status] += 1
        for stage, seconds in o.seconds.items():
            name = _limited(stage, self.seconds)
            self.seconds[name] += seconds  # type: ignore[assignment]  # Counter counts in floats too
            self.some_seconds[name].add(seconds)
        share = share_of(o)
        if share is not None and o.status in self.shares:
            self.shares[o.status][_bin(share)] += 1
            self.some_shares.add(share)
        if o.status not in self.doubts:
            return
        if o.doubt is not None:
            self.doubts[o.status][_bin(_doubt_share(o.doubt))] += 1
        for name, value in o.numbers.items():
            if name not in _COUNTS:
                self.numbers[_limited(name, self.numbers)][_bin(value)] += 1

    def _keep(self, position: int, o: Outcome) -> None:
        if o.status == "done":
            self._done.add((position, o))
        elif o.status == "flagged":
            known = o.reasons in self._flagged or len(self._flagged) < DISTINCT
            self._flagged[o.reasons if known else (OTHER,)].add((position, o))
        elif len(self.unwritten[o.status]) < FAILED_ROWS:
            self.unwritten[o.status].append(o)

    def chosen(self) -> list[Outcome]:
        """Choose the gallery: flagged images first, spread evenly over their reasons, then done ones.

        Within both, the most doubtful come first; where there is no doubt, the data set's order holds.
        """
        room = max(self._gallery * 2 // 3, self._gallery - len(self._done.kept))
        groups = list(self._flagged.values())
        quotas = [0] * len(groups)
        sizes = [len(group.kept) for group in groups]
        while sum(quotas) < room and quotas != sizes:
            least = min((n for n, size in enumerate(sizes) if quotas[n] < size), key=quotas.__getitem__)
            quotas[least] += 1
        flagged = [pair for group, quota in zip(groups, quotas, strict=True) for pair in group.take(quota)]
        done = self._done.take(self._gallery - len(flagged))
        return [o for pairs in (flagged, done) for _, o in sorted(pairs, key=_most_doubtful)]


def _most_doubtful(pair: tuple[int, Outcome]) -> tuple[float, int]:
    """Sort positions and outcomes: by doubt, the highest first, then by position."""
    position, outcome = pair
    return -(outcome.doubt or 0.0), position


def _bin(value: float) -> int:
    """Return the bin of a number in 0..1; others count at the ends, and what is no number at the lower one."""
    return min(int(value * BINS), BINS - 1) if value > 0 else 0


def _doubt_share(doubt: float) -> float:
    """Return where a doubt is from 0.0001 (0.0) to 1 (1.0), by the logarithm: most doubts are below 0.01."""
    return 1 + math.log10(doubt) / 4 if doubt > 0 else 0.0


def _limited(name: str, counter: Mapping[str, object]) -> str:
    """Return the name under which to count, which is `OTHER` where there are too many: a ledger may be anybody's."""
    return name if name in counter or len(counter) < DISTINCT else OTHER


def share_of(o: Outcome) -> float | None:
    """Return the subject's share of the stored image, 0..1, or None where it is unknown."""
    pixels = o.size[0] * o.size[1] if o.size else 0
    return None if o.area is None or not pixels else min(max(o.area / pixels, 0.0), 1.0)
