"""The conversion of a data set into its foreground-only twin: settings -> plan -> workers -> ledger -> twin.

`convert` makes a `Plan` and executes it; `run` is the whole course of a run, from top to bottom.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fgfast import methods
from fgfast.config import Selection, Settings
from fgfast.errors import UnknownNameError
from fgfast.io.decisions import decided_in
from fgfast.io.output import MODES, Mode, Output
from fgfast.machine import available_cores
from fgfast.mask_source import MaskSource
from fgfast.pipeline import packed as packed_masks
from fgfast.pipeline import recording
from fgfast.pipeline.annotated import official_masks
from fgfast.pipeline.choices import per_device
from fgfast.pipeline.decided import carry_out
from fgfast.pipeline.decoder_choice import choose_decoder
from fgfast.pipeline.expected import ExpectedTwin
from fgfast.pipeline.finish import Report, finish
from fgfast.pipeline.flagging import flagging_of
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.placement import MOST_THREADS, Devices, asked, pool_threads
from fgfast.pipeline.plan import Plan, load_background, make_plan
from fgfast.pipeline.resume import Changes, Found
from fgfast.pipeline.work import Progress as Progress
from fgfast.pipeline.work import Work
from fgfast.pipeline.workers import start
from fgfast.runner import DEADLINE, Watch


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
    verify: bool = False,
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
        cpu_threads: threads for everything but the models, divided among the worker processes; default one per core,
            at most 8 per worker process.
        stop: set it to end the run early and cleanly.
        progress: called from time to time with the counts so far and the total.
        in_process: do everything in this process, on the first device, for debuggers. A crash then ends the run, which
            can be resumed.
        verify: hash all files of an earlier run, instead of trusting those of the recorded size and time. After a run
            that did not end cleanly this is always done.

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
    return run(
        plan, mode=mode, cpu_threads=cpu_threads, stop=stop, progress=progress, in_process=in_process, verify=verify
    )


def run(
    plan: Plan,
    *,
    mode: Mode = "auto",
    cpu_threads: int | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    in_process: bool = False,
    verify: bool = False,
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
    workers_asked = 1 if in_process else len(plan.settings.places) * (asked(plan.settings.workers_per_device) or 1)
    threads = pool_threads(cpu_threads, workers_asked)
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    with Output(plan.out, plan.dataset.folder) as output:
        output.preflight(mode, plan.fingerprint)  # before models are loaded for nothing
        decided_in(output.ours)  # a damaged file of decisions must raise before anything is deleted
        plan = choose_decoder(
            plan, output, mode, stop=stop, in_process=in_process, deadline=deadline, on_message=on_message
        )
        job = convert_job(plan, output, threads)
        # A missing model must raise before anything is changed.
        with start(
            job, devices_of(plan.settings), stop, in_process=in_process, deadline=deadline, watch=watch
        ) as workers:
            chosen = [*workers.messages, *_capped(cpu_threads, job.threads, workers.threads)]
            for message in chosen:
                on_message(message)
            started = time.perf_counter()
            found = carry_out(plan, output, _open(plan, output, mode, verify), stop)
            for message in found.changes.messages():
                on_message(message)
            results = recording.recorder(output, plan.paths, found, progress, watch)
            packed, unpacked = packed_masks.carry_out(plan, output, found, stop, results.collect)
            if unpacked:
                alone = Changes(unpacked=unpacked)
                found = replace(found, changes=replace(found.changes, unpacked=unpacked))
                on_message(alone.messages()[0])
            official = official_masks(plan.dataset, plan.settings)
            recording.work(workers, todo(plan, found.finished.keys() | packed, official), results)
            seconds = time.perf_counter() - started
        plan = replace(plan, reasons=(*plan.reasons, *chosen))
        return finish(plan, output, found, seconds, stop.is_set(), workers.threads)


def devices_of(settings: Settings) -> Devices:
    """Return where the workers of these settings run."""
    return Devices(settings.places, settings.placement, settings.workers_per_device, bool(settings.models))


def _capped(asked_for: int | None, each: int, threads: int) -> list[str]:
    """Return a sentence about the number of threads where the cores would have allowed more."""
    cores = available_cores()
    if asked_for is not None or each < MOST_THREADS or threads >= cores:
        return []
    return [
        f"cpu threads: {threads} for {cores} cores, {each} per worker process, because more would mostly wait for "
        "Python's lock; --cpu-threads sets another number"
    ]


def _open(plan: Plan, output: Output, mode: Mode, verify: bool) -> Found:
    """Open the output for this plan, make its folders, and return what it holds already."""
    meta = {"source": plan.describe(), "flagging": flagging_of(plan.settings)}
    root = Path(plan.dataset.root)
    found = recording.open_output(
        output, mode, plan.fingerprint, meta, root, lambda: ExpectedTwin(plan, output), verify
    )
    selected = [sample.key for sample in plan.selected]
    masks = [plan.mask_names[key] for key in selected] if plan.settings.masks == "png" else []
    output.make_folders([plan.twins[key] for key in selected], masks)
    return found


def convert_job(plan: Plan, output: Output, threads: int) -> ConvertJob:
    """Return the job of the worker processes, each with so many threads in its pool."""
    settings = plan.settings
    return ConvertJob(
        settings=settings,
        detector=methods.method(settings.detector, "detector"),
        segmenter=methods.method(settings.segmenter, "segmenter"),
        subject=tuple(plan.dataset.subject),
        turn_exif=plan.dataset.turn_exif,
        out=output.out,
        images=output.twin.name,
        masks=output.masks.name,
        background=load_background(settings.fill),
        threads=threads,
        # Of the selection, not what is left of it: a run that is resumed computes as it began.
        per_device=per_device(len(plan.positions), settings.places),
    )


def todo(plan: Plan, finished: Collection[str], official: Mapping[str, MaskSource]) -> Iterator[Work]:
    """Yield the remaining work, in the data set's order.

    Args:
        plan: the plan.
        finished: keys of the samples that need not be done.
        official: key -> the data set's own mask, which judges the one that is made.
    """
    for position in plan.positions:
        sample = plan.dataset.samples[position]
        if sample.key not in finished:
            if (file := official.get(sample.key)) is not None:
                sample = replace(sample, official=file)
            yield Work(position, sample, plan.twins[sample.key], plan.mask_names[sample.key])
