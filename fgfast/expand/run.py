"""An expansion, from a plan to its report: workers make the products, this process records them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from fgfast.errors import UnknownNameError, UsageError
from fgfast.expand.expected import ExpectedExpansion
from fgfast.expand.finish import finish
from fgfast.expand.job import ExpandJob, ExpandWork, paths_of, suffix_of
from fgfast.expand.plan import ExpandPlan
from fgfast.expand.tables import check_arrow
from fgfast.io.output import MODES, Mode, Output
from fgfast.machine import available_cores
from fgfast.pipeline import recording
from fgfast.pipeline.finish import Report
from fgfast.pipeline.placement import Devices
from fgfast.pipeline.resume import Found
from fgfast.pipeline.work import Progress, Recorder, Result
from fgfast.pipeline.workers import start
from fgfast.records import Outcome
from fgfast.runner import DEADLINE, Watch

# Worker processes by default, at most: each takes some 150 MB, and Python's lock leaves nothing for a second thread of
# most kinds.
_MOST_WORKERS = 16
# Samples without a product are recorded in batches of this many.
_AT_ONCE = 256


def run(
    plan: ExpandPlan,
    *,
    mode: Mode = "auto",
    workers: int | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    in_process: bool = False,
    verify: bool = False,
    deadline: float = DEADLINE,
    watch: Watch | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Report:
    """Execute a plan.

    Args:
        plan: the plan, in the thread that made it.
        mode, stop, progress, in_process, verify, deadline, watch, on_message: see `fgfast.pipeline.run.run`.
        workers: number of worker processes; default one per core.

    Raises:
        UsageError: the request cannot be carried out as given; nothing was changed.
        MissingExtraError: a package is not installed.
        OutputFailedError: the disk is full or failing; what is finished is kept, and the same call resumes the run.
        WorkerLostError: no worker process is left; the same call resumes the run.
    """
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    if in_process and (workers or 1) > 1:
        raise UsageError(f"workers {workers} has no effect in one process")
    if plan.planned.tables:
        check_arrow()
    say = on_message or (lambda message: None)
    stop = stop or threading.Event()
    count = 1 if in_process else workers_of(plan, workers)
    with plan.output() as output:
        output.preflight(mode, plan.fingerprint)
        devices = Devices(("cpu",) * count, "replicate", 1)
        with start(_job(plan, output), devices, stop, in_process=in_process, deadline=deadline, watch=watch) as ready:
            started = time.perf_counter()
            found = _open(plan, output, mode, verify)
            for message in found.changes.messages():
                say(message)
            results = recording.recorder(output, plan.paths, found, progress or (lambda counts, total: None), watch)
            _record_unused(plan, found.finished, results)
            recording.work(ready, todo(plan, found.finished), results)
            seconds = time.perf_counter() - started
        chosen = [f"workers: {count}"]
        return finish(plan, output, found, seconds, stop.is_set(), ready.threads, chosen)


def workers_of(plan: ExpandPlan, asked: int | None) -> int:
    """Return the number of worker processes."""
    most = min(_MOST_WORKERS, available_cores()) if asked is None else asked
    return max(1, min(most, plan.planned.workers or most, len(plan.positions)))


def todo(plan: ExpandPlan, finished: Collection[str]) -> Iterator[ExpandWork]:
    """Yield the remaining work, in the data set's order; may be taken by several threads, one at a time.

    The run may be changing meanwhile: a sample that it has no mask of any more fails, and the others go on.
    """
    for position in plan.positions:
        sample = plan.dataset.samples[position]
        if sample.key in finished or sample.key in plan.planned.unused:
            continue
        before, given = plan.request.outcomes.of(sample.key), dict(plan.planned.given(sample.key))
        yield ExpandWork(
            position,
            sample,
            plan.shown(sample.key),
            before=before,
            given=given,
            wanted=plan.digest(sample, before, given) if before is not None else b"",
            names=paths_of(plan.names, sample.key),
        )


def _job(plan: ExpandPlan, output: Output) -> ExpandJob:
    return ExpandJob(
        kind=plan.kind.name,
        seed=plan.request.seed,
        step=plan.planned.step,
        tables=plan.planned.tables,
        folders=plan.planned.folders,
        turn_exif=plan.dataset.turn_exif,
        out=output.out,
        suffix=suffix_of(plan.how.format),
        quality=plan.how.quality,
        threads=plan.planned.threads,
        imports=plan.planned.imports,
    )


def _open(plan: ExpandPlan, output: Output, mode: Mode, verify: bool) -> Found:
    """Open the output, make its folders, and return what it holds already."""
    meta = {"source": plan.describe()}
    root = Path(plan.dataset.root)
    found = recording.open_output(
        output, mode, plan.fingerprint, meta, root, lambda: ExpectedExpansion(plan, output), verify
    )
    keys = [s.key for s in plan.selected if s.key not in plan.planned.unused]
    folders = [path for key in keys for path in plan.names.fixed(key)]
    folders += [plan.names.several(folder, key, "file") for key in keys for folder in plan.names.folders]
    if plan.planned.tables:
        folders.append("tables/file")
    output.make_folders((), (), folders)
    return found


def _record_unused(plan: ExpandPlan, finished: Collection[str], results: Recorder) -> None:
    """Record the samples that get no product."""
    left = (
        (n, sample)
        for n in plan.positions
        if (sample := plan.dataset.samples[n]).key in plan.planned.unused and sample.key not in finished
    )
    while batch := list(islice(left, _AT_ONCE)):
        results.collect([Result(n, _skipped(plan, sample.key, plan.digest(sample)), ()) for n, sample in batch])


def _skipped(plan: ExpandPlan, key: str, digest: bytes) -> Outcome:
    before = plan.request.outcome(key)
    return Outcome(
        key=key,
        status="skipped",
        stage="plan",
        detail=f"{key}: {plan.planned.unused[key]}",
        size=before.size,
        source=before.source,
        annotation=digest,
    )
