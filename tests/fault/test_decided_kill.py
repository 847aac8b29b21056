"""A run that carries out decisions, killed anywhere and started again, loses none and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from birds import many_birds
from layouts import files_below
from mending import ABOUT_THE_RUN

from fgfast.io.decisions import Decisions
from fgfast.pipeline.mending import Change, Mender
from fgfast.pipeline.verify import verify

IMAGES = 240
KILLS = 6

pytestmark = [pytest.mark.full, pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")]


def command(source: Path, out: Path, *more: str) -> list[str]:
    given = ["--segmenter", "box", "--detector", "annotations", "--devices", "cpu", "--in-process", "--json", *more]
    return [sys.executable, "-m", "fgfast", "convert", "cub", "--root", str(source), "--out", str(out), *given]


def ran(source: Path, out: Path, *more: str) -> None:
    done = subprocess.run(command(source, out, *more), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT_THE_RUN}


def review(out: Path) -> None:
    """Decide about two thirds of the images."""
    rows, columns = np.ogrid[:60, :80]
    changes = []
    with Mender.open(out) as mender:
        for n, sample in enumerate(mender.plan.dataset.samples):
            if n % 6 == 0:
                changes.append(Change(sample.key, "reject", "reject", 0))
            elif n % 6 == 1:
                changes.append(Change(sample.key, "accept", "accept", 0))
            elif n % 3 == 0 or n % 6 == 2:
                disc = (columns - 20 - n % 30) ** 2 + (rows - 30) ** 2 < 100
                changes.append(Change(sample.key, "mask", "brush", 0, bits=disc))
        mender.decide(changes, "ann")
        mender.finish()


def killed(generator: random.Random, seconds: float, arguments: list[str]) -> bool:
    """Start a command, and kill it at a random moment; whether it was killed before its end."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(generator.uniform(0.3 * seconds, 1.1 * seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("way", ["decisions", "overwrite"])
def test_killed_at_any_moment_every_decision_holds(way: str, tmp_path: Path) -> None:
    source = many_birds(tmp_path / "data", IMAGES)
    reviewed, wanted, out = tmp_path / "reviewed", tmp_path / "wanted", tmp_path / "out"
    ran(source, reviewed)
    review(reviewed)
    crop = ["--crop", "square", "--format", "png"]
    given = [*crop, "--decisions", str(reviewed)] if way == "decisions" else crop
    if way == "overwrite":
        for place in (wanted, out):
            ran(source, place)
            review(place)
    again = ["--overwrite"] if way == "overwrite" else []
    began = time.monotonic()
    ran(source, wanted, *given, *again)
    seconds = time.monotonic() - began
    generator, kills = random.Random(14), 0
    for _ in range(5 * KILLS):
        kills += killed(generator, seconds, command(source, out, *given, "--overwrite"))
        if kills == KILLS:
            break
    assert kills >= 2, "it ended before it could be killed"
    # The run in which the deletion was interrupted goes on with --overwrite only.
    done = subprocess.run(command(source, out, *given), capture_output=True, text=True, check=False)
    if done.returncode:
        assert "--overwrite" in done.stderr
        ran(source, out, *given, "--overwrite")
    assert result(out) == result(wanted)
    assert verify(out).intact
    with Decisions(out / "fgfast/decisions.sqlite") as one, Decisions(wanted / "fgfast/decisions.sqlite") as other:
        assert one.digest() == other.digest() and not one.unfinished()
        assert one.last() == other.last() == IMAGES // 6 * 4
