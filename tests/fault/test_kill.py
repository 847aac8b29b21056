"""A run that is killed anywhere and started again ends with the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from birds import many_birds
from layouts import files_below

from fgfast.io.ledger import Ledger

IMAGES = 2000
# What a run says about itself holds times; everything else must be the same to the byte.
ABOUT_THE_RUN = {"fgfast/ledger.sqlite", "fgfast/run.json", "fgfast/report.html", "fgfast/lock"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """Processes inherit that SIGHUP is ignored, for example where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def start(source: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fgfast", "convert", "--dataset", "cub", "--root", str(source)]
    command += [
        "--out",
        str(out),
        "--segmenter",
        "box",
        "--masks",
        "png",
        "--crop",
        "square",
        "--json",
        *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(out: Path) -> dict[str, bytes]:
    return {k: v for k, v in files_below(out).items() if k not in ABOUT_THE_RUN}


def what_is_done(out: Path) -> list[tuple[object, ...]]:
    with Ledger(out / "fgfast" / "ledger.sqlite") as ledger:
        return [(o.key, o.status, o.twin, o.rle, o.area, o.offset, o.twin_size) for o in ledger.outcomes()]


def half_deleted(out: Path) -> bool:
    """Whether a run was killed while --overwrite deleted the run before it."""
    path = out / "fgfast" / "ledger.sqlite"
    if not path.is_file():
        return False
    with Ledger(path, write=False) as ledger:
        return bool(ledger.meta("being_deleted"))


@pytest.mark.parametrize("wanted", [2, pytest.param(20, marks=pytest.mark.full)])
def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(wanted: int, tmp_path: Path) -> None:
    source = many_birds(tmp_path, IMAGES)
    begin = time.monotonic()
    whole = start(source, tmp_path / "whole")
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    took = time.monotonic() - begin
    generator = random.Random(0)
    interrupted, kills, finished, at_work = tmp_path / "killed", 0, False, 0
    while kills < wanted:
        # Finished before it could be killed: begin anew, so that kills hit a run at work.
        mode = ("--overwrite",) if finished or half_deleted(interrupted) else ()
        process = start(source, interrupted, *mode)
        try:
            process.communicate(timeout=generator.uniform(0.25, 1.0) * took)
            finished = True
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=30)
            kills += 1
            finished = False
            at_work += (interrupted / "fgfast" / "ledger.sqlite").is_file()
    assert at_work > wanted // 2
    last = start(source, interrupted, *(("--overwrite",) if half_deleted(interrupted) else ()))
    output, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert json.loads(output)["counts"]["done"] == IMAGES
    assert result(interrupted) == result(tmp_path / "whole")
    assert what_is_done(interrupted) == what_is_done(tmp_path / "whole")
    assert len(what_is_done(interrupted)) == IMAGES
    assert not list(interrupted.rglob("*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_cleanly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    source = many_birds(tmp_path, IMAGES)
    process = start(source, tmp_path / "out", "--cpu-threads", "1")
    twin = tmp_path / "out" / "CUB_200_2011" / "images"
    deadline = time.monotonic() + 60
    while not list(twin.rglob("*.jpg")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    report = json.loads(output)
    assert report["stopped"]
    done = report["counts"]["done"]
    assert 0 < done < IMAGES
    # What is said to be done is there, and the twin loads as far as it goes.
    assert len(list(twin.rglob("*.jpg"))) == done
    assert len((tmp_path / "out" / "CUB_200_2011" / "images.txt").read_text().splitlines()) == done
    finished = start(source, tmp_path / "out")
    output, errors = finished.communicate(timeout=60)
    assert finished.returncode == 0, errors
    assert json.loads(output)["resumed"] == done
    assert json.loads(output)["counts"]["done"] == IMAGES


@pytest.mark.filterwarnings("ignore:.*multi-threaded")  # of Python 3.12 about forks; this one is replaced at once
def test_the_end_of_the_terminal_ends_the_run_cleanly(tmp_path: Path) -> None:
    """The terminal is gone by then: whatever is written to it fails."""
    import pty

    source, out = many_birds(tmp_path, IMAGES), tmp_path / "out"
    asked = ["convert", "--dataset", "cub", "--root", str(source), "--out", str(out), "--segmenter", "box"]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "fgfast", *asked, "--cpu-threads", "1"])
    twin, deadline = out / "CUB_200_2011" / "images", time.monotonic() + 60
    while not list(twin.rglob("*.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.close(terminal)  # the system sends SIGHUP
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    done = len(list(twin.rglob("*.jpg")))
    assert 0 < done < IMAGES
    assert len((out / "CUB_200_2011" / "images.txt").read_text().splitlines()) == done


def test_a_run_that_ignores_the_end_of_its_terminal_goes_on(tmp_path: Path) -> None:
    source, out = many_birds(tmp_path, IMAGES), tmp_path / "out"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        process = start(source, out, "--cpu-threads", "1")
    finally:
        signal.signal(signal.SIGHUP, before)
    while not list((out / "CUB_200_2011").rglob("*.jpg")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["counts"]["done"] == IMAGES


def test_a_second_run_in_the_same_folder_is_kept_out(tmp_path: Path) -> None:
    from fgfast.io.lock import OutputLock

    source = many_birds(tmp_path, IMAGES)
    (tmp_path / "out" / "fgfast").mkdir(parents=True)
    with OutputLock(tmp_path / "out" / "fgfast" / "lock"):
        process = start(source, tmp_path / "out")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"process {os.getpid()}" in errors


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    source = many_birds(tmp_path, IMAGES)
    process = start(source, tmp_path / "out", "--cpu-threads", "1")
    assert process.stderr is not None
    ledger = tmp_path / "out" / "fgfast" / "ledger.sqlite"
    deadline = time.monotonic() + 60
    while not ledger.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    last = start(source, tmp_path / "out")
    output, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert json.loads(output)["counts"]["done"] == IMAGES
