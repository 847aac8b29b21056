"""An expansion that is killed anywhere and started again ends with the same bytes as one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from birds import many_birds
from chat_stub import said, stub
from drawn_places import drawn_places
from layouts import files_below

import fgfast
from fgfast.config import Settings
from fgfast.expand.table import names

ABOUT = {f"fgfast/{name}" for name in ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def start(run: Path, out: Path, *more: str, kind: str = "contours") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fgfast", "expand", str(run), kind, "--out", str(out), "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT}


@pytest.mark.parametrize(("wanted", "images"), [(2, 80), pytest.param(10, 300, marks=pytest.mark.full)])
def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(wanted: int, images: int, tmp_path: Path) -> None:
    pytest.importorskip("pyefd", reason="contours need the extra expand")
    killed_and_resumed(tmp_path, "contours", wanted, images)


@pytest.mark.full
@pytest.mark.parametrize("kind", [name for name in names() if name not in ("contours", "captions")])
def test_every_kind_is_killed_ten_times(kind: str, tmp_path: Path) -> None:
    more = ("--places", str(drawn_places(tmp_path / "places", each=240))) if kind == "waterbirds" else ()
    killed_and_resumed(tmp_path, kind, 10, 200, *more)


@pytest.mark.full
def test_captions_are_killed_ten_times(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="captions by a server need openai")
    with stub(lambda n: said("a bird"), seconds=0.02) as asked:
        killed_and_resumed(tmp_path, "captions", 10, 120, "--model", f"{asked.address}#stub")


def ledger(out: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the files of the ledger, which change as soon as an expansion works."""
    files = {path.name: path.stat() for path in (out / "fgfast").glob("ledger.sqlite*")}
    return {name: (about.st_size, about.st_mtime_ns) for name, about in files.items()}


def wait_for_work(process: subprocess.Popen[str], out: Path, before: dict[str, tuple[int, int]]) -> None:
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if ledger(out) != before:
                return
        time.sleep(0.005)


def killed_and_resumed(tmp_path: Path, kind: str, wanted: int, images: int, *more: str) -> None:
    """Kill an expansion as often as wanted, and compare what it ends with."""
    source = many_birds(tmp_path, images)
    settings = Settings(segmenter="box", devices="cpu")
    fgfast.convert("cub", tmp_path / "run", root=source, settings=settings, in_process=True)
    whole = start(tmp_path / "run", tmp_path / "whole", *more, kind=kind)
    wait_for_work(whole, tmp_path / "whole", {})
    begin = time.monotonic()
    text, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    took = time.monotonic() - begin
    generator = random.Random(0)
    interrupted, kills, at_work = tmp_path / "killed", 0, 0
    while kills < wanted:
        before = ledger(interrupted)
        process = start(tmp_path / "run", interrupted, *more, kind=kind)
        if generator.random() < 0.8:  # else it may be killed while it starts
            wait_for_work(process, interrupted, before)
        try:
            process.communicate(timeout=generator.uniform(0, 0.8) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=30)
            kills += 1
            at_work += ledger(interrupted) != before
        else:  # it was finished before the kill
            shutil.rmtree(interrupted)
    assert at_work >= wanted // 2
    last = start(tmp_path / "run", interrupted, *more, kind=kind)
    output, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert json.loads(output)["counts"] == json.loads(text)["counts"]
    assert result(interrupted) == result(tmp_path / "whole") != {}
    assert not list(interrupted.rglob("*.part"))
