"""Many images through the whole job without models: memory must stay where it was, and so must the rate.

python -m fgfast.bench.soak --images 100000 --save
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path

from fgfast.bench.io import make_images
from fgfast.bench.memory import family, memory_of
from fgfast.bench.result import Result, Row, envelope, save
from fgfast.config import Settings
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import Status

# Images after which memory is expected to be what it will be.
_SETTLED = 5000
# Images between two looks at memory.
_EVERY = 5000
_FILES = 24


def measure(*, images: int, folder: Path) -> Result:
    """Convert many images and watch the memory of all processes.

    Args:
        images: how many; the same few files under as many names.
        folder: where to work; needs room for as many cut-outs.

    Returns:
        Memory after 5,000 images and at the end, and rates.
    """
    with tempfile.TemporaryDirectory(prefix="fgfast-soak-", dir=folder) as scratch:
        source = Path(scratch) / "images"
        make_images(source / "class", _FILES)
        _multiply(source / "class", images)
        looks: list[tuple[int, float, float]] = []

        def look(counts: dict[Status, int], total: int) -> None:
            done = sum(counts.values())
            if done // _EVERY > (looks[-1][0] // _EVERY if looks else 0) or (done == total and done > looks[-1][0]):
                looks.append((done, memory_of(family(os.getpid())), time.perf_counter()))

        plan = make_plan(source, Path(scratch) / "out", settings=Settings(segmenter="box", detector="center"))
        report = run(plan, progress=look)
        assert report.counts["failed"] == 0, report
    return _told(looks, report.rate, images)


def _multiply(folder: Path, images: int) -> None:
    """As many names for the files there are; links cost no room."""
    files = sorted(folder.glob("*.jpg"))
    for n in range(len(files), images):
        os.link(files[n % len(files)], folder / f"{n:06d}.jpg")


def _told(looks: list[tuple[int, float, float]], rate: float, images: int) -> Result:
    first = next(look for look in looks if look[0] >= _SETTLED)
    # The last look while workers were there.
    last = looks[-1] if looks[-1][0] < images else looks[-2]
    rates = [(b[0] - a[0]) / (b[2] - a[2]) for a, b in zip(looks, islice(looks, 1, None), strict=False)]
    rows = [
        Row("rate", rate, "images/s", "higher"),
        Row("rate, first look", rates[0], "images/s", "higher"),
        Row("rate, last look", rates[-1], "images/s", "higher"),
        Row(f"memory after {first[0]:,} images", first[1], "MiB", "lower"),
        Row(f"memory after {last[0]:,} images", last[1], "MiB", "lower"),
        Row("memory at the end / at the beginning", last[1] / first[1], "", "lower"),
    ]
    return envelope("soak", rows, title=f"{images:,} images without models", rounds=1, images=images)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, default=Path())
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    result = measure(images=options.images, folder=options.dir)
    print(json.dumps(result, indent=2))
    if options.save:
        print(save(result))


if __name__ == "__main__":
    main()
