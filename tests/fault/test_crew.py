"""Who is hired for a plan: the placement that is asked for, or the one that the measured times ask for."""

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
from fgfast.io.output import Output
from fgfast.pipeline import workers as crew
from fgfast.pipeline.workers import hire, settle_decoder

LIKE = {"a": (0.01, 0.03), "b": (0.01, 0.03)}
UNLIKE = {"a": (9.0, 0.03), "b": (0.01, 9.0)}


def hired(
    placement: Any, costs: dict[str, tuple[float, float]], **more: Any
) -> tuple[tuple[str, ...], set[tuple[str, ...]]]:
    """What is said, and on which seats the parts of items were done."""
    settings = Settings(devices=tuple(costs), placement=placement)
    job: Any = PlacedJob(settings, costs, **more)
    plan: Any = SimpleNamespace(settings=settings)
    results: list[Any] = []
    stop = threading.Event()
    with hire(job, plan, stop, in_process=False, deadline=30.0, watch=None) as found:
        found.work((Item(n) for n in range(200)), results.extend)  # type: ignore[misc]
        assert found.deaths() == 0
    assert sorted(number for number, *_ in results) == list(range(200))
    return found.said, {parts for *_, parts in results}


def test_what_is_asked_for_is_done() -> None:
    said, seats = hired("replicate", UNLIKE)
    assert said == ("placement replicate: as asked",)
    assert seats <= {("a/0", "a/1"), ("b/0", "b/1")}
    said, seats = hired("split", UNLIKE)
    assert said == ("placement split: as asked",)
    assert len(seats) == 1 and seats <= {("a/0", "b/1"), ("b/0", "a/1")}


def test_auto_goes_by_the_measured_times_and_says_them() -> None:
    (said,), seats = hired("auto", LIKE)
    assert said.startswith("placement replicate: a detects in 10.0 ms and segments in 30.0 ms per image, b detects")
    assert said.endswith("replicate would give 50 images per second, split 33.3")
    assert seats <= {("a/0", "a/1"), ("b/0", "b/1")}
    (said,), seats = hired("auto", UNLIKE)
    assert said.startswith("placement split: ")
    assert seats == {("b/0", "a/1")}


def test_models_that_do_not_fit_together_are_split() -> None:
    (said,), seats = hired("auto", LIKE, small=("b",))
    assert said == "placement split: both models do not fit on one device (b holds one model only)"
    assert len(seats) == 1
    with pytest.raises(DeviceMemoryError, match="b holds one model only"):
        hired("replicate", LIKE, small=("b",))


def test_one_device_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="needs two devices"):
        hired("split", {"a": (1.0, 1.0)})
    assert hired("auto", {"a": (1.0, 1.0)}) == ((), {("a/0", "a/1")})


class Recorded(Output):
    """An output folder of which only what is recorded counts."""

    def __init__(self, fingerprint: dict[str, Any] | None) -> None:
        self._recorded = fingerprint

    def recorded(self) -> dict[str, Any] | None:
        return self._recorded


def settled(recorded: dict[str, Any] | None, mode: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """A plan whose decoder is to be chosen on a machine that seems to have a GPU, and what was said."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Plan:
        settings: Settings
        fingerprint: dict[str, Any]
        reasons: tuple[str, ...] = ()
        selected: tuple[Any, ...] = ()
        dataset: Any = None

    monkeypatch.setattr(crew, "available", lambda device: ("dali", "nvjpeg", "cpu"))
    monkeypatch.setattr(crew, "_tried", lambda *trial: ("nvjpeg", "it was the fastest"))
    dataset = SimpleNamespace(subject=(), turn_exif=False)
    plan: Any = Plan(Settings(devices="cuda:0"), {"decoder": "auto", "crop": "none"}, dataset=dataset)
    said: list[str] = []
    options: Any = {"in_process": False, "deadline": 1.0, "say": said.append}
    return settle_decoder(plan, Recorded(recorded), mode, threading.Event(), **options), said


def test_a_decoder_is_tried_once_and_kept_when_a_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, said = settled(None, "auto", monkeypatch)
    assert plan.settings.decoder == plan.fingerprint["decoder"] == "nvjpeg"
    assert said == list(plan.reasons) == ["decoder nvjpeg: it was the fastest"]
    plan, said = settled({"decoder": "dali"}, "auto", monkeypatch)
    assert plan.settings.decoder == "dali" and said == ["decoder dali: as in the run that is gone on with"]
    assert settled({"decoder": "dali"}, "overwrite", monkeypatch)[0].settings.decoder == "nvjpeg"
    assert settled({"decoder": "gone"}, "auto", monkeypatch)[0].settings.decoder == "nvjpeg"
