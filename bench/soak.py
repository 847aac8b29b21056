"""Converts many images without a model and watches that the memory and the rate stay where they were."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fgfast.bench.io import make_images
from fgfast.bench.memory import memory_mib
from fgfast.bench.result import Result, Row, envelope, save
from fgfast.config import Settings
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import Status

# Memory counts from this image on: by then all buffers and caches exist.
_FIRST = 5000
# The images between two looks at the memory.
_EVERY = 5000
_FILES = 24


class Look(NamedTuple):
    """What was seen during the run.

    Attributes:
        done: images that were finished.
        mib: memory of all processes, in MiB.
        at: when it was, in seconds of a monotonic clock.
    """

    done: int
    mib: float
    at: float


def measure(*, images: int, folder: Path) -> Result:
    """Convert many images and watch the memory of all processes.

    Args:
        images: how many images; the same 24 files appear under that many names.
        folder: the folder to work in, which needs room for as many cut-outs.

    Returns:
        The memory after 5,000 images and at the end, and the rates.
    """
    with tempfile.TemporaryDirectory(prefix="fgfast-soak-", dir=folder) as scratch:
        source = Path(scratch) / "images"
        make_images(source / "class", _FILES)
        _multiply(source / "class", images)
        looks: list[Look] = []

        def look(counts: dict[Status, int], total: int) -> None:
            done = sum(counts.values())
            before = looks[-1].done if looks else 0
            if done // _EVERY > before // _EVERY or (done == total and done > before):
                looks.append(Look(done, memory_mib(), time.perf_counter()))

        plan = make_plan(source, Path(scratch) / "out", settings=Settings(segmenter="box", detector="center"))
        report = run(plan, progress=look)
        assert report.counts["failed"] == 0, report
    return _result(looks, report.rate, images)


def _multiply(folder: Path, images: int) -> None:
    """Give the files of a folder more names, until there are `images`; links take no room."""
    files = sorted(folder.glob("*.jpg"))
    for n in range(len(files), images):
        os.link(files[n % len(files)], folder / f"{n:06d}.jpg")


def _result(looks: list[Look], rate: float, images: int) -> Result:
    first = next(look for look in looks if look.done >= _FIRST)
    # The workers have ended by the look at the last image.
    last = looks[-1] if looks[-1].done < images else looks[-2]
    rates = [(after.done - before.done) / (after.at - before.at) for before, after in pairwise(looks)]
    rows = [
        Row("rate", rate, "images/s", "higher"),
        Row("rate, first look", rates[0], "images/s", "higher"),
        Row("rate, last look", rates[-1], "images/s", "higher"),
        Row(f"memory after {first.done:,} images", first.mib, "MiB", "lower"),
        Row(f"memory after {last.done:,} images", last.mib, "MiB", "lower"),
        Row("memory at the end / at the beginning", last.mib / first.mib, "", "lower"),
    ]
    return envelope("soak", rows, title=f"{images:,} images without models", rounds=1, images=images)


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--images", type=int, default=100_000, help="The number of images to convert (default: 100000)."
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="The folder, and so the disk, to work on (default: the current one)."
    )
    parser.add_argument("--save", action="store_true", help="Write the result into bench/results as well.")
    options = parser.parse_args()
    result = measure(images=options.images, folder=options.dir)
    print(json.dumps(result, indent=2))
    if options.save:
        print(save(result))


if __name__ == "__main__":
    main()
