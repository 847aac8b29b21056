"""Measures everything but the models: decode, cut, write and ledger, beside a plain Pillow loop.

The segmenter is "box", which costs nothing, so the rate is the ceiling for any model. The Pillow loop does the least
that gives the same images: one thread, decode, mask, save; no sync, no ledger.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.bench.images import largest_difference, noise_image, write_images
from fgfast.bench.result import Result, Row, envelope
from fgfast.config import Settings
from fgfast.image_formats import open_image
from fgfast.io.encode import encode
from fgfast.pipeline.placement import pool_threads
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import UInt8
from fgfast.writing import Target, make_folder, remove_tree, scratch_folder

# The commonest size of CUB-200-2011, height and width; the box covers 37 % of the image, as the boxes of CUB do.
_SIZE = (375, 500)
_QUALITY = 95
_BOX = (98, 73, 402, 302)
# The number of different images; the rest are copies.
_DIFFERENT = 24
# The names of the rows; those of fgfast with the masks that it writes.
_LOOP = "plain Pillow loop"
_MASKS = {"fgfast": "none", "fgfast, and a PNG mask each": "png"}


def measure(*, images: int, rounds: int, cpu_threads: int | None, folder: Path) -> Result:
    """Time fgfast and the Pillow loop in turns on the same images.

    Args:
        images: images per round.
        rounds: how often each is timed; medians are quoted.
        cpu_threads: threads of fgfast; None uses as many as a run does.
        folder: the folder to work in; its disk is measured.

    Returns:
        Images per second of each, and their ratios.

    Raises:
        AssertionError: an image of fgfast differs from Pillow's.
    """
    cpu_threads = pool_threads(cpu_threads, workers=1)
    with scratch_folder("fgfast-bench-", folder) as scratch:
        source = scratch / "images"
        average = make_images(source / "class", images)
        rates: dict[str, list[float]] = {_LOOP: [], **{name: [] for name in _MASKS}}
        for _ in range(rounds):
            rates[_LOOP].append(images / pillow_loop(source, scratch / "pillow"))
            for name, masks in _MASKS.items():
                rates[name].append(images / fgfast_run(source, scratch / masks, masks, cpu_threads))
            worst = compare(scratch / "pillow", scratch / "none" / "images")
            if worst:  # both decode and encode with libjpeg-turbo's exact routines
                raise AssertionError(f"fgfast's images differ from Pillow's by {worst:g} grey levels")
    ratios = [ours / theirs for ours, theirs in zip(rates["fgfast"], rates[_LOOP], strict=True)]
    rows = [Row.of(name, values, "images/s", "higher") for name, values in rates.items()]
    rows.append(Row.of("fgfast is faster than the loop", ratios, "times", "higher"))
    rows.append(Row("largest difference of images", worst, "grey levels", "lower"))
    image = f"{_SIZE[1]}x{_SIZE[0]} JPEG of {average / 1000:.0f} kB in, JPEG quality 95 4:4:4 out"
    notes = [
        f"{images:,} images per round: {image}.",
        f"fgfast: {cpu_threads} threads, durable, with ledger. The Pillow loop: one thread, no sync, no ledger.",
    ]
    return envelope(
        "io",
        rows,
        title="Everything but the models: decode, cut, write, ledger",
        rounds=rounds,
        notes=notes,
        images=images,
        image=image,
        cpu_threads=cpu_threads,
    )


def make_images(folder: Path, count: int) -> float:
    """Write JPEGs as large as photographs, and boxes.csv beside the folder; return their mean size in bytes."""
    generator = np.random.default_rng(0)
    files = [encode(noise_image(generator, *_SIZE), ".jpg", _QUALITY) for _ in range(_DIFFERENT)]
    write_images(folder, [(file, _BOX) for file in files], count)
    return sum(map(len, files)) / len(files)


def pillow_loop(source: Path, out: Path) -> float:
    """Run the plain loop; return its seconds."""
    from PIL import Image

    remove_tree(Target(out))
    make_folder(Target(out, "class"))
    files = sorted(source.rglob("*.jpg"))
    x0, y0, x1, y1 = _BOX
    start = time.perf_counter()
    for file in files:
        pixels = _pixels(file)
        mask = np.zeros(pixels.shape[:2], bool)
        mask[y0:y1, x0:x1] = True
        pixels[~mask] = 0
        Image.fromarray(pixels).save(out / "class" / file.name, quality=95, subsampling=0)
    return time.perf_counter() - start


def fgfast_run(source: Path, out: Path, masks: Any, cpu_threads: int) -> float:
    """Convert with fgfast; return the seconds from the first image to the last ledger entry."""
    remove_tree(Target(out))
    settings = Settings(segmenter="box", masks=masks)
    report = run(make_plan(source, out, settings=settings), cpu_threads=cpu_threads)
    assert report.counts["done"] == report.total, report
    return report.seconds


def compare(ours: Path, theirs: Path) -> float:
    """Return the largest difference between the pixels of the first images of two folders, in grey levels."""
    names = [file.relative_to(ours) for file in sorted(ours.rglob("*.jpg"))[:_DIFFERENT]]
    pairs = [[_pixels(folder / name) for folder in (ours, theirs)] for name in names]
    return max(largest_difference(*pair) for pair in pairs)


def _pixels(file: Path) -> UInt8:
    with file.open("rb") as content:
        return np.array(open_image(content, ("JPEG",)).convert("RGB"))
