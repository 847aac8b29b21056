"""The seconds per image for which a worker holds Python's lock (the GIL): they bound what one process can do."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from fgfast.io.encode import encode
from fgfast.pipeline.stages import Write
from fgfast.pipeline.work import FAILURES, Work
from fgfast.records import Sample
from fgfast.runner import Finished, Stage, run
from fgfast.writing import Target, TempFiles, make_folder, scratch_folder, write_file

# Images per measurement, after as many untimed ones as fill all batches; a GPU computes them in a second or two.
_IMAGES, _BEFORE = 96, 32
# Seconds after which a thread that wants the lock gets it: short, so that the measured run is hardly slowed down.
_SWITCH = 0.0005
# The name of the image, whose content is like a photograph's: smooth, with some noise.
_NAME, _QUALITY, _NOISE = "image.jpg", 90, 6


def seconds_held(stages: Sequence[Stage[Work]], size: tuple[int, int], box: tuple[int, ...], threads: int) -> float:
    """Run the stages on one image many times, and return the seconds per image for which Python's lock was held.

    A second thread counts, and so wants the lock all the time: what it does not get, the run holds. Its own CPU time
    is the time for which it had the lock. Where other programs keep the cores busy, the CPU time of the run is the
    smaller bound, and is taken.

    Args:
        stages: those of a worker; what they write goes to a temporary folder.
        size: (height, width) of the image in pixels.
        box: x0 y0 x1 y1 of its subject.
        threads: number of threads in the pool.

    Raises:
        Exception: the first that a stage raised.
    """
    with scratch_folder("fgfast-host-time-") as folder:
        write_file(Target(folder, _NAME), encode(_photograph(*size), ".jpg", _QUALITY))
        sample = Sample(_NAME, folder / _NAME, boxes=np.array([box], np.float32))
        own = [_elsewhere(stage, folder) for stage in stages]

        def seconds(count: int) -> float:
            failed: list[Exception] = []
            works = (Work(n, sample, f"{n}.jpg", f"{n}.png") for n in range(count))
            with _counting() as held:
                run(works, own, _error, _noting(failed), threads=threads, stop=threading.Event(), failures=FAILURES)
            if failed:
                raise failed[0]
            return held[0]

        seconds(_BEFORE)
        return seconds(_IMAGES) / _IMAGES


def _elsewhere(stage: Any, folder: Any) -> Any:
    """Return a stage that writes below another folder; any other stage as it is."""
    if not isinstance(stage, Write):
        return stage
    for name in (stage.images, stage.masks):
        make_folder(Target(folder, name))
    return replace(stage, temp_files=TempFiles(folder))


def _error(done: Finished[Work]) -> Exception | None:
    return done.error


def _noting(failed: list[Exception]) -> Any:
    return lambda errors: failed.extend(error for error in errors if error is not None)


@contextmanager
def _counting() -> Iterator[list[float]]:
    """Yield a list that holds, at the end of the block, the seconds for which the block had Python's lock."""
    over, own, held = threading.Event(), [0.0], [0.0]

    def count() -> None:
        start = time.thread_time()
        while not over.is_set():
            for _ in range(1000):
                pass
        own[0] = time.thread_time() - start

    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    thread = threading.Thread(target=count, name="count", daemon=True)
    wall, cpu = time.monotonic(), time.process_time()
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
        held[0] = max(0.0, min(time.monotonic() - wall, time.process_time() - cpu) - own[0])


def _photograph(height: int, width: int) -> Any:
    """Return an image (H, W, 3) uint8 whose decoding takes as long as that of a photograph."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 256, (height // 32, width // 32, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + chance.normal(0, _NOISE, smooth.shape), 0, 255).astype(np.uint8)
