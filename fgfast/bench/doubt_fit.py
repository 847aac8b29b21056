"""Fits the weights of the doubt to results that are known to be right or wrong, and measures what the doubt finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.models.grabcut_again import WEIGHED
from fgfast.ops.doubt import ORDINARY, VERSION, Family, Term, Weights, seen, standardised

PREVALENCE = 0.02
"""Share of wrong results: the paper mended 1-2 % by hand."""
BUDGETS = (0.05, 0.10)
"""Shares of the results, the most doubtful ones, that a person looks at."""
FLOORS: Mapping[str, float] = {"parts": 0.2}
FLOOR = 0.1
"""Least deviation of a number, as `seen`, in the fit. Nearly all right results have one part and no hole:
without the floor, the deviation would be next to none, and a single speck would outweigh everything else."""
RIDGE = 0.1
"""Of the squared weights (or differences from those that they are held to), against the mean loss of a result: numbers
that say the same share a weight."""
FROM_THE_MEAN = frozenset(WEIGHED)
"""Numbers of a second look count from the mean of right results on, because masks agree by degrees. Chosen by
cross-validation over the photographs to fit to; see docs/doubt.md."""
RESAMPLES = 400
"""Times that photographs are drawn with replacement for an interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """A result that is known to be right or wrong.

    Attributes:
        photo: name of its photograph; a photograph is in the fit or in the test, never in both.
        kind: kind of error; empty where it is right.
        numbers: its numbers.
    """

    photo: str
    kind: str
    numbers: Mapping[str, float]


def fit(results: Sequence[Known], names: Sequence[str], reason: str, start: Family | None = None) -> Family:
    """Fit a logistic model with weights of at least 0.

    Right results count together as much as wrong ones, and so does each kind of error; the intercept is then that of
    `PREVALENCE`.

    Args:
        results: right and wrong ones.
        names: the numbers that may have a weight.
        reason: see `Family`.
        start: a family fitted to more results or kinds of errors, of fewer numbers: weights are held back to its
            weights instead of to 0, so that more numbers add to what those say, and do not replace it.

    Raises:
        ValueError: all results are right, or none is.
    """
    from scipy.optimize import minimize

    right = [one for one in results if not one.kind]
    kinds = sorted({one.kind for one in results if one.kind})
    if not right or not kinds:
        raise ValueError(f"there must be right and wrong results to fit to, not {len(right)} of {len(results)}")
    scales = {}
    for name in names:
        values = [seen(name, one.numbers[name]) for one in right if name in one.numbers]
        if values:
            scales[name] = float(np.mean(values)), max(float(np.std(values)), FLOORS.get(name, FLOOR))
    x = np.array([[_part(one, name, *scales[name]) for name in scales] for one in results])
    given = {} if start is None else start.terms
    held = np.array([given[name].weight if name in given else 0.0 for name in scales])
    wrong = np.array([bool(one.kind) for one in results])
    count = {kind: sum(one.kind == kind for one in results) for kind in ("", *kinds)}
    share = np.array([0.5 / count[one.kind] / (len(kinds) if one.kind else 1) for one in results])
    signs = np.where(wrong, 1.0, -1.0)

    def loss(v: Floats) -> tuple[float, Floats]:
        margin = signs * (x @ v[1:] + v[0])
        slope = -share * signs / (1 + np.exp(np.clip(margin, -500, 500)))
        away = v[1:] - held
        gradient = np.concatenate([[slope.sum()], x.T @ slope + 2 * RIDGE * away])
        return float(share @ np.logaddexp(0, -margin) + RIDGE * (away**2).sum()), gradient

    bounds = [(None, None)] + [(0.0, None)] * len(scales)
    found = minimize(loss, np.zeros(len(scales) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    intercept = float(found[0]) + float(np.log(PREVALENCE / (1 - PREVALENCE)))
    terms = {
        name: Term(*(round(value, 4) for value in (*scale, float(weight), _ordinary(name))))
        for (name, scale), weight in zip(scales.items(), found[1:], strict=True)
        if weight >= 0.005
    }
    return Family(round(intercept, 4), terms, reason)


def _ordinary(name: str) -> float:
    return 0.0 if name in FROM_THE_MEAN else ORDINARY


def _part(one: Known, name: str, mean: float, deviation: float) -> float:
    if name not in one.numbers:
        return 0.0
    return standardised(seen(name, one.numbers[name]), mean, deviation, _ordinary(name))


def as_json(weights: Weights) -> bytes:
    """Return the content of a file of weights."""
    families = {
        name: {
            "reason": family.reason,
            "intercept": family.intercept,
            "terms": {
                flag: {"mean": t.mean, "deviation": t.deviation, "weight": t.weight, "ordinary": t.ordinary}
                for flag, t in family.terms.items()
            },
        }
        for name, family in weights.families.items()
    }
    return (json.dumps({"version": VERSION, "families": families}, indent=1) + "\n").encode()


def found(values: Floats, kinds: Sequence[str], budget: float) -> dict[str, float]:
    """Return the fraction of the wrong results among the most doubtful ones, by kind, and of "all" kinds.

    Results are weighted so that `PREVALENCE` of them are wrong, every kind alike. Of results with the same doubt at the
    end of the budget, a part is taken.

    Args:
        values: doubt of each result.
        kinds: kind of error of each; empty where it is right.
        budget: the share of the results that is looked at.
    """
    names = sorted(set(kinds) - {""})
    kind = np.array(kinds)
    weight = np.zeros(len(values))
    for name in ("", *names):
        own = kind == name
        weight[own] = ((1 - PREVALENCE) if not name else PREVALENCE / len(names)) / max(own.sum(), 1)
    levels, level = np.unique(-values, return_inverse=True)
    each = np.bincount(level, weight, len(levels))
    before = np.cumsum(each) - each
    taken = np.clip((budget * weight.sum() - before) / each, 0, 1)[level]
    shares = {name: float(taken[kind == name].mean()) for name in names}
    return {**shares, "all": float(np.mean([*shares.values()]))} if names else {}


def auc(values: Floats, wrong: NDArray[np.bool_]) -> float:
    """Return the probability that a wrong result is more doubtful than a right one; half where they are equal."""
    levels, level = np.unique(values, return_inverse=True)
    below = np.cumsum(right := np.bincount(level[~wrong], minlength=len(levels))) - right / 2
    return float(below[level[wrong]].mean() / max(int((~wrong).sum()), 1))


def measure(values: Floats, results: Sequence[Known], seed: int = 0) -> dict[str, Any]:
    """Return what the doubt finds: by budget and kind, with intervals by bootstrap over photographs (10 to 90 %).

    Args:
        values: doubt of each result.
        results: the results.
        seed: of the draws.
    """
    kinds = [one.kind for one in results]
    names, of = np.unique([one.photo for one in results], return_inverse=True)
    own = [np.flatnonzero(of == n) for n in range(len(names))]
    random = np.random.default_rng(seed)
    draws: list[dict[float, dict[str, float]]] = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([own[n] for n in random.integers(len(names), size=len(names))])
        drawn = [kinds[n] for n in rows]
        if "" in drawn and len(set(drawn)) > 1:
            draws.append({budget: found(values[rows], drawn, budget) for budget in BUDGETS})
    figures: dict[str, Any] = {"photographs": len(names), "right": kinds.count("")}
    wrong = np.array([bool(kind) for kind in kinds])
    figures["auc"] = {"all": round(auc(values, wrong), 3)}
    for kind in sorted(set(kinds) - {""}):
        rows = np.array([one in ("", kind) for one in kinds])
        figures["auc"][kind] = round(auc(values[rows], wrong[rows]), 3)
    for budget in BUDGETS:
        shares = {}
        for kind, share in found(values, kinds, budget).items():
            low, high = np.percentile([draw[budget][kind] for draw in draws if kind in draw[budget]], [10, 90])
            shares[kind] = [round(float(value), 3) for value in (share, low, high)]
        figures[f"found in {budget:.0%}"] = shares
    return figures
