"""The workers of a plan: the placement that is asked for, or the one that the measured times ask for."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # worker processes import the jobs by this name

from jobs import Item, PlacedJob

from fgfast.config import Settings
from fgfast.errors import DeviceMemoryError, UsageError
from fgfast.pipeline.run import devices_of
from fgfast.pipeline.workers import start

LIKE = {"a": (0.01, 0.03), "b": (0.01, 0.03)}
UNLIKE = {"a": (9.0, 0.03), "b": (0.01, 9.0)}


def placed(
    placement: Any, costs: dict[str, tuple[float, float]], per_device: Any = "auto", **more: Any
) -> tuple[tuple[str, ...], set[tuple[str, ...]]]:
    """The messages, and which workers did the phases of items."""
    models = {"detector": "detic", "segmenter": "sam_vit_b"}
    settings = Settings(devices=tuple(costs), placement=placement, workers_per_device=per_device, **models)  # type: ignore[arg-type]
    job: Any = PlacedJob(costs, **more)
    devices = devices_of(settings)
    results: list[Any] = []
    stop = threading.Event()
    with start(job, devices, stop, in_process=False, deadline=30.0, watch=None) as found:
        found.work((Item(n) for n in range(200)), results.extend)  # type: ignore[misc]
        assert found.crashes() == 0
    assert sorted(number for number, *_ in results) == list(range(200))
    return found.messages, {phases for *_, phases in results}


def test_what_is_asked_for_is_done() -> None:
    messages, workers = placed("replicate", UNLIKE)
    assert messages == ("placement replicate: as requested",)
    assert workers <= {("a/0", "a/1"), ("b/0", "b/1")}
    messages, workers = placed("split", UNLIKE)
    assert messages == ("placement split: as requested",)
    assert len(workers) == 1 and workers <= {("a/0", "b/1"), ("b/0", "a/1")}


def test_auto_goes_by_the_measured_times_and_reports_them() -> None:
    (message,), workers = placed("auto", LIKE)
    assert message.startswith("placement replicate: a detects in 10.0 ms and segments in 30.0 ms per image, b detects")
    assert message.endswith("replicate would give 50 images per second, split 33.3")
    assert workers <= {("a/0", "a/1"), ("b/0", "b/1")}
    (message,), workers = placed("auto", UNLIKE)
    assert message.startswith("placement split: ")
    assert workers == {("b/0", "a/1")}


def test_models_that_do_not_fit_together_are_split() -> None:
    (message,), workers = placed("auto", LIKE, small=("b",))
    assert message == "placement split: both models do not fit on one device (b holds one model only)"
    assert len(workers) == 1
    with pytest.raises(DeviceMemoryError, match="b holds one model only"):
        placed("replicate", LIKE, small=("b",))


def test_one_device_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="needs two devices"):
        placed("split", {"a": (1.0, 1.0)})
    assert placed("auto", {"a": (1.0, 1.0)}) == ((), {("a/0", "a/1")})


GPU = {"cuda:0": (0.001, 0.001)}


def phases_of(*workers: str) -> set[tuple[str, ...]]:
    return {(f"{worker}/0", f"{worker}/1") for worker in workers}


def test_as_many_workers_as_asked_for_share_a_device() -> None:
    messages, workers = placed("auto", {"a": (1.0, 1.0)}, 3)
    assert workers <= phases_of("a", "a#2", "a#3") and len(workers) > 1
    assert messages == ("placement replicate: one device", "workers per device: 3, as requested")
    messages, workers = placed("auto", LIKE, 2)  # measured with one each, then more are started
    assert workers <= phases_of("a", "b", "a#2", "b#2")
    assert len(messages) == 2 and messages[1] == "workers per device: 2, as requested"
    messages, workers = placed("split", LIKE, 2)
    assert {worker for pair in workers for worker in pair} <= {
        f"{name}/{n}" for name in ("a", "b", "a#2", "b#2") for n in "01"
    }


def test_fewer_than_asked_for_are_refused() -> None:
    with pytest.raises(DeviceMemoryError, match=r"[ab] holds 1 workers"):
        placed("auto", LIKE, 2, room=1)


def test_auto_starts_a_second_worker_where_python_s_lock_is_the_limit() -> None:
    (message,), workers = placed("auto", GPU, held=0.001)
    assert message.startswith("workers per device on cuda:0: 1; one holds Python's lock for 1.0 ms per image")
    assert workers == phases_of("cuda:0")


def test_auto_counts_cores_and_does_without_what_finds_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgfast.pipeline.workers.available_cores", lambda: 16)
    (message,), workers = placed("auto", GPU, held=0.0039)
    assert message == (
        "workers per device on cuda:0: 2; one holds Python's lock for 3.9 ms per image, and the device computes 2.0 ms"
    )
    assert workers <= phases_of("cuda:0", "cuda:0#2")
    (message,), workers = placed("auto", GPU, held=0.0039, memory=(40, 100))
    assert message.startswith("workers per device on cuda:0: 1; ") and "free memory" in message
    (_, message), workers = placed("auto", GPU, held=0.0039, room=1)
    assert message == ("workers per device: 1 after all, because no more could be started (cuda:0 holds 1 workers)")
    assert workers == phases_of("cuda:0")
    both = {"cuda:0": (0.001, 0.001), "cuda:1": (0.001, 0.001)}
    messages, workers = placed("auto", both, held=0.0039)
    assert len(messages) == 3 and workers <= phases_of("cuda:0", "cuda:1", "cuda:0#2", "cuda:1#2")


def test_what_could_not_be_measured_is_said() -> None:
    (message,), _ = placed("auto", GPU)
    assert message == "workers per device on cuda:0: 1; what Python's lock costs is not known: None"
