"""What follows from events, on events made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from fgfast.bench import events
from fgfast.runner import Event


def event(stage: str, start: float, end: float, **more: Any) -> Event:
    given = {"worker": "cpu", "thread": "pool-0", "items": 1, "waiting": 0} | more
    return Event(stage=stage, start=start, end=end, **given)


def forward(stage: str, start: float, end: float, **more: Any) -> Event:
    return event(stage, start, end, thread="device", **more)


@pytest.mark.parametrize(
    ("intervals", "wanted"),
    [
        ([], []),
        ([(3, 4), (0, 1)], [(0, 1), (3, 4)]),
        ([(0, 2), (1, 3), (3, 4)], [(0, 4)]),
        ([(0, 9), (1, 2)], [(0, 9)]),
    ],
)
def test_union(intervals: Any, wanted: Any) -> None:
    assert events.union(intervals) == wanted


# A worker decodes an image, runs two batches of two models in turns with a pause of 1 s, and writes the last image.
RUN = [
    event("decode", 100.0, 101.0),
    forward("detect", 101.0, 103.0, items=2, waiting=3),
    forward("encode", 103.0, 105.0, items=2, waiting=1),
    forward("detect", 106.0, 108.0, items=2, waiting=1),
    forward("encode", 108.0, 109.0, items=2),
    event("write", 109.0, 110.0, thread="pool-1"),
]


def test_busy_is_the_union_of_forwards_over_all_the_time() -> None:
    assert events.busy(RUN) == {"cpu": pytest.approx(0.7)}
    assert events.outside_forward(RUN) == pytest.approx(0.3)


def test_under_way_is_from_the_first_forward_to_the_last() -> None:
    assert events.steady(RUN) == (101.0, 109.0)
    assert events.outside_forward(RUN, events.steady(RUN)) == pytest.approx(1 / 8)


def test_forwards_that_overlap_count_once() -> None:
    both = [forward("detect", 0, 4), forward("encode", 2, 6), event("write", 6, 8)]
    assert events.busy(both) == {"cpu": pytest.approx(6 / 8)}


def test_workers_are_averaged_and_those_without_models_left_out() -> None:
    workers = [
        forward("detect", 0, 10, worker="cuda:0"),
        forward("encode", 0, 5, worker="cuda:1"),
        event("commit", 0, 10, worker=""),
    ]
    assert events.busy(workers) == {"cuda:0": 1.0, "cuda:1": 0.5}
    assert events.outside_forward(workers) == pytest.approx(0.25)


def test_forwards_are_cut_to_the_time_that_counts() -> None:
    assert events.busy([forward("detect", 0, 10), forward("detect", 20, 30)], (5.0, 15.0)) == {"cpu": 0.5}


def test_without_models_nothing_is_inside_a_forward() -> None:
    steps = [event("decode", 0, 1), event("write", 1, 2)]
    assert events.busy(steps) == {}
    assert events.outside_forward(steps) == 1.0
    assert events.steady(steps) == (0, 2)


@pytest.mark.parametrize("run", [[], [event("decode", 5, 5)]])
def test_no_time_at_all(run: Any) -> None:
    assert events.outside_forward(run) == 1.0
    assert events.pace(run) == 0.0
    assert [cost.seconds for cost in events.costs(run)] == [0.0] * len(run)


def test_costs_are_by_image_and_in_the_order_of_stages() -> None:
    detect, encode = events.costs(RUN)[1:3]
    assert [cost.stage for cost in events.costs(RUN)] == ["decode", "detect", "encode", "write"]
    assert (detect.items, detect.pieces, detect.device) == (4, 2, True)
    assert detect.ms == pytest.approx(1000)
    assert encode.ms == pytest.approx(750)
    assert detect.mean_waiting == 2.0


def test_unknown_stages_come_last() -> None:
    names = [cost.stage for cost in events.costs([event("polish", 0, 1), event("commit", 0, 1), event("cut", 0, 1)])]
    assert names == ["cut", "commit", "polish"]


def test_pace_is_of_the_last_model_from_its_first_batch_on() -> None:
    """Four images per batch; the first batch took long, the others 2 s each: 2 images per second."""
    run = [forward("encode", start, end, items=4) for start, end in [(0, 9), (9, 11), (11, 13), (13, 15)]]
    run += [forward("detect", 0, 1, items=4), event("write", 15, 99)]
    assert events.pace(run) == pytest.approx(2.0)


def test_paces_of_workers_add_up() -> None:
    one = [forward("encode", n, n + 1, items=2, worker="cuda:0") for n in range(4)]
    other = [forward("encode", n, n + 2, items=2, worker="cuda:1") for n in range(0, 8, 2)]
    assert events.pace(one + other) == pytest.approx(2 + 1)


def test_pace_without_models_is_of_the_last_stage_of_workers() -> None:
    run = [event("write", n, n + 0.5, thread=f"pool-{n % 2}") for n in range(11)]
    run.append(event("commit", 0, 100, worker="", items=11))
    assert events.pace(run) == pytest.approx(1.0)


def test_threads_put_devices_first_and_the_parent_last() -> None:
    run = [event("commit", 110, 111, worker="", thread="collect"), *reversed(RUN)]
    found = {(worker, thread): own for worker, thread, own in events.by_thread(run)}
    assert list(found) == [("cpu", "device"), ("cpu", "pool-0"), ("cpu", "pool-1"), ("", "collect")]
    assert found["cpu", "device"] == RUN[1:5]


def test_decoding_on_a_gpu_is_no_forward() -> None:
    run = [event("decode", 0, 5, thread="device", worker="cuda:0", items=8), forward("encode", 5, 6, worker="cuda:0")]
    assert events.busy(run) == {"cuda:0": pytest.approx(1 / 6)}
    assert events.busy(run[:1]) == {}


def test_what_the_cpu_does_in_a_models_stage_is_a_stage_of_its_own() -> None:
    run = events.tidy([forward("detect", 0, 4, items=4), event("detect", 4, 5), event("mask", 5, 6)])
    assert [(cost.stage, cost.items, cost.device) for cost in events.costs(run)] == [
        ("detect", 4, True),
        ("detect.choose", 1, False),
        ("mask", 1, False),
    ]
    without = [event("detect", 0, 1)]
    assert events.tidy(without) == tuple(without)
