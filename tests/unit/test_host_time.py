"""For how long a worker holds Python's lock: bounds that hold however busy the machine is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fgfast import methods
from fgfast.background import Background
from fgfast.pipeline.host_time import seconds_held
from fgfast.pipeline.stages import Cut, Decode, Detect, MaskSubject, Write
from fgfast.writing import TempFiles

SIZE, BOX = (96, 128), (20, 20, 90, 80)


@dataclass
class Spins:
    """Holds the lock."""

    seconds: float
    name: str = "spins"

    def __call__(self, work: Any) -> None:
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass


@dataclass
class Sleeps:
    """Does not hold the lock, and needs no processor."""

    seconds: float
    name: str = "sleeps"

    def __call__(self, work: Any) -> None:
        time.sleep(self.seconds)


def test_what_python_computes_counts_and_what_sleeps_does_not() -> None:
    assert seconds_held([Spins(0.002)], SIZE, BOX, threads=4) >= 0.0019
    assert seconds_held([Sleeps(0.02)], SIZE, BOX, threads=4) < 0.005


def test_a_measurement_writes_nothing_to_the_output(tmp_path: Path) -> None:
    build = methods.resolve(methods.method("annotations", "detector").build)
    mask = methods.resolve(methods.method("box", "segmenter").build)
    stages: list[Any] = [
        Decode(turn_exif=False),
        Detect(build(methods.ModelSpec("annotations"), "")),
        MaskSubject(mask(methods.ModelSpec("box")), True),
        Cut(Background(), None, "none", 0.0),
        Write(TempFiles(tmp_path), "images", "masks", "png", None, 90),
    ]
    assert 0 < seconds_held(stages, SIZE, BOX, threads=2) < 1
    assert not list(tmp_path.iterdir())


def test_a_stage_that_fails_is_an_error() -> None:
    def fails(work: Any) -> None:
        raise ValueError("no")

    fails.name = "fails"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no"):
        seconds_held([fails], SIZE, BOX, threads=2)  # type: ignore[list-item]
