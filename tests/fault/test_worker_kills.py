"""The whole job while its worker processes are killed: every image is done, with the bytes of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fgfast
from fgfast.config import Settings
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run

IMAGES = 9000

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds worker processes in /proc")


def images(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for n in range(3):
        (folder / f"class{n}").mkdir(parents=True)
    for n in range(20):
        pixels = generator.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{n % 3}" / f"{n:04d}.jpg")
    files = [(folder / f"class{n % 3}" / f"{n:04d}.jpg").read_bytes() for n in range(20)]
    for n in range(20, IMAGES):
        (folder / f"class{n % 3}" / f"{n:04d}.jpg").write_bytes(files[n % 20])
    return folder


def children() -> list[int]:
    """Processes whose parent is this one and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rsplit(")", 1)[1]
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(stat.parent.name))
    return found


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(("devices", "wanted"), [pytest.param("cpu", 20, marks=pytest.mark.full), ("cpu,cpu", 4)])
def test_killing_workers_again_and_again_loses_nothing(devices: str, wanted: int, tmp_path: Path) -> None:
    source = images(tmp_path / "source")
    settings = Settings(segmenter="box", detector="center", devices=devices)
    whole = fgfast.convert(source, tmp_path / "whole", settings=settings)
    assert whole.counts["failed"] == 0
    kills, done, over = 0, 0, threading.Event()
    generator = random.Random(3)

    def kill() -> None:
        """At random, but never twice without any work between: a worker that is killed as it starts does none."""
        nonlocal kills
        before = -1
        while not over.is_set() and kills < wanted:
            if done == before:
                time.sleep(0.01)
                continue
            before = done
            time.sleep(generator.uniform(0.0, 0.25))
            if workers := children():
                os.kill(generator.choice(workers), signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill)
    plan = make_plan(source, tmp_path / "killed", settings=settings)
    started = False

    def progress(counts: dict, total: int) -> None:
        nonlocal started, done
        done = sum(counts.values())
        if not started:
            started = True
            killer.start()

    try:
        report = run(plan, progress=progress, cpu_threads=2)
    finally:
        over.set()
        killer.join()
    assert kills == wanted
    assert report.counts == {"done": 0, "flagged": 0, "skipped": 0, "failed": 0} | {
        status: count for status, count in whole.counts.items() if count
    }
    assert digests(tmp_path / "killed" / "source") == digests(tmp_path / "whole" / "source")
    assert digests(tmp_path / "killed/.masks") == digests(tmp_path / "whole/.masks")
    assert not list((tmp_path / "killed").rglob("*.part"))
    shutil.rmtree(tmp_path / "killed")
