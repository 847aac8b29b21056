"""An expansion that is killed anywhere and started again ends with the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from birds import many_birds
from layouts import files_below

import fgfast
from fgfast.config import Settings

ABOUT = {f"fgfast/{name}" for name in ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def start(run: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fgfast", "expand", str(run), "contours", "--out", str(out), "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT}


@pytest.mark.parametrize(("wanted", "images"), [(2, 80), pytest.param(10, 300, marks=pytest.mark.full)])
def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(wanted: int, images: int, tmp_path: Path) -> None:
    pytest.importorskip("pyefd", reason="contours need the extra expand")
    source = many_birds(tmp_path, images)
    settings = Settings(segmenter="box", devices="cpu")
    fgfast.convert("cub", tmp_path / "run", root=source, settings=settings, in_process=True)
    begin = time.monotonic()
    whole = start(tmp_path / "run", tmp_path / "whole")
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    took = time.monotonic() - begin
    generator = random.Random(0)
    interrupted, kills, at_work = tmp_path / "killed", 0, 0
    while kills < wanted:
        process = start(tmp_path / "run", interrupted, *(("--overwrite",) if at_work > kills else ()))
        try:
            process.communicate(timeout=generator.uniform(0.3, 0.8) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=30)
            kills += 1
            at_work += (interrupted / "fgfast/ledger.sqlite").is_file()
    assert at_work > wanted // 2
    last = start(tmp_path / "run", interrupted)
    output, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert json.loads(output)["counts"]["done"] == images
    assert result(interrupted) == result(tmp_path / "whole")
    assert not list(interrupted.rglob("*.part"))
