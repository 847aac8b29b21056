"""What is not the models: decode, cut, write and ledger, beside a plain Pillow loop.

The segmenter is "box", which costs nothing, so the figure is the ceiling that the rest of fgfast sets to any model.
The Pillow loop does the least that gives the same images: one thread, decode, mask, save; no sync, no ledger.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.bench.result import Result, Row, envelope
from fgfast.config import Settings
from fgfast.io.write import encode
from fgfast.machine import available_cores
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.records import UInt8

# As 31 photographs of CUB-200-2011 are: the commonest size; 0.52 bytes a pixel; a box over 37 % of the image, so that
# their cut-outs at quality 95 have 0.24 bytes a pixel. The spectrum's fall gives 0.51 and 0.23.
_SIZE = (375, 500)
_SPECTRUM = 1.5
_QUALITY = 95
_BOX = (98, 73, 402, 302)
# How many different images are made; the rest are copies.
_DIFFERENT = 24
# Both decode and encode with libjpeg-turbo's exact routines.
_MAX_DIFFERENCE = 0


def measure(*, images: int, rounds: int, workers: int | None, folder: Path) -> Result:
    """Time both in turns on the same images.

    Args:
        images: images per round.
        rounds: how often each is timed; medians are quoted.
        workers: threads of fgfast; None takes one for each core.
        folder: where to work; says which disk is measured.

    Returns:
        Images a second of each and their ratios.
    """
    workers = workers or available_cores()
    with tempfile.TemporaryDirectory(prefix="fgfast-bench-", dir=folder) as scratch:
        source = Path(scratch) / "images"
        average = make_images(source / "class", images)
        rows: dict[str, list[float]] = {"pillow_loop": [], "fgfast": [], "fgfast_masks": []}
        for _ in range(rounds):
            rows["pillow_loop"].append(images / pillow_loop(source, Path(scratch) / "pillow"))
            for name, masks in (("fgfast", "none"), ("fgfast_masks", "png")):
                rows[name].append(images / fgfast_run(source, Path(scratch) / name, masks, workers))
            worst = compare(Path(scratch) / "pillow", Path(scratch) / "fgfast" / "images")
            if worst > _MAX_DIFFERENCE:
                raise AssertionError(f"fgfast's images differ from Pillow's by {worst} grey levels")
    ratios = [ours / theirs for ours, theirs in zip(rows["fgfast"], rows["pillow_loop"], strict=True)]
    figures: dict[str, Any] = {
        "images": images,
        "image": f"{_SIZE[1]}x{_SIZE[0]} JPEG of {average / 1000:.0f} kB in, JPEG quality 95 4:4:4 out",
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in rows.items()},
        "all_rounds": {name: [round(v, 1) for v in values] for name, values in rows.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(r, 2) for r in ratios],
        "largest_difference": worst,
        "workers": workers,
    }
    title = "What is not the models: decode, cut, write, ledger"
    notes = [
        f"{images:,} images per round: {figures['image']}.",
        f"fgfast: {workers} workers, durable, with ledger. The Pillow loop: one thread, no sync, no ledger.",
    ]
    return envelope("io", rows_of(figures), title=title, rounds=rounds, notes=notes, **figures)


def rows_of(figures: Mapping[str, Any]) -> list[Row]:
    """The rows of a result's own fields, which results had before they had rows."""
    names = {
        "pillow_loop": "plain Pillow loop",
        "fgfast": "fgfast",
        "fgfast_masks": "fgfast, and a PNG mask each",
    }
    rows = [Row.of(name, figures["all_rounds"][key], "images/s", "higher") for key, name in names.items()]
    rows.append(Row.of("fgfast is faster than the loop", figures["ratios"], "times", "higher"))
    return [*rows, Row("largest difference of images", figures["largest_difference"], "grey levels", "lower")]


def make_images(folder: Path, count: int) -> float:
    """Write JPEGs of photographs' size on disk, and boxes.csv beside the folder; returns their mean bytes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    files = [encode(noise_image(generator, *_SIZE), ".jpg", _QUALITY) for _ in range(_DIFFERENT)]
    rows = ["path,x0,y0,x1,y1"]
    for n in range(count):
        (folder / f"{n:06d}.jpg").write_bytes(files[n % _DIFFERENT])
        rows.append(f"{folder.name}/{n:06d}.jpg," + ",".join(map(str, _BOX)))
    (folder.parent / "boxes.csv").write_text("\n".join(rows) + "\n")
    return sum(map(len, files)) / len(files)


def noise_image(generator: np.random.Generator, height: int, width: int, spectrum: float = _SPECTRUM) -> UInt8:
    """(height, width, 3) uint8 of coloured noise whose amplitude falls with this power of frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    falloff = np.maximum(frequency, 1 / max(height, width)) ** spectrum
    spectrum = np.fft.fft2(generator.standard_normal((3, height, width))) / falloff
    planes = np.real(np.fft.ifft2(spectrum))
    planes = (planes - planes.mean((1, 2), keepdims=True)) / planes.std((1, 2), keepdims=True)
    mixed = 0.8 * planes[:1] + 0.35 * planes
    return np.ascontiguousarray(np.clip(mixed * 50 + 120, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def pillow_loop(source: Path, out: Path) -> float:
    """Seconds of the plain loop."""
    from PIL import Image

    shutil.rmtree(out, ignore_errors=True)
    (out / "class").mkdir(parents=True)
    files = sorted(source.rglob("*.jpg"))
    x0, y0, x1, y1 = _BOX
    start = time.perf_counter()
    for file in files:
        pixels = np.array(Image.open(file).convert("RGB"))
        mask = np.zeros(pixels.shape[:2], bool)
        mask[y0:y1, x0:x1] = True
        pixels[~mask] = 0
        Image.fromarray(pixels).save(out / "class" / file.name, quality=95, subsampling=0)
    return time.perf_counter() - start


def fgfast_run(source: Path, out: Path, masks: Any, workers: int) -> float:
    """Seconds of fgfast's run, from the first image to the last ledger entry."""
    shutil.rmtree(out, ignore_errors=True)
    settings = Settings(segmenter="box", masks=masks)
    report = run(make_plan(source, out, settings=settings), workers=workers)
    assert report.counts["done"] == report.total, report
    return report.seconds


def compare(ours: Path, theirs: Path) -> int:
    """The largest difference of any pixel of the first images of two folders, in grey levels."""
    from PIL import Image

    worst = 0
    for file in sorted(ours.rglob("*.jpg"))[:_DIFFERENT]:
        mine, other = (np.asarray(Image.open(f)).astype(int) for f in (file, theirs / file.relative_to(ours)))
        worst = max(worst, int(np.abs(mine - other).max()))
    return worst
