"""Planted errors: wrong boxes look like right ones, the fit turns no sign round, 2 % are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgfast.bench.doubt_fit import FLOORS, PREVALENCE, Known, as_json, auc, fit, found, measure
from fgfast.bench.known_photos import drawn_photos
from fgfast.bench.planting import FAILED, KINDS, MASK_KINDS, RIGHT, cases_of
from fgfast.ops.doubt import ORDINARY, Weights, doubt


def test_errors_are_planted_and_a_cache_gives_the_same_ones(tmp_path: Path) -> None:
    photos = drawn_photos(2)
    first = list(cases_of(photos, second_look=False, cache=tmp_path))
    again = list(cases_of(photos, second_look=False, cache=tmp_path))
    assert [(c.kind, c.box.tolist(), c.overlap, c.harmless) for _, c in first] == [
        (c.kind, c.box.tolist(), c.overlap, c.harmless) for _, c in again
    ]
    assert all((a.bits == b.bits).all() for (_, a), (_, b) in zip(first, again, strict=True))
    kinds = {case.kind for _, case in first}
    assert {*MASK_KINDS, "half box", "whole image"} < kinds <= {RIGHT, FAILED, *KINDS}
    for subject, case in first:
        photo = photos[subject]
        assert case.bits.shape == photo.size
        assert case.kind != RIGHT or photo.overlap(case.bits) >= 0.7
        assert case.kind != "empty" or not case.bits.any()


def known(right: int, wrong: int, random: np.random.Generator) -> list[Known]:
    rows = [Known(f"r{n}", "", {"box gap": random.normal(0.1, 0.05), "parts": 1.0}) for n in range(right)]
    return rows + [
        Known(f"w{n}", "half box", {"box gap": random.normal(0.3, 0.05), "parts": 1.0}) for n in range(wrong)
    ]


def test_the_fit_finds_what_tells_errors_and_never_turns_a_sign_round() -> None:
    random = np.random.default_rng(0)
    rows = known(60, 40, random)
    turned = [Known(r.photo, r.kind, {**r.numbers, "weak outline": 0.1 if r.kind else 0.4}) for r in rows]
    family = fit(turned, ("box gap", "parts", "weak outline"), "a test")
    assert set(family.terms) == {"box gap"}  # "weak outline" is low in errors: no weight, not a negative one
    values = np.array([doubt(r.numbers, Weights({"grabcut": family})).value for r in turned])
    assert auc(values, np.array([bool(r.kind) for r in turned])) > 0.95
    figures = measure(values, turned)
    share, low, high = figures["found in 5%"]["all"]
    assert 0.5 < low <= share <= high <= 1
    assert abs(float(np.mean(values[:60])) - PREVALENCE) < PREVALENCE


def test_a_number_that_never_varies_in_right_results_has_a_floor() -> None:
    rows = [Known(f"{n}", "half box" if n % 2 else "", {"parts": 2.0 if n == 1 else 1.0}) for n in range(40)]
    family = fit(rows, ("parts",), "a test")
    assert all(term.deviation == FLOORS["parts"] for term in family.terms.values())


def test_a_fit_is_held_to_the_weights_that_it_starts_from() -> None:
    rows = known(60, 40, np.random.default_rng(0))
    more = [Known(r.photo, r.kind, {**r.numbers, "unstable box": 0.5 if r.kind else 0.1}) for r in rows]
    names = ("box gap", "unstable box")
    first = fit(rows, names[:1], "a test")
    alone, held = fit(more, names, "a test"), fit(more, names, "a test", first)
    assert alone.terms["box gap"].weight < held.terms["box gap"].weight
    assert all(term.weight >= 0 for term in held.terms.values())
    assert held.terms["box gap"].ordinary == ORDINARY and held.terms["unstable box"].ordinary == 0
    assert Weights.parse(as_json(Weights({"grabcut": held}))).families["grabcut"].terms == held.terms


@pytest.mark.parametrize("kinds", [("", ""), ("empty", "empty")])
def test_there_is_nothing_to_fit_to_without_both(kinds: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="right and wrong"):
        fit([Known("a", kind, {"fill": 0.5}) for kind in kinds], ("fill",), "")


def test_what_is_found_is_that_of_two_per_cent_wrong_ones() -> None:
    values, kinds = np.arange(100, dtype=float), ["ring"] * 10 + [""] * 80 + ["empty"] * 10
    assert found(values, kinds, 0.02) == {"empty": 1.0, "ring": 0.0, "all": 0.5}
    assert found(values, kinds, 1.0)["all"] == 1.0
    ties = found(np.zeros(100), kinds, 0.05)
    assert ties["all"] == pytest.approx(0.05)  # no information: the share that is looked at
    assert found(values, [""] * 100, 0.05) == {}
