"""The conversion of a data set into its foreground-only twin: settings -> plan -> workers -> ledger -> twin.

`convert` makes a `Plan` and executes it; `run` is the whole course of a run, from top to bottom.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fgfast import methods
from fgfast.config import Selection, Settings
from fgfast.datasets.layout import ImagePlacement
from fgfast.errors import UnknownNameError, UsageError
from fgfast.io import coco
from fgfast.io.output import MODES, Mode, Output, delete_files
from fgfast.io.provenance import add_run, write_run_json
from fgfast.io.report import write_page
from fgfast.io.summary import Summary
from fgfast.io.write import commit, sweep_temp_files
from fgfast.machine import available_cores
from fgfast.pipeline.decoder_choice import choose_decoder
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.plan import Plan, load_background, make_plan
from fgfast.pipeline.work import Result, Work
from fgfast.pipeline.workers import start
from fgfast.records import Sample, Status
from fgfast.runner import DEADLINE, Event, Watch

Progress = Callable[[dict[Status, int], int], None]
"""Called with the counts so far and the number of selected samples."""


@dataclass(frozen=True)
class Report:
    """The results of a run.

    Attributes:
        out: the output folder.
        twin: the folder of the twin inside it.
        html: the report for people.
        load: the line of Python that loads the twin with the usual loader; empty for a twin without images.
        total: number of selected samples.
        counts: status -> number of samples; they add up to `total` unless the run was stopped.
        flags: reason -> number of images flagged with it.
        failures: reason -> number of samples that failed with it.
        resumed: number of samples that earlier runs had finished.
        seconds: wall-clock time from the first image to the last ledger entry, without the files about the whole twin
            (annotation files, COCO file, report).
        stopped: whether the run was stopped before the end.
    """

    out: Path
    twin: Path
    html: Path
    load: str
    total: int
    counts: dict[Status, int]
    flags: dict[str, int]
    failures: dict[str, int]
    resumed: int
    seconds: float
    stopped: bool

    @property
    def rate(self) -> float:
        """Samples per second in this run."""
        return (sum(self.counts.values()) - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def convert(
    dataset: str | Path,
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    labels: str | None = None,
    settings: Settings | None = None,
    selection: Selection | None = None,
    mode: Mode = "auto",
    cpu_threads: int | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    in_process: bool = False,
) -> Report:
    """Make the foreground-only twin of a data set.

    Args:
        dataset: a data set's name (see `fgfast.datasets.names()`) or folder.
        out: the output folder; the twin inside it has the folder name that its loaders expect. Default: NAME_fg in the
            current folder.
        root: the data set's folder; by default it is searched for in $FGFAST_DATA, ./data and the current folder.
        labels: the label list to use (FGVC-Aircraft: "variant", "family" or "manufacturer").
        settings: how to cut out and write; default `Settings()`.
        selection: the samples to convert; default all.
        mode: "auto" resumes an earlier run with the same settings, or starts one; "resume" requires a run to resume;
            "overwrite" deletes the earlier run and starts one.
        cpu_threads: threads for everything but the models, divided among the worker processes; default one per core.
        stop: set it to end the run early and cleanly.
        progress: called from time to time with the counts so far and the total.
        in_process: do everything in this process, on the first device, for debuggers. A crash then ends the run, which
            can be resumed.

    Raises:
        UsageError: the request cannot be carried out as given; nothing was changed.
        DatasetError: an annotation file is malformed.
        OutputFailedError: the disk is full or failing; finished images are kept, and the same call resumes the run.
        WorkerLostError: no worker process is left; finished images are kept, and the same call resumes the run.

    Example:
        >>> import fgfast
        >>> report = fgfast.convert("cub", "cub_fg", root="data/CUB_200_2011")  # doctest: +SKIP
        >>> report.counts["failed"]  # doctest: +SKIP
        0
    """
    plan = make_plan(dataset, out, root=root, labels=labels, settings=settings, selection=selection)
    return run(plan, mode=mode, cpu_threads=cpu_threads, stop=stop, progress=progress, in_process=in_process)


def run(
    plan: Plan,
    *,
    mode: Mode = "auto",
    cpu_threads: int | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    in_process: bool = False,
    deadline: float = DEADLINE,
    watch: Watch | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Report:
    """Execute a plan. The other arguments and the errors are those of `convert`.

    Args:
        plan: the plan.
        deadline: seconds after which a worker process that has not responded for an image is killed.
        watch: called in this process with each piece of work, for measurements.
        on_message: called with a sentence about each choice that is made during the run.
    """
    on_message = on_message or (lambda message: None)
    progress = progress or (lambda counts, total: None)
    stop = stop or threading.Event()
    cpu_threads = available_cores() if cpu_threads is None else cpu_threads
    if cpu_threads < 1:
        raise UsageError(f"cpu_threads must be at least 1, not {cpu_threads}")
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    with Output(plan.out, plan.dataset.folder) as output:
        output.preflight(mode, plan.fingerprint)  # before models are loaded for nothing
        plan = choose_decoder(
            plan, output, mode, stop=stop, in_process=in_process, deadline=deadline, on_message=on_message
        )
        job = convert_job(plan, output, cpu_threads)
        # A missing model must raise before anything is changed.
        with start(job, plan, stop, in_process=in_process, deadline=deadline, watch=watch) as workers:
            for message in workers.messages:
                on_message(message)
            started = time.perf_counter()
            output.open(mode, plan.fingerprint, plan.dataset.root)
            finished = still_there(plan, output)
            counts: Counter[Status] = Counter(finished.values())
            selected = [sample.key for sample in plan.selected]
            masks = [plan.mask_names[key] for key in selected] if plan.settings.masks == "png" else []
            output.make_folders([plan.twins[key] for key in selected], masks)

            def collect(batch: list[Result]) -> None:
                began = time.monotonic()
                record(batch, plan, output)
                if watch:
                    watch(Event("commit", "", "collect", began, time.monotonic(), len(batch), 0))
                counts.update(result.outcome.status for result in batch)
                progress(dict(counts), len(plan.positions))

            progress(dict(counts), len(plan.positions))
            workers.work(todo(plan, finished.keys()), collect)
            if workers.crashes():
                sweep_temp_files(output.out)
            seconds = time.perf_counter() - started
        plan = replace(plan, reasons=(*plan.reasons, *workers.messages))
        return finish(plan, output, len(finished), seconds, stop.is_set(), cpu_threads)


def convert_job(plan: Plan, output: Output, cpu_threads: int) -> ConvertJob:
    """Return the job of the worker processes."""
    settings = plan.settings
    return ConvertJob(
        settings=settings,
        detector=methods.method(settings.detector, "detector"),
        segmenter=methods.method(settings.segmenter, "segmenter"),
        subject=tuple(plan.dataset.subject),
        turn_exif=plan.dataset.turn_exif,
        images=output.twin,
        masks=output.masks,
        background=load_background(settings.fill),
        threads=max(1, cpu_threads // len(settings.places)),
    )


def still_there(plan: Plan, output: Output) -> dict[str, Status]:
    """Return key -> status of the samples that earlier runs finished and whose files still exist."""
    there: dict[str, Status] = {}
    for key, twin, status in output.ledger.finished():
        files = [] if twin is None else [output.twin / twin]
        if files and plan.settings.masks == "png":
            files.append(output.masks / plan.mask_names[key])
        if all(file.exists() for file in files):
            there[key] = status
    return there


def todo(plan: Plan, finished: Collection[str]) -> Iterator[Work]:
    """Yield the remaining work, in the data set's order."""
    for position in plan.positions:
        sample = plan.dataset.samples[position]
        if sample.key not in finished:
            yield Work(position, sample, plan.twins[sample.key], plan.mask_names[sample.key])


def record(batch: list[Result], plan: Plan, output: Output) -> None:
    """Commit a batch's files, then record its outcomes in the ledger.

    The ledger lists the files before they appear, so that it knows every file of a run. A sample that failed has no
    image in the twin, not even that of an earlier run.
    """
    temp_files = [files for result in batch if result.outcome.twin for files in result.temp_files]
    root = f"{output.out}{os.sep}"
    output.ledger.set_meta({"committing": [path.removeprefix(root) for _, path in temp_files]})
    commit(temp_files)
    for result in batch:
        if not result.outcome.twin:
            key = result.outcome.key
            leftovers = [Path(temp) for temp, _ in result.temp_files]
            leftovers += [output.twin / plan.twins[key], output.masks / plan.mask_names[key]]
            delete_files(leftovers, output.out)
    output.ledger.record((result.position, result.outcome) for result in batch)


def finish(plan: Plan, output: Output, resumed: int, seconds: float, stopped: bool, cpu_threads: int) -> Report:
    """Write the files about the whole twin: annotation files, COCO, Parquet, run.json, report."""
    ledger, dataset = output.ledger, plan.dataset
    samples = {sample.key: sample for sample in plan.selected}
    seen, placed = describe(plan, output, samples)
    annotation_files = dataset.write_annotations(output.twin, placed)
    ledger.set_meta({"annotation_files": sorted(str(p.relative_to(output.out)) for p in annotation_files)})
    report = Report(
        out=output.out,
        twin=output.twin,
        html=output.report,
        load=dataset.load_line(output.twin, placed) if placed else "",
        total=len(plan.positions),
        counts=ledger.counts(),
        flags=dict(seen.reasons["flagged"].most_common()),
        failures=dict(seen.reasons["failed"].most_common()),
        resumed=resumed,
        seconds=seconds,
        stopped=stopped and sum(ledger.counts().values()) < len(plan.positions),
    )
    runs = add_run(ledger, sum(report.counts.values()) - resumed, seconds)
    facts = write_run_json(
        output.run_json,
        title=plan.dataset.folder if plan.dataset.name == "folder" else plan.dataset.name,
        fingerprint=plan.fingerprint,
        reasons=plan.reasons,
        root=plan.dataset.root,
        cpu_threads=cpu_threads,
        result={"total": report.total, "counts": report.counts, "load": report.load, **runs},
    )
    write_page(
        output.report,
        seen,
        facts=facts,
        total=report.total,
        samples=samples,
        twin=output.twin,
        turn_exif=dataset.turn_exif,
    )
    return report


def describe(plan: Plan, output: Output, samples: dict[str, Sample]) -> tuple[Summary, dict[str, ImagePlacement]]:
    """Write COCO and Parquet in one pass over the ledger; return the report's summary, and the images' placements."""
    seen, placed = Summary(samples), {}
    labels = {sample.key: sample.label for sample in plan.dataset.samples}
    with contextlib.ExitStack() as files:
        add = [files.enter_context(coco.instances(output.instances, labels, plan.dataset.classes, plan.dataset.name))]
        if plan.settings.masks == "rle":
            add.append(files.enter_context(coco.parquet(output.parquet)))
        for o in output.ledger.outcomes():
            seen.add(o)
            if o.twin is not None:
                assert o.size is not None and o.twin_size is not None
                placed[o.key] = ImagePlacement(o.twin, o.offset, o.twin_size, o.size)
                for write in add:
                    write(o)
    return seen, placed
