"""A review that is killed anywhere and goes on loses nothing that was acknowledged, and ends with the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from birds import many_birds
from layouts import files_below

from fgfast import convert
from fgfast.config import Settings
from fgfast.io.decisions import Decisions
from fgfast.io.ledger import Ledger
from fgfast.pipeline.mending import Mender
from fgfast.pipeline.verify import verify

SCRIPT = Path(__file__).with_name("reviewing.py")
IMAGES = 23
NAMES = ("ledger.sqlite", "decisions.sqlite", "run.json", "report.html", "lock", "lock.owner")
ABOUT_THE_RUN = {f"fgfast/{name}" for name in NAMES}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


@pytest.fixture(scope="module", params=["png", pytest.param("rle", marks=pytest.mark.full)])
def reviewed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run to be reviewed, and the same after an undisturbed review."""
    parent = tmp_path_factory.mktemp(request.param)
    root = many_birds(parent, IMAGES)
    settings = Settings(
        detector="annotations", segmenter="box", devices="cpu", crop="square", pad=0.05, masks=request.param
    )
    convert("cub", parent / "out", root=root, settings=settings, in_process=True)
    shutil.copytree(parent / "out", parent / "whole")
    process = start(parent / "whole")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(output.splitlines()) == 60
    return parent / "out", parent / "whole"


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT_THE_RUN}


def rows(out: Path) -> list[tuple[Any, ...]]:
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        return [
            (
                o.key,
                o.status,
                o.reasons,
                o.twin,
                o.rle,
                o.area,
                o.offset,
                o.twin_size,
                None if o.box is None else [*o.box],
            )
            for o in ledger.outcomes()
        ]


def decided(out: Path) -> list[tuple[Any, ...]]:
    with Decisions(out / "fgfast/decisions.sqlite") as decisions:
        return [
            (d.number, d.key, d.verdict, d.who, d.seen, d.before, d.after, d.undoes, d.done) for d in decisions.all()
        ]


def kill_at_a_random_moment(out: Path, generator: random.Random) -> tuple[int, bool]:
    """Return the number of the last decision that was acknowledged, and whether the review was killed at work."""
    process = start(out)
    assert process.stdout is not None
    last, steps = 0, generator.randint(0, 8)
    for line in process.stdout:
        last = int(line.split()[1])
        steps -= 1
        if steps < 0:
            break
    time.sleep(generator.uniform(0, 0.06))
    process.kill()
    rest, _ = process.communicate(timeout=30)
    for line in rest.splitlines():
        last = int(line.split()[1]) if len(line.split()) == 2 else last
    return last, process.returncode < 0


@pytest.mark.parametrize("wanted", [2, pytest.param(20, marks=pytest.mark.full)])
def test_a_killed_review_loses_nothing(wanted: int, reviewed: tuple[Path, Path], tmp_path: Path) -> None:
    source, whole = reviewed
    shutil.copytree(source, out := source.parent / f"killed {wanted}")
    generator, kills, at_work = random.Random(wanted), 0, 0
    while kills < wanted:
        acknowledged, killed = kill_at_a_random_moment(out, generator)
        if not killed:  # it came to its end: begin anew
            shutil.rmtree(out)
            shutil.copytree(source, out)
            continue
        kills += 1
        with Mender.open(out) as mender:
            assert not mender.problems
            assert mender.decisions.last() >= acknowledged
            assert not mender.decisions.unfinished()
            at_work += bool(acknowledged)
        found = verify(out)
        assert found.stale or found.intact  # lists that were being written are, wholly or in part
        assert not [name for name in (*found.missing, *found.damaged) if name.endswith((".jpg", ".png"))]
        assert not list(out.rglob("*.part"))
        written = {path.name for path in (out / "CUB_200_2011/images").rglob("*.jpg")}
        assert written == {str(row[3]).rpartition("/")[2] for row in rows(out) if row[3]}
    assert at_work > wanted // 2
    last = start(out)
    _, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert decided(out) == decided(whole)
    assert rows(out) == rows(whole)
    assert result(out) == result(whole)
    assert verify(out).intact
