"""The workers of a plan: the placement that is asked for, or the one that the measured times ask for."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # worker processes import the jobs by this name

from jobs import Item, PlacedJob

from fgfast.config import Settings
from fgfast.errors import DeviceMemoryError, UsageError
from fgfast.pipeline.workers import start

LIKE = {"a": (0.01, 0.03), "b": (0.01, 0.03)}
UNLIKE = {"a": (9.0, 0.03), "b": (0.01, 9.0)}


def placed(
    placement: Any, costs: dict[str, tuple[float, float]], **more: Any
) -> tuple[tuple[str, ...], set[tuple[str, ...]]]:
    """The messages, and which workers did the phases of items."""
    settings = Settings(devices=tuple(costs), placement=placement)
    job: Any = PlacedJob(settings, costs, **more)
    plan: Any = SimpleNamespace(settings=settings)
    results: list[Any] = []
    stop = threading.Event()
    with start(job, plan, stop, in_process=False, deadline=30.0, watch=None) as found:
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
