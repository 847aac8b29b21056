"""One sample in flight through the stages of an opened job, and its result, which is committed and recorded."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fgfast.errors import (
    BAD_NAME,
    DeviceFailedError,
    DeviceMemoryError,
    NameRefusedError,
    OutputFailedError,
    OutputRefusedError,
    SampleError,
)
from fgfast.files import FileStamp
from fgfast.io.output import Output
from fgfast.io.portable_paths import PortablePaths
from fgfast.records import Cutout, Detections, Image, Mask, OtherBox, Outcome, Prompt, Sample, Status, sample_digest
from fgfast.runner import Event, Failures, Finished, Handoff, Stage, Watch
from fgfast.writing import commit, delete_files

log = logging.getLogger("fgfast")

# The exceptions that mean more than the failure of an image.
FAILURES = Failures(
    fatal=(OutputFailedError, OutputRefusedError), memory=(DeviceMemoryError,), broken=(DeviceFailedError,)
)


@dataclass(slots=True)
class Work:
    """One sample in flight. The stages fill the fields from top to bottom.

    Attributes:
        position: the sample's position in the data set.
        sample: the sample.
        twin: key of its image in the twin.
        mask_name: POSIX path of its mask inside the masks folder.
        flags: reasons to doubt the result.
        numbers: name -> number that speaks for or against the mask; those of raised flags, and all others computed.
        doubt: see `Outcome`.
        low_res: the output of the segmenter's model, before it becomes a mask.
        source: what the sample's file held when it was read.
        temp_files: the files written so far, as temporary name and final name below the output folder.
        files: their final names -> stamp.
        seconds: stage -> seconds spent in an earlier phase of the job, in another process.
    """

    position: int
    sample: Sample
    twin: str
    mask_name: str = ""
    image: Image | None = None
    detections: Detections | None = None
    prompt: Prompt | None = None
    others: tuple[OtherBox, ...] = ()
    flags: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    doubt: float | None = None
    low_res: Any = None
    mask: Mask | None = None
    cutout: Cutout | None = None
    rle: bytes | None = None
    source: FileStamp | None = None
    temp_files: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, FileStamp] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def packed(self, seconds: Mapping[str, float]) -> Work:
        """Return this work for another process: its prompt without pixels, and the time spent."""
        self.image = self.detections = None
        self.seconds = _sum(self.seconds, seconds)
        return self

    @property
    def digest(self) -> bytes:
        """The digest of what the result depends on besides the image's file and the settings; see `Outcome`."""
        return sample_digest(self.sample)

    def success(self, seconds: Mapping[str, float]) -> Outcome:
        """Return the outcome of a work that went through all stages; `seconds` as in `Outcome`."""
        assert self.image is not None and self.prompt is not None
        assert self.mask is not None and self.cutout is not None
        return Outcome(
            key=self.sample.key,
            status="flagged" if self.flags else "done",
            stage="write",
            reasons=tuple(self.flags),
            twin=self.twin,
            size=self.image.size,
            twin_size=self.cutout.size,
            offset=self.cutout.offset,
            box=self.prompt.box,
            box_reason=self.prompt.reason,
            box_score=self.prompt.score,
            box_name=self.prompt.name,
            others=self.others,
            area=int(np.count_nonzero(self.mask.bits)),
            rle=self.rle,
            quality=self.mask.quality,
            stability=self.mask.stability,
            source=self.source,
            annotation=self.digest,
            files=self.files,
            numbers=self.numbers,
            doubt=self.doubt,
            seconds=seconds,
            warnings=_warnings(self),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a finished work: its outcome, and its files.

    Attributes:
        position: the sample's position in the data set.
        outcome: the outcome.
        temp_files: temporary name and final name of each file, to be committed before the outcome is recorded.
    """

    position: int
    outcome: Outcome
    temp_files: tuple[tuple[str, str], ...]


def result_of(finished: Finished[Work]) -> Result:
    """Return the result of a finished work, without its pixels."""
    work, error = finished.item, finished.error
    seconds = _sum(work.seconds, finished.seconds)
    temp_files = tuple(work.temp_files)
    if error is None:
        return Result(work.position, work.success(seconds), temp_files)
    reason, detail = "internal error", f"{type(error).__name__}: {error}; please report it with this image"
    if isinstance(error, SampleError):
        reason, detail = error.reason, error.detail
        log.info("%s: %s (stage %s)", work.sample.key, detail, finished.stage)
    elif isinstance(error, DeviceMemoryError):
        reason, detail = "out of memory", f"{work.sample.key}: {error}; scale it down, or use a smaller model"
        log.warning("%s", detail)
    else:
        log.error("%s: internal error in stage %s", work.sample.key, finished.stage, exc_info=error)
    outcome = Outcome(
        key=work.sample.key,
        status="failed",
        stage=finished.stage,
        reasons=(reason,),
        detail=detail,
        size=work.image.size if work.image else None,
        box=work.prompt.box if work.prompt else None,
        box_reason=work.prompt.reason if work.prompt else "",
        source=work.source,
        annotation=work.digest,
        seconds=seconds,
        warnings=error.warnings if isinstance(error, SampleError) and not work.image else _warnings(work),
    )
    return Result(work.position, outcome, temp_files)


@dataclass(frozen=True, slots=True)
class ConvertRuntime:
    """A ConvertJob of fgfast.pipeline.job, opened; see `fgfast.runner.JobRuntime`.

    Attributes:
        last: whether this process writes the images.
    """

    stages: list[Stage[Work]]
    threads: int
    last: bool
    facts: dict[str, Any] = field(default_factory=dict)
    failures: Failures = FAILURES

    def result_of(self, finished: Finished[Work]) -> Result | Handoff[Work]:
        """Return the result of an image, or the image for the worker that segments."""
        if finished.error is None and not self.last:
            return Handoff(finished.item.packed(finished.seconds))
        return result_of(finished)


def quarantined(work: Work, reason: str, detail: str) -> Result:
    """Return the result of a work that crashes its worker processes."""
    log.warning("%s: %s", work.sample.key, detail)
    detail = f"{work.sample.key}: {detail}; check this image, then run the same command again"
    outcome = Outcome(
        key=work.sample.key,
        status="failed",
        stage="worker",
        reasons=(reason,),
        detail=detail,
        annotation=work.digest,
    )
    return Result(work.position, outcome, ())


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {stage: first.get(stage, 0.0) + second.get(stage, 0.0) for stage in (*first, *second)}


def _warnings(work: Work) -> tuple[str, ...]:
    return work.image.warnings if work.image else ()


def record(batch: list[Result], output: Output, portable: PortablePaths) -> list[Outcome]:
    """Commit a batch's files, record its outcomes in the ledger, and return them.

    The ledger lists the files before they appear, so that it knows every file of a run, and drops the rows of outcomes
    that are replaced. A sample that failed has no image in the twin, not even that of an earlier run.
    """
    temp_files = [files for result in batch if result.outcome.twin for files in result.temp_files]
    paths = [name for _, name in temp_files]
    old = output.ledger.intend([result.outcome.key for result in batch], paths)
    refused: dict[str, NameRefusedError] = {}
    commit(output.out, temp_files, refused)
    outcomes, leftovers = [], [*set(old).difference(paths)]
    for result in batch:
        outcome = result.outcome
        if error := next((refused[name] for _, name in result.temp_files if name in refused), None):
            detail = f"{outcome.key}: {error}, or another --format"
            outcome = replace(outcome, status="failed", reasons=(BAD_NAME,), detail=detail, twin=None, files={})
        if outcome.twin is None:
            leftovers += [name for names in result.temp_files for name in names if name not in refused]
        outcomes.append(_portable(outcome, portable))
    if leftovers:
        delete_files(output.out, leftovers)
    output.ledger.record(outcomes)
    return outcomes


def _portable(outcome: Outcome, portable: PortablePaths) -> Outcome:
    """Return an outcome whose sentences name no folder of this machine: the ledger goes to others."""
    if not outcome.detail and not outcome.warnings:
        return outcome
    detail, warnings = portable.text(outcome.detail), tuple(map(portable.text, outcome.warnings))
    return replace(outcome, detail=detail, warnings=warnings)


Progress = Callable[[dict[Status, int], int], None]
"""Called with the counts so far and the number of selected samples."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Takes the results of a run as they come; for one thread.

    Attributes:
        output: the output.
        portable: how its files name what is outside it.
        counts: status -> number of samples so far, those of earlier runs among them.
        total: number of samples that have an outcome at the end.
        progress: told of the counts.
        watch: told of each commit, for measurements.
    """

    output: Output
    portable: PortablePaths
    counts: Counter[Status]
    total: int
    progress: Progress
    watch: Watch | None = None

    def collect(self, batch: list[Result]) -> None:
        """Commit and record results."""
        began = time.monotonic()
        outcomes = record(batch, self.output, self.portable)
        if self.watch:
            self.watch(Event("commit", "", "collect", began, time.monotonic(), len(batch), 0))
        self.counts.update(outcome.status for outcome in outcomes)
        self.progress(dict(self.counts), self.total)
