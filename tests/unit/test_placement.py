"""Which worker does what where, and the arithmetic that chooses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgfast.errors import UsageError
from fgfast.pipeline.placement import Cost, best, replicate, split

SECONDS = st.floats(1e-4, 10.0)


def rate(phases: list[tuple[int, int]], costs: list[Cost]) -> float:
    """Images per second of workers that do these phases, computed anew: each phase as fast as its workers together."""
    if all(phase == (0, 2) for phase in phases):
        return sum(1 / (c.detect + c.segment) for c in costs)
    detecting = sum(1 / c.detect for phase, c in zip(phases, costs, strict=True) if phase == (0, 1))
    segmenting = sum(1 / c.segment for phase, c in zip(phases, costs, strict=True) if phase == (1, 2))
    return min(detecting, segmenting)


def test_workers_have_names_of_their_own() -> None:
    placement = replicate(["cpu", "cuda:0", "cpu", "cpu"], 2, "as requested")
    assert [spec.name for spec in placement.specs] == ["cpu", "cuda:0", "cpu#2", "cpu#3"]
    assert [spec.device for spec in placement.specs] == ["cpu", "cuda:0", "cpu", "cpu"]
    assert {spec.phases for spec in placement.specs} == {(0, 2)}


def test_two_equal_devices_replicate_and_the_sentence_has_the_figures() -> None:
    placement = best(["cuda:0", "cuda:1"], [Cost(0.004, 0.012)] * 2)
    assert placement.name == "replicate"
    assert placement.reason == (
        "cuda:0 detects in 4.0 ms and segments in 12.0 ms per image, cuda:1 detects in 4.0 ms and segments in 12.0 ms "
        "per image; replicate would give 125 images per second, split 83.3"
    )


def test_devices_that_are_good_at_different_things_are_split() -> None:
    placement = best(["cuda:0", "cpu"], [Cost(10.0, 0.01), Cost(0.01, 10.0)])
    assert placement.name == "split"
    assert [spec.phases for spec in placement.specs] == [(1, 2), (0, 1)]


def test_a_split_gives_the_detector_as_many_devices_as_it_needs() -> None:
    placement = split([f"cuda:{n}" for n in range(5)], [Cost(1.0, 4.0)] * 5, "as requested")
    assert sum(spec.phases == (0, 1) for spec in placement.specs) == 1
    placement = split([f"cuda:{n}" for n in range(12)], [Cost(1.0, 2.0)] * 12, "as requested")
    assert sum(spec.phases == (0, 1) for spec in placement.specs) == 4


def test_one_device_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="needs two devices or more, not only cuda:0"):
        split(["cuda:0"], [Cost(1, 1)], "as requested")


@given(st.lists(st.builds(Cost, SECONDS, SECONDS), min_size=2, max_size=5))
def test_the_choice_is_the_best_of_all(costs: list[Cost]) -> None:
    placement = best([f"cuda:{n}" for n in range(len(costs))], costs)
    every = [[(0, 2)] * len(costs)]
    every += [
        list(phases) for phases in itertools.product([(0, 1), (1, 2)], repeat=len(costs)) if len(set(phases)) == 2
    ]
    chosen = rate([spec.phases for spec in placement.specs], costs)
    assert chosen == pytest.approx(max(rate(phases, costs) for phases in every))
