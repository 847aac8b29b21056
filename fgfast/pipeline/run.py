"""A data set goes in, its foreground-only twin comes out: settings -> plan -> workers -> ledger -> twin.

Reads from top to bottom: `convert` makes a `Plan` and carries it out; `run` shows the whole course of a run.
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
from fgfast.errors import OutputFailedError, OutputRefusedError, UnknownNameError, UsageError
from fgfast.io import coco
from fgfast.io.output import MODES, Mode, Output, delete_files
from fgfast.io.provenance import write_run_json
from fgfast.io.report import write_page
from fgfast.io.summary import Summary
from fgfast.io.write import commit, sweep_temp_files, sync_folders
from fgfast.machine import available_cores
from fgfast.pipeline.decoder_choice import choose_decoder
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.plan import Plan, load_background, make_plan
from fgfast.pipeline.work import Result, Work
from fgfast.pipeline.workers import start
from fgfast.records import Sample, Status
from fgfast.runner import DEADLINE, Event, Watch

Progress = Callable[[dict[Status, int], int], None]
"""Called with the counts so far and the number of samples to do."""


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        out: the output folder.
        twin: the folder of the twin inside it.
        html: the report for people.
        total: selected samples.
        counts: how many of them ended in each way; they add up to `total` unless the run was stopped.
        flags: reason -> number of images flagged with it.
        failures: reason -> number of samples that failed with it.
        resumed: samples that an earlier run had finished.
        seconds: wall time from the first image to the last ledger entry; what describes the twin as a whole (its
            annotation files, COCO file, report) comes on top.
        stopped: whether it was stopped before the end.
    """

    out: Path
    twin: Path
    html: Path
    total: int
    counts: dict[Status, int]
    flags: dict[str, int]
    failures: dict[str, int]
    resumed: int
    seconds: float
    stopped: bool

    @property
    def rate(self) -> float:
        """Samples a second in this run."""
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
        dataset: a name (see `fgfast.datasets.names()`) or the folder of one.
        out: the output folder; it will hold the twin under the name its loaders expect. Default: NAME_fg, in the
            current folder.
        root: where the data set lies; looked for in $FGFAST_DATA, ./data and the current folder by default.
        labels: which of several labellings to use (FGVC-Aircraft: "variant", "family" or "manufacturer").
        settings: how to cut out and write; default `Settings()`.
        selection: which samples; default all.
        mode: "auto" goes on where an earlier run with the same settings stopped, "resume" insists on that,
            "overwrite" begins anew.
        cpu_threads: threads for what the models do not do, shared out to the worker processes; default one per core.
        stop: set it to end the run early and cleanly.
        progress: called now and then with the counts so far and the total.
        in_process: do everything in this process, on the first device: for debuggers. What crashes then takes the run
            with it; the next one goes on where it stopped.

    Raises:
        UsageError: the request cannot be carried out as given; nothing was touched.
        DatasetError: an annotation file is malformed.
        OutputFailedError: the disk is full or failing; what is finished stays, and the same call goes on later.
        WorkerLostError: no worker process is left; likewise.

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
    """Carry out a plan. Further arguments and errors as for `convert`.

    Args:
        plan: what to do.
        deadline: seconds after which a worker process that gives no answer for an image is ended.
        watch: called in this process with each piece of work that is done, for measurements.
        on_message: called with a sentence about each choice that is made only now.
    """
    on_message = on_message or _ignore
    stop = stop or threading.Event()
    cpu_threads = available_cores() if cpu_threads is None else cpu_threads
    if cpu_threads < 1:
        raise UsageError(f"cpu_threads must be at least 1, not {cpu_threads}")
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    with Output(plan.out, plan.dataset.folder) as output:
        output.preflight(mode, plan.fingerprint)  # before models are loaded for nothing
        plan = choose_decoder(plan, output, mode, in_process=in_process, deadline=deadline, on_message=on_message)
        job = convert_job(plan, output, cpu_threads)
        # A model that is missing is found out before anything is touched.
        with start(job, plan, stop, in_process=in_process, deadline=deadline, watch=watch) as workers:
            for message in workers.messages:
                on_message(message)
            begun = time.perf_counter()
            output.open(mode, plan.fingerprint, plan.dataset.root)
            finished = still_there(plan, output)
            counts: Counter[Status] = Counter(finished.values())
            resumed = len(finished)
            make_folders(plan, output)

            def collect(batch: list[Result]) -> None:
                began = time.monotonic()
                record(batch, plan, output)
                if watch:
                    watch(Event("commit", "", "collect", began, time.monotonic(), len(batch), 0))
                counts.update(result.outcome.status for result in batch)
                if progress:
                    progress(dict(counts), len(plan.positions))

            if progress:
                progress(dict(counts), len(plan.positions))
            workers.work(todo(plan, finished.keys()), collect)
            if workers.crashes():
                sweep_temp_files(output.out)
            seconds = time.perf_counter() - begun
        plan = replace(plan, reasons=(*plan.reasons, *workers.messages))
        return finish(plan, output, resumed, seconds, stop.is_set(), cpu_threads)


def _ignore(message: str) -> None:
    """For callers that want no messages."""


def convert_job(plan: Plan, output: Output, cpu_threads: int) -> ConvertJob:
    """What worker processes are to do."""
    settings = plan.settings
    return ConvertJob(
        settings=settings,
        detector=methods.method(settings.detector),
        segmenter=methods.method(settings.segmenter),
        subject=tuple(plan.dataset.subject),
        turn_exif=plan.dataset.turn_exif,
        images=output.twin,
        masks=output.masks,
        background=load_background(settings.fill),
        threads=max(1, cpu_threads // len(settings.places)),
    )


def still_there(plan: Plan, output: Output) -> dict[str, Status]:
    """Key -> status of what an earlier run finished, less what somebody has deleted since."""
    there: dict[str, Status] = {}
    for key, twin, status in output.ledger.finished():
        lost = twin is not None and not (output.twin / twin).exists()
        if plan.settings.masks == "png" and not lost and twin is not None:
            lost = not (output.masks / plan.mask_names[key]).exists()
        if not lost:
            there[key] = status
    return there


def todo(plan: Plan, finished: Collection[str]) -> Iterator[Work]:
    """The work that is left, in the data set's order."""
    for position in plan.positions:
        sample = plan.dataset.samples[position]
        if sample.key not in finished:
            yield Work(position, sample, plan.twins[sample.key], plan.mask_names[sample.key])


def make_folders(plan: Plan, output: Output) -> None:
    """Make all folders of the twin beforehand, so that an image's name is durable once its own folder is synced."""
    folders = {(output.twin / plan.twins[s.key]).parent for s in plan.selected}
    if plan.settings.masks == "png":
        folders |= {(output.masks / plan.mask_names[s.key]).parent for s in plan.selected}
    out = output.out.resolve()
    try:
        for folder in sorted(folders):
            folder.mkdir(parents=True, exist_ok=True)
            if not folder.resolve().is_relative_to(out):
                raise OutputRefusedError(f"{folder} leads out of {out} by a link: choose another folder")
        sync_folders({parent for f in folders for parent in (f, *f.parents) if output.out in (parent, *parent.parents)})
    except OSError as error:
        raise OutputFailedError(f"cannot make the folders of {output.out}: {error.strerror or error}") from error


def record(batch: list[Result], plan: Plan, output: Output) -> None:
    """Commit a batch's files, then record its outcomes in the ledger.

    What is about to appear is written down before, so that no file of ours is ever unknown. A sample that failed
    leaves no image behind, not even one that an earlier run wrote.
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
    """Write what describes the twin as a whole: its annotation files, COCO, Parquet, run.json, report."""
    ledger, dataset = output.ledger, plan.dataset
    samples = {sample.key: sample for sample in plan.selected}
    seen, placed = describe(plan, output, samples)
    annotation_files = dataset.write_annotations(output.twin, placed, set(samples))
    ledger.set_meta({"annotation_files": sorted(str(p.relative_to(output.out)) for p in annotation_files)})
    report = Report(
        out=output.out,
        twin=output.twin,
        html=output.report,
        total=len(plan.positions),
        counts=ledger.counts(),
        flags=dict(seen.reasons["flagged"].most_common()),
        failures=dict(seen.reasons["failed"].most_common()),
        resumed=resumed,
        seconds=seconds,
        stopped=stopped and sum(ledger.counts().values()) < len(plan.positions),
    )
    runs = remember_run(output, sum(report.counts.values()) - resumed, seconds)
    facts = write_run_json(
        output.run_json,
        title=plan.dataset.folder if plan.dataset.name == "folder" else plan.dataset.name,
        fingerprint=plan.fingerprint,
        reasons=plan.reasons,
        root=plan.dataset.root,
        cpu_threads=cpu_threads,
        result={"total": report.total, "counts": report.counts, **runs},
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


def remember_run(output: Output, worked: int, seconds: float) -> dict[str, float]:
    """Add this run to those that made the twin, and sum them up; a run that found nothing to do does not count."""
    runs: list[dict[str, float]] = output.ledger.meta("runs") or []
    if worked:
        runs.append({"processed": worked, "seconds": round(seconds, 3)})
        output.ledger.set_meta({"runs": runs})
    return {
        "runs": len(runs),
        "processed": sum(run["processed"] for run in runs),
        "seconds": round(sum(run["seconds"] for run in runs), 3),
    }


def describe(plan: Plan, output: Output, samples: dict[str, Sample]) -> tuple[Summary, dict[str, ImagePlacement]]:
    """Write COCO and Parquet, in one reading of the ledger; what the report shows, and where the images lie."""
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
