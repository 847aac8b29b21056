"""Converts many images without a model and checks that memory and rate stay the same."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click

from fgfast.bench.io import make_images
from fgfast.bench.memory import memory_mib
from fgfast.bench.result import Result, Row, envelope, save
from fgfast.config import Settings
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import Status
from fgfast.terminal import say
from fgfast.writing import scratch_folder

# Memory counts from this image on: by then all buffers and caches have been allocated.
_FIRST = 5000
# The number of images between two samples of the memory.
_EVERY = 5000
_FILES = 24


class Sampled(NamedTuple):
    """The state of a run at one moment.

    Attributes:
        done: the number of finished images.
        mib: memory of all processes, in MiB.
        at: seconds of a monotonic clock.
    """

    done: int
    mib: float
    at: float


def measure(*, images: int, folder: Path) -> Result:
    """Convert many images and sample the memory of all processes.

    Args:
        images: how many images; the same 24 files appear under that many names.
        folder: the folder to work in; the cut-outs need room there.

    Returns:
        The memory after 5,000 images and at the end, and the rates.
    """
    with scratch_folder("fgfast-soak-", folder) as scratch:
        source = scratch / "images"
        make_images(source / "class", _FILES)
        _multiply(source / "class", images)
        samples: list[Sampled] = []

        def sample(counts: dict[Status, int], total: int) -> None:
            done = sum(counts.values())
            before = samples[-1].done if samples else 0
            if done // _EVERY > before // _EVERY or (done == total and done > before):
                samples.append(Sampled(done, memory_mib(), time.perf_counter()))

        plan = make_plan(source, scratch / "out", settings=Settings(segmenter="box", detector="center"))
        report = run(plan, progress=sample)
        assert report.counts["failed"] == 0, report
    return _result(samples, report.rate, images)


def _multiply(folder: Path, images: int) -> None:
    """Link the files of a folder to more names, until there are `images` of them."""
    files = sorted(folder.glob("*.jpg"))
    for n in range(len(files), images):
        os.link(files[n % len(files)], folder / f"{n:06d}.jpg")


def _result(samples: list[Sampled], rate: float, images: int) -> Result:
    first = next(sample for sample in samples if sample.done >= _FIRST)
    # The workers have ended by the time of the last image.
    last = samples[-1] if samples[-1].done < images else samples[-2]
    rates = [(after.done - before.done) / (after.at - before.at) for before, after in pairwise(samples)]
    rows = [
        Row("rate", rate, "images/s", "higher"),
        Row("rate, first look", rates[0], "images/s", "higher"),
        Row("rate, last look", rates[-1], "images/s", "higher"),
        Row(f"memory after {first.done:,} images", first.mib, "MiB", "lower"),
        Row(f"memory after {last.done:,} images", last.mib, "MiB", "lower"),
        Row("memory at the end / at the beginning", last.mib / first.mib, "", "lower"),
    ]
    return envelope("soak", rows, title=f"{images:,} images without models", rounds=1, images=images)


@click.command()
@click.option("--images", default=100_000, show_default=True, help="The number of images to convert.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=".",
    help="The folder, and so the disk, to work on.  [default: the current folder]",
)
@click.option("--save", "saves", is_flag=True, help="Also write the result into bench/results.")
def main(images: int, folder: Path, saves: bool) -> None:
    """Convert many images without a model and check that memory and rate stay the same."""
    result = measure(images=images, folder=folder)
    say(json.dumps(result, indent=2))
    if saves:
        say(str(save(result)))


if __name__ == "__main__":
    main()
