"""A whole conversion as a bench: images on disk, a job on devices, what a run of it gave."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast.bench.events import span, tidy
from fgfast.bench.io import noise_image
from fgfast.bench.memory import PeakMemory
from fgfast.config import MODEL_DETECTORS, SAM_SEGMENTERS, Settings
from fgfast.errors import MissingExtraError
from fgfast.io.ledger import Ledger
from fgfast.io.write import encode
from fgfast.pipeline import run as pipeline
from fgfast.pipeline.plan import Plan, make_plan
from fgfast.pipeline.run import Report
from fgfast.records import Outcome

if TYPE_CHECKING:
    from fgfast.runner import Event

MODEL_WEIGHTS = "random:0"
# The images' longer edge, as most of CUB-200-2011's are.
_EDGE = 500
_QUALITY = 95
# What the demo's photographs show; with weights that are made up any words do.
_VOCABULARY = "astronaut,cat,coffee cup,flower,motorcycle,pagoda,rocket"


@dataclass(frozen=True, slots=True)
class Job:
    """What is converted with what, where.

    Attributes:
        segmenter, detector: as `fgfast convert` names them.
        model_weights: "cached", "random:SEED" or a file.
        precision: "auto", "fp32", "bf16", "fp16".
        devices: "cpu", "cuda:0", ..., one for each worker process; () leaves the choice to fgfast.
        placement: "auto", "replicate" or "split".
        batch: images at once; None leaves it to fgfast.
        threads: of a model on a CPU; None leaves it to fgfast.
        decoder: of the files, as `fgfast convert` names them.
        workers: threads for what is not the models; None leaves it to fgfast.
    """

    segmenter: str = "sam_vit_b"
    detector: str = "detic"
    model_weights: str = MODEL_WEIGHTS
    precision: str = "auto"
    devices: tuple[str, ...] = ()
    placement: str = "auto"
    batch: int | None = None
    threads: int | None = None
    decoder: str = "auto"
    workers: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that compute, in the order of the stages."""
        return tuple(n for n in (self.detector, self.segmenter) if n in (*MODEL_DETECTORS, *SAM_SEGMENTERS))

    @property
    def title(self) -> str:
        """The job in words, without the devices."""
        if not self.models:
            return "null models"
        parts = [" + ".join(self.models)]
        parts += [f"batch {self.batch}"] if self.batch else []
        return ", ".join([*parts, *([] if self.precision == "auto" else [self.precision])])


def null(workers: int | None = None) -> Job:
    """No model at all: boxes are given, and are the masks."""
    return Job(segmenter="box", detector="annotations", workers=workers)


@dataclass(frozen=True, slots=True)
class Images:
    """A data set of images on disk.

    Attributes:
        folder: with a folder of images and boxes.csv.
        files: the images.
        sizes: (height, width) of each, in pixels.
        about: what they are, in words.
    """

    folder: Path
    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    about: str


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of a job gave.

    Attributes:
        plan: what was planned, settings with every choice made.
        said: sentences about choices that were made later.
        report: the run's own.
        events: what was done when; empty where the run told nothing.
        seconds: wall time of the call, models loaded and report written.
        peak_mib: memory of all processes; gpu_mib: of each GPU.
        out: the output folder.
    """

    plan: Plan
    said: tuple[str, ...]
    report: Report
    events: tuple[Event, ...]
    seconds: float
    peak_mib: float
    gpu_mib: tuple[float, ...]
    out: Path

    @property
    def wall(self) -> float:
        """Seconds from the first event to the last; the report's where there is none."""
        first, last = span(self.events)
        return last - first if self.events else self.report.seconds

    @property
    def rate(self) -> float:
        """Images a second, without loading the models."""
        return self.report.total / self.wall


def make_images(folder: Path, count: int) -> Images:
    """Write `count` JPEGs: the demo's photographs and their variations, repeated; noise where those are not installed.

    Their longer edge has 500 pixels, as CUB-200-2011's images have; boxes.csv says where the subjects are.
    """
    try:
        different, about = photographs(), "sample photographs of scikit-image and scikit-learn"
    except MissingExtraError:
        rng = np.random.default_rng(0)
        noise = [noise_image(rng, *size) for size in ((375, 500), (500, 375), (333, 500), (500, 500))]
        different = [(encode(p, ".jpg", _QUALITY), (p.shape[0], p.shape[1]), (0.2, 0.2, 0.8, 0.8)) for p in noise]
        about = "coloured noise (scikit-image and scikit-learn, whose photographs would be taken, are not installed)"
    (folder / "images").mkdir(parents=True)
    rows, files, sizes = ["path,x0,y0,x1,y1"], [], []
    for n in range(count):
        content, (height, width), box = different[n % len(different)]
        file = folder / "images" / f"{n:06d}.jpg"
        file.write_bytes(content)
        corners = (part * side for part, side in zip(box, (width, height) * 2, strict=True))
        rows.append(f"images/{file.name}," + ",".join(f"{corner:.1f}" for corner in corners))
        files.append(file)
        sizes.append((height, width))
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    average = sum(len(content) for content, _, _ in different) / len(different) / 1000
    about = f"{len(different)} {about}, longer edge {_EDGE} pixels, JPEG of {average:.0f} kB on average; repeated"
    return Images(folder, tuple(files), tuple(sizes), about)


def photographs() -> list[tuple[bytes, tuple[int, int], tuple[float, float, float, float]]]:
    """The demo's photographs in their variations: JPEG, (height, width) in pixels, the subject's box in parts of them.

    Raises:
        MissingExtraError: the wheels that hold them are not installed.
    """
    from PIL import Image

    from fgfast.bench import demo

    found = []
    for photo in demo.THINGS + demo.VEHICLES:
        for image, (x0, y0, x1, y1) in demo.variations(demo.photograph(photo), photo.box):
            scale = _EDGE / max(image.size)
            width, height = round(image.width * scale), round(image.height * scale)
            pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
            corners = (x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height)
            x0, y0, x1, y1 = (min(1.0, max(0.0, corner)) for corner in corners)
            found.append((encode(np.ascontiguousarray(pixels), ".jpg", _QUALITY), (height, width), (x0, y0, x1, y1)))
    # A prime step: neighbours are of different photographs and shapes, as in a shuffled data set.
    return [found[n * 7 % len(found)] for n in range(len(found))]


def settings_of(job: Job) -> Settings:
    """The settings of a conversion that does the job."""
    names: Any = ("segmenter", "detector", "model_weights", "precision", "placement", "batch", "threads", "decoder")
    given = {name: getattr(job, name) for name in names}
    words = _VOCABULARY if job.detector in MODEL_DETECTORS else None
    return Settings(**given, devices=job.devices or "auto", masks="png", vocabulary=words)


def run(job: Job, images: Images, out: Path) -> Ran:
    """Convert the images from disk to disk, and watch.

    Args:
        job: what with, where.
        images: the data set.
        out: the output folder, made anew.

    Raises:
        AssertionError: an image failed.
    """
    shutil.rmtree(out, ignore_errors=True)
    events: list[Event] = []
    said: list[str] = []
    with PeakMemory() as memory:
        start = time.perf_counter()
        plan = make_plan(images.folder, out, settings=settings_of(job))
        report = pipeline.run(plan, workers=job.workers, watch=events.append, say=said.append)
        seconds = time.perf_counter() - start
    written = report.counts["done"] + report.counts["flagged"]
    assert written == report.total, f"{report.total - written} of {report.total} images failed: {report.failures}"
    return Ran(plan, tuple(said), report, tidy(events), seconds, memory.mib, tuple(memory.gpu_mib), out)


def outcomes(out: Path) -> dict[str, Outcome]:
    """Key -> how an image ended, of an output folder."""
    with Ledger(out / "fgfast" / "ledger.sqlite") as ledger:
        return {outcome.key: outcome for outcome in ledger.outcomes()}


def digests(out: Path) -> dict[str, str]:
    """Path -> SHA-256 of every image and mask of an output folder: what must not depend on devices."""
    files = (file for file in sorted(out.rglob("*")) if file.is_file())
    named = ((file.relative_to(out), file) for file in files)
    kept = [(name, file) for name, file in named if name.parts[0] != "fgfast" or name.parts[1] == "masks"]
    return {name.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for name, file in kept}


def on(job: Job, devices: Sequence[str], placement: str) -> Job:
    """The same job elsewhere."""
    return replace(job, devices=tuple(devices), placement=placement)
