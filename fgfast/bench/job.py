"""A whole conversion to be measured: images on disk, a job on devices, and the figures of a run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast import methods
from fgfast.bench.events import span, tidy
from fgfast.bench.images import EDGE, samples, write_images
from fgfast.bench.memory import PeakMemory
from fgfast.config import Settings
from fgfast.io.encode import encode
from fgfast.io.ledger import Ledger
from fgfast.pipeline import run as pipeline
from fgfast.pipeline.finish import Report
from fgfast.pipeline.plan import Plan, make_plan
from fgfast.records import Outcome, Size
from fgfast.writing import Target, remove_tree

if TYPE_CHECKING:
    from fgfast.runner import Event

MODEL_WEIGHTS = "random:0"
_QUALITY = 95
# What the sample photographs show; with random weights any words do.
_VOCABULARY = "astronaut,cat,coffee cup,flower,motorcycle,pagoda,rocket"


@dataclass(frozen=True, slots=True)
class Job:
    """The methods and devices of a conversion.

    Attributes:
        segmenter, detector: as `fgfast convert` names them.
        model_weights: "cached", "random:SEED" or a file.
        precision: "auto", "fp32", "bf16", "fp16".
        devices: "cpu", "cuda:0", ..., one per worker process; () leaves the choice to fgfast.
        placement: "auto", "replicate" or "split".
        batch: images per batch of a model; None leaves it to fgfast.
        model_threads: threads of a model on a CPU; None leaves it to fgfast.
        decoder: the decoder of the files, as `fgfast convert` names it.
        cpu_threads: threads for everything but the models; None leaves it to fgfast.
        workers_per_device: "auto", or a number.
    """

    segmenter: str = "sam_vit_b"
    detector: str = "detic"
    model_weights: str = MODEL_WEIGHTS
    precision: str = "auto"
    devices: tuple[str, ...] = ()
    placement: str = "auto"
    batch: int | None = None
    model_threads: int | None = None
    decoder: str = "auto"
    cpu_threads: int | None = None
    workers_per_device: str = "auto"

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the job, in the order of the stages."""
        found = (methods.find(self.detector, "detector"), methods.find(self.segmenter, "segmenter"))
        return tuple(method.name for method in found if method is not None and method.is_model)

    @property
    def title(self) -> str:
        """The job in words, without the devices."""
        if not self.models:
            return "null models"
        batch = f"batch {self.batch}" if self.batch else ""
        precision = "" if self.precision == "auto" else self.precision
        return ", ".join(filter(None, [" + ".join(self.models), batch, precision]))


def null(cpu_threads: int | None = None, workers_per_device: str = "auto") -> Job:
    """A job without models: the boxes are given, and serve as masks."""
    given = {"cpu_threads": cpu_threads, "workers_per_device": workers_per_device}
    return Job(segmenter="box", detector="annotations", **given)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Images:
    """A data set of images on disk.

    Attributes:
        folder: it holds a folder of images and boxes.csv.
        files: the image files.
        sizes: (height, width) of each image, in pixels.
        about: the images in words.
    """

    folder: Path
    files: tuple[Path, ...]
    sizes: tuple[Size, ...]
    about: str


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a run of a job.

    Attributes:
        plan: the plan, its settings with every choice made.
        messages: sentences about choices that were made later.
        report: the report of the run.
        events: the pieces of work with their times; empty if the run reported none.
        seconds: wall time of the call, which includes loading the models and writing the report.
        peak_mib, gpu_mib: peak memory of all processes and of each GPU, in MiB.
        out: the output folder.
    """

    plan: Plan
    messages: tuple[str, ...]
    report: Report
    events: tuple[Event, ...]
    seconds: float
    peak_mib: float
    gpu_mib: tuple[float, ...]
    out: Path

    @property
    def wall(self) -> float:
        """Seconds from the first event to the last; those of the report if there is no event."""
        first, last = span(self.events)
        return last - first if self.events else self.report.seconds

    @property
    def rate(self) -> float:
        """Images per second, without the time that loading the models takes."""
        return self.report.total / self.wall


def make_images(folder: Path, count: int) -> Images:
    """Write `count` JPEGs, the sample images in turns, and boxes.csv, which holds the box around each subject."""
    subjects, about = samples()
    contents = [encode(subject.pixels, ".jpg", _QUALITY) for subject in subjects]
    sizes = [Size(*subject.pixels.shape[:2]) for subject in subjects]
    boxes = [subject.box for subject in subjects]
    files = write_images(folder / "images", list(zip(contents, boxes, strict=True)), count)
    average = sum(map(len, contents)) / len(contents) / 1000
    about = f"{len(contents)} {about}, longer edge {EDGE} pixels, JPEG of {average:.0f} kB on average; repeated"
    return Images(folder, tuple(files), tuple(islice(cycle(sizes), count)), about)


def settings_of(job: Job) -> Settings:
    """Return the settings of a conversion that does the job."""
    given = asdict(job) | {"devices": job.devices or "auto", "masks": "png"}
    del given["cpu_threads"]
    if len(job.models) < 2:  # there is nothing to place
        given["placement"] = "auto"
    if not job.models and job.model_weights == MODEL_WEIGHTS:  # the default of the bench, which says nothing here
        del given["model_weights"]
    if methods.method(job.detector, "detector").is_model:
        given["vocabulary"] = _VOCABULARY
    return Settings(**given)


def run(job: Job, images: Images, out: Path) -> Ran:
    """Convert the images from disk to disk, and record events and memory.

    Args:
        job: the methods and devices.
        images: the data set.
        out: the output folder; it is emptied first.

    Raises:
        AssertionError: an image failed.
    """
    remove_tree(Target(out))
    events: list[Event] = []
    messages: list[str] = []
    with PeakMemory() as memory:
        start = time.perf_counter()
        plan = make_plan(images.folder, out, settings=settings_of(job))
        report = pipeline.run(plan, cpu_threads=job.cpu_threads, watch=events.append, on_message=messages.append)
        seconds = time.perf_counter() - start
    written = report.counts["done"] + report.counts["flagged"]
    assert written == report.total, f"{report.total - written} of {report.total} images failed: {report.failures}"
    return Ran(plan, tuple(messages), report, tidy(events), seconds, memory.mib, tuple(memory.gpu_mib), out)


def outcomes(out: Path) -> dict[str, Outcome]:
    """Return key -> outcome of each image of an output folder."""
    with Ledger(out / "fgfast" / "ledger.sqlite", write=False) as ledger:
        return {outcome.key: outcome for outcome in ledger.outcomes()}


def digests(out: Path) -> dict[str, str]:
    """Return path -> SHA-256 of each image and mask of an output folder; none may depend on the devices."""
    files = {file.relative_to(out).as_posix(): file for file in sorted(out.rglob("*")) if file.is_file()}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in files.items()
        if not name.startswith("fgfast/")
    }


def on(job: Job, devices: Sequence[str], placement: str) -> Job:
    """Return the same job on other devices."""
    return replace(job, devices=tuple(devices), placement=placement)
