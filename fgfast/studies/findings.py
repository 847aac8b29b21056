"""The paper's findings (arXiv 2408.01998), each tested on data sets and backbones: holds, does not, or too few runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fgfast.studies.figures import LEAST_SEEDS, Estimate, bootstrap_mean, over_seeds, paired
from fgfast.studies.results import Row, Study

Judgement = Literal["holds", "does not hold", "undecided", "too few runs", "not run"]

CLOSE = 0.025
"""The paper: a model trained on X_FG stays within 2.5 points on X."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One of the paper's claims on one data set and backbone.

    Attributes:
        claim: a sentence.
        dataset, row: where it was tested.
        figure: what it is about, as a difference of accuracies; None where it was not run.
        judgement: "holds" and "does not hold" need the whole interval, the wider of that over images and that over
            trainings, on one side; "undecided": the interval has both; "too few runs": fewer than 3 trainings.
    """

    claim: str
    dataset: str
    row: str
    figure: Estimate | None
    judgement: Judgement


def judge(figure: Estimate | None, low: float, high: float) -> Judgement:
    """Return whether a figure lies strictly between two bounds."""
    if figure is None:
        return "not run"
    if figure.low is None or figure.high is None:
        return "too few runs"
    if low < figure.low and figure.high < high:
        return "holds"
    return "does not hold" if figure.high <= low or figure.low >= high else "undecided"


def _falls(row: Row, fg: Row | None, _others: Sequence[tuple[Row, Row]]) -> Estimate | None:
    found = row.minus("x", "x_fg")
    return None if found is None else found.wide


def _better(row: Row, fg: Row | None, _others: Sequence[tuple[Row, Row]]) -> Estimate | None:
    found = None if fg is None else fg.minus("x_fg", "x", row)
    return None if found is None else found.wide


def _close(_row: Row, fg: Row | None, _others: Sequence[tuple[Row, Row]]) -> Estimate | None:
    found = None if fg is None else fg.minus("x_fg", "x")
    return None if found is None else found.wide


def _gains_most(row: Row, fg: Row | None, others: Sequence[tuple[Row, Row]]) -> Estimate | None:
    """The gain of a ViT (X_FG -> X_FG minus X -> X) above that of the other backbone that gains most."""
    if fg is None or not others:
        return None
    mine, gains = _gain(row, fg), [gain for pair in others if (gain := _gain(*pair))]
    if not mine or not gains:
        return None
    above = [_above(mine, gain) for gain in gains]
    return min((one for one in above if one), key=lambda one: one.value, default=None)


def _gain(row: Row, fg: Row) -> dict[int, dict[str, int]]:
    """Return seed -> key -> -1, 0 or 1: whether the image is right in the one trained on X_FG only, or on X only."""
    a, b = fg.of("x_fg"), row.of("x")
    found = {}
    for seed in sorted(a.keys() & b.keys()):
        first, second = paired(a[seed], b[seed])
        change = first.correct.astype(int) - second.correct
        found[seed] = dict(zip(first.keys, change.tolist(), strict=True))
    return found


def _above(mine: dict[int, dict[str, int]], other: dict[int, dict[str, int]]) -> Estimate | None:
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    keys = sorted(set.intersection(*(set(some[seed]) for some in (mine, other) for seed in seeds)))
    if not keys:
        return None
    rows = np.array([[mine[seed][key] - other[seed][key] for key in keys] for seed in seeds], np.float64)
    images, trainings = bootstrap_mean(rows.mean(0)), over_seeds(rows.mean(1).tolist())
    if images.low is None or images.high is None or trainings.low is None or trainings.high is None:
        return Estimate(images.value, count=len(seeds))
    low, high = min(images.low, trainings.low), max(images.high, trainings.high)
    return Estimate(images.value, low, high, len(seeds))


Measure = Callable[[Row, "Row | None", Sequence[tuple[Row, Row]]], "Estimate | None"]

CLAIMS: tuple[tuple[str, Measure, float, float], ...] = (
    ("A model trained on X falls on X_FG (X on X minus X on X_FG is above 0)", _falls, 0, np.inf),
    ("Training and testing on X_FG is better (X_FG on X_FG minus X on X is above 0)", _better, 0, np.inf),
    ("A model trained on X_FG stays within 2.5 points on X (X_FG on X_FG minus X_FG on X)", _close, -CLOSE, CLOSE),
    ("A ViT gains most from X_FG (its gain minus that of the best other backbone is above 0)", _gains_most, 0, np.inf),
)
"""Claim, its figure, and the bounds between which the claim holds."""


def findings(studies: Iterable[Study]) -> list[Finding]:
    """Test each of the paper's claims on each backbone trained on X of each study; the fourth on ViTs only."""
    found = []
    for study in studies:
        rows = [(row, study.row(row, "x_fg")) for row in study.rows if row.cell.train == "x"]
        for claim, measure, low, high in CLAIMS:
            for row, fg in rows:
                if measure is _gains_most and not _is_vit(row):
                    continue
                others = [(a, b) for a, b in rows if b is not None and not _is_vit(a) and _beside(a, row)]
                figure = measure(row, fg, others)
                found.append(Finding(claim, study.dataset, row.name, figure, judge(figure, low, high)))
    return found


def _is_vit(row: Row) -> bool:
    name = row.cell.backbone.rpartition("/")[2].lower()
    return "vit" in name.partition("_")[0] or name.startswith(("test_vit", "dino"))


def _beside(a: Row, b: Row) -> bool:
    """Whether two rows differ in their backbone only."""
    return a.kind[0] == b.kind[0] and a.kind[2:] == b.kind[2:]


def sentence(found: Finding) -> str:
    """Say a finding's judgement for people."""
    if found.judgement == "too few runs":
        return f"too few runs (a verdict needs {LEAST_SEEDS} trainings)"
    return found.judgement
