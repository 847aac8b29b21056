"""Which worker does what where, and the arithmetic that chooses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgfast.errors import UsageError
from fgfast.pipeline.placement import Cost, Load, best, copies, pool_threads, repeated, replicate, split

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


GIB = 2**30


@pytest.mark.parametrize(
    ("held", "computing", "free", "cores", "wanted", "words"),
    [
        (0.002, 0.0083, 120, 16, 1, "holds Python's lock for 2.0 ms per image, and the device computes 8.3 ms"),
        (0.0088, 0.0083, 120, 16, 1, "8.8 ms"),  # within the margin
        (0.012, 0.0083, 120, 16, 2, "12.0 ms"),
        (0.02, 0.0083, 120, 16, 3, "20.0 ms"),
        (0.2, 0.0083, 120, 64, 4, "0.2"),
        (0.2, 0.0083, 120, 4, 2, "but there are only 4 cores"),
        (0.2, 0.0083, 120, 1, 1, "but there are only 1 cores"),
        (0.02, 0.0083, 20, 16, 1, "but there are only 20.0 GiB of free memory"),
        (0.02, 0.0083, 68, 16, 1, "but there are only 68.0 GiB of free memory"),  # a second one needs 72 * 1.1
        (0.02, 0.0083, 100, 16, 3, "20.0 ms"),
    ],
)
def test_a_second_worker_is_for_a_gpu_that_python_s_lock_keeps_waiting(
    held: float, computing: float, free: int, cores: int, wanted: int, words: str
) -> None:
    found, reason = copies(Load(held, computing, free * GIB, 140 * GIB), cores)
    assert found == wanted, reason
    assert words in reason or words == "0.2"


def test_repeated_workers_keep_the_names_of_the_first_ones() -> None:
    placement = replicate(["cuda:0", "cuda:1", "cuda:0"], 2, "")
    larger = repeated(placement, {"cuda:0": 2, "cuda:1": 3})
    assert larger.specs[:3] == placement.specs
    assert [spec.name for spec in larger.specs[3:]] == ["cuda:0#3", "cuda:1#2", "cuda:1#3", "cuda:0#4"]
    apart = repeated(split(["a", "b"], [Cost(1, 1)] * 2, ""), {"a": 2, "b": 2})
    assert sorted(spec.phases for spec in apart.specs) == [(0, 1), (0, 1), (1, 2), (1, 2)]


def test_a_pool_has_a_thread_per_core_and_eight_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgfast.pipeline.placement.available_cores", lambda: 64)
    assert [pool_threads(None, workers) for workers in (1, 4, 8, 16, 100)] == [8, 8, 8, 4, 1]
    assert [pool_threads(64, workers) for workers in (1, 4, 100)] == [64, 16, 1]
    monkeypatch.setattr("fgfast.pipeline.placement.available_cores", lambda: 2)
    assert pool_threads(None, 1) == 2
    with pytest.raises(UsageError, match="cpu_threads must be at least 1, not 0"):
        pool_threads(0, 1)
