"""`fgfast quality`: masks of a run against official ones, before and after review, and what the doubt is worth."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fgfast import ops
from fgfast.datasets.masks import read_mask
from fgfast.errors import MaskUnusableError, UsageError
from fgfast.io.decisions import FILE, Decision, Decisions
from fgfast.machine import available_cores
from fgfast.ops.overlap import boundary_f, iou
from fgfast.pipeline.annotated import with_masks
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Outcome, Sample, Size

WRONG_BELOW = 0.7
"""IoU below which a mask counts as wrong, as in `bench/quality.py`."""
SHARES = (0.05, 0.1, 0.2)
"""Shares of the most doubtful images within which wrong masks are searched for."""
# Images whose masks are in memory at a time, per core.
_AT_A_TIME = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a mask agrees with the official one: IoU, and F score of the outline, both 0..1."""

    iou: float
    boundary_f: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One image.

    Attributes:
        key: of its sample.
        label: its class.
        status: in the ledger, now.
        doubt: how doubtful its mask was, 0..1; None where that was not estimated.
        verdict: what a person decided, or empty.
        before: the mask that the run made; None where it made none.
        after: the mask that holds now; None where a person rejected it, or there is none.
    """

    key: str
    label: str
    status: str
    doubt: float | None
    verdict: str
    before: Agreement | None
    after: Agreement | None


@dataclass(frozen=True, slots=True)
class Missing:
    """An image whose official mask cannot be used, and why."""

    key: str
    detail: str


@dataclass(frozen=True)
class Quality:
    """What was measured.

    Attributes:
        judged: one entry per image with an official mask and a mask of the run, in the data set's order.
        missing: images whose official mask cannot be used.
        rule: what counts as subject in the official masks, in words.
    """

    judged: tuple[Judged, ...]
    missing: tuple[Missing, ...]
    rule: str

    @property
    def before(self) -> Averages | None:
        """The masks that the run made."""
        return averages([one.before for one in self.judged if one.before])

    @property
    def after(self) -> Averages | None:
        """The masks that hold now."""
        return averages([one.after for one in self.judged if one.after])

    def found(self) -> Mapping[float, float] | None:
        """Return share of the most doubtful -> share of the wrong masks among them; None where nothing is wrong, or no
        doubt is known.
        """
        return found_within(self._with_doubt())

    def curve(self) -> tuple[list[float], list[float]]:
        """Return coverage and risk; see `risk_coverage`."""
        return risk_coverage(self._with_doubt())

    def _with_doubt(self) -> list[tuple[float, float]]:
        return [(one.doubt, one.before.iou) for one in self.judged if one.doubt is not None and one.before]


@dataclass(frozen=True, slots=True)
class Averages:
    """Means over masks.

    Attributes:
        masks: their number.
        iou: mean IoU.
        boundary_f: mean F score of the outline.
        wrong: share whose IoU is below `WRONG_BELOW`.
        worst: IoU below which a tenth of them lie.
    """

    masks: int
    iou: float
    boundary_f: float
    wrong: float
    worst: float


def averages(found: Sequence[Agreement]) -> Averages | None:
    """Return the means over masks; None where there are none."""
    if not found:
        return None
    ious = sorted(one.iou for one in found)
    return Averages(
        masks=len(found),
        iou=statistics.fmean(ious),
        boundary_f=statistics.fmean(one.boundary_f for one in found),
        wrong=sum(value < WRONG_BELOW for value in ious) / len(ious),
        worst=ious[(len(ious) - 1) // 10],
    )


def found_within(pairs: Sequence[tuple[float, float]], shares: Sequence[float] = SHARES) -> dict[float, float] | None:
    """Return share of the most doubtful -> share of the wrong masks that are among them.

    Args:
        pairs: doubt and IoU of each mask. Masks of one doubt count by their average place.
        shares: of all masks, 0..1.
    """
    wrong = sum(iou < WRONG_BELOW for _, iou in pairs)
    if not wrong:
        return None
    ranked = sorted(pairs, key=lambda pair: -pair[0])
    return {share: sum(_wrong_in(ranked, share * len(ranked))) / wrong for share in shares}


def _wrong_in(ranked: Sequence[tuple[float, float]], room: float) -> Iterator[float]:
    """Yield how many wrong masks are in the first `room` places; those of one doubt share their places."""
    at = 0
    while at < len(ranked) and room > 0:
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        yield min(1.0, room / (end - at)) * sum(iou < WRONG_BELOW for _, iou in ranked[at:end])
        room -= end - at
        at = end


def risk_coverage(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return coverage and risk: the mean of 1 - IoU of the masks that remain when the most doubtful are left out.

    Args:
        pairs: doubt and IoU of each mask.

    Returns:
        Coverages from 1/N to 1, and the risk at each.
    """
    total, risks = 0.0, []
    for count, (_, value) in enumerate(sorted(pairs, key=lambda pair: pair[0]), 1):
        total += 1 - value
        risks.append(total / count)
    return [count / len(risks) for count in range(1, len(risks) + 1)], risks


def measure(out: Path, truth: Path | None = None, root: Path | None = None) -> Quality:
    """Compare the masks of a run with official ones.

    Args:
        out: the output folder of the run.
        truth: a folder of masks named like their images, or a COCO file; None for those that the data set brings.
        root: the data set's folder, where it has moved.

    Raises:
        OutputRefusedError: `out` holds no run.
        UsageError: there are no official masks, or the data set is gone.
        DatasetError: a file of masks is not understood.
    """
    with Twin.open(out, root) as twin:
        decisions = _decided(twin)
        finished = {o.key for o in twin.entries() if o.rle is not None or o.key in decisions}
        dataset = twin.dataset
        positions = [n for n, sample in enumerate(dataset.samples) if sample.key in finished]
        if not positions:
            raise UsageError(f"no image of {out} has a mask to be compared")
        dataset, reasons = with_masks(dataset, positions, truth, "--truth")
        samples = {dataset.samples[n].key: dataset.samples[n] for n in positions}
        labels = twin.labels()
        found: list[Judged | Missing] = []
        with ThreadPoolExecutor(available_cores()) as pool:
            entries = (o for o in twin.entries() if o.key in samples)
            for some in _chunks(entries, _AT_A_TIME * available_cores()):
                found += pool.map(
                    lambda o: _judge(o, samples[o.key], labels.get(o.key, ""), decisions.get(o.key)), some
                )
    return Quality(
        tuple(one for one in found if isinstance(one, Judged)),
        tuple(one for one in found if isinstance(one, Missing)),
        reasons[0],
    )


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


@dataclass(frozen=True, slots=True)
class _Decided:
    """What a person decided on an image, and the mask that the run had made."""

    decision: Decision
    before: bytes | None


def _decided(twin: Twin) -> dict[str, _Decided]:
    """Return key -> the decision in force, with the mask before the first one that replaced it."""
    path = twin.output.ours / FILE
    if not path.exists():
        return {}
    first: dict[str, bytes] = {}
    with Decisions(path) as decisions:
        for decision in decisions.all():
            if decision.before is not None:
                first.setdefault(decision.key, decision.before)
        return {key: _Decided(held, first.get(key)) for key, held in decisions.in_force().items()}


def _judge(o: Outcome, sample: Sample, label: str, decided: _Decided | None) -> Judged | Missing:
    size = o.size or (decided.decision.size if decided else None)
    if size is None:
        return Missing(o.key, f"{o.key} was not read")
    try:
        official = read_mask(sample, size)
    except MaskUnusableError as error:
        return Missing(o.key, error.detail)
    now = o.rle if o.status in ("done", "flagged") else None
    first = decided.before if decided and decided.before is not None else o.rle
    verdict = decided.decision.verdict if decided else ""
    before = _agreement(first, size, official)
    after = before if now == first else _agreement(now, size, official)
    return Judged(o.key, label, o.status, o.doubt, verdict, before, after)


def _agreement(rle: bytes | None, size: Size, official: Bool) -> Agreement | None:
    if rle is None:
        return None
    bits = ops.rle_decode(rle, *size)
    return Agreement(iou(bits, official), boundary_f(bits, official))
