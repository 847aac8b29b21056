"""The workers of a plan: worker processes on devices, or this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fgfast.errors import DeviceMemoryError, UsageError
from fgfast.io.warned import captured
from fgfast.pipeline.job import ConvertJob
from fgfast.pipeline.placement import Cost, DevicePlacement, best, replicate, split
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.work import FAILURES, Result, Work, quarantined, result_of
from fgfast.runner import DEADLINE, Supervisor, Watch, WorkerSpec, run

Collect = Callable[[list[Result]], None]


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are ready.

    Attributes:
        work: processes all works, and passes results to the collector in the calling thread.
        messages: sentences about the placement.
        crashes: counts the worker processes that have crashed so far; they may leave temporary files behind.
    """

    work: Callable[[Iterable[Work], Collect], None]
    messages: tuple[str, ...]
    crashes: Callable[[], int]


@contextlib.contextmanager
def start(
    job: ConvertJob, plan: Plan, stop: threading.Event, *, in_process: bool, deadline: float, watch: Watch | None
) -> Iterator[Workers]:
    """Start workers and wait until their models are loaded; the end of the context ends them.

    Raises:
        UsageError: a model is missing, or the placement is impossible.
        DeviceMemoryError: the models do not fit on a device.
        WorkerLostError: a worker process crashed while it loaded the models.
    """
    if in_process and deadline != DEADLINE:
        raise UsageError(f"deadline {deadline:g} has no effect in one process, which nothing can end")
    if in_process:
        with captured():
            yield Workers(_in_process(job, stop, watch), ("placement: in this process",), lambda: 0)
        return
    with contextlib.ExitStack() as stack:
        placement, supervisor = _placed(job, plan, stop, stack, deadline, watch)
        message = f"placement {placement.name}: {placement.reason}"
        messages = (message,) if len(placement.specs) > 1 else ()
        yield Workers(partial(supervisor.run, stop=stop), messages, lambda: supervisor.crashes)


def _in_process(
    job: ConvertJob, stop: threading.Event, watch: Watch | None
) -> Callable[[Iterable[Work], Collect], None]:
    device = job.settings.places[0]
    runtime = job.open(WorkerSpec(device, device, (0, job.phases)))
    return lambda items, collect: run(
        items,
        runtime.stages,
        result_of,  # not the runtime's own: with all phases in one process, nothing is handed off
        collect,
        threads=runtime.threads,
        stop=stop,
        failures=FAILURES,
        watch=watch,
        worker=device,
    )


def _placed(
    job: ConvertJob,
    plan: Plan,
    stop: threading.Event,
    stack: contextlib.ExitStack,
    deadline: float,
    watch: Watch | None,
) -> tuple[DevicePlacement, Supervisor[Work, Result]]:
    """Start the workers of the requested placement; "auto" chooses it by the measured times."""
    devices, asked = plan.settings.places, plan.settings.placement
    # Without measured times, a split is chosen by the models' multiply-accumulates.
    guesses = [Cost(job.detector.gmac or 1.0, job.segmenter.gmac or 1.0)] * len(devices)

    def opened(placement: DevicePlacement, what: ConvertJob) -> tuple[Supervisor[Work, Result], list[dict[str, Any]]]:
        supervisor = Supervisor(what, placement.specs, quarantined, deadline=deadline, watch=watch)
        stack.enter_context(supervisor)
        return supervisor, supervisor.open(stop)

    if job.phases == 1 or len(devices) == 1:
        why = "one device" if len(devices) == 1 else "one model at most; each device does everything"
        if asked == "split":
            split(devices, guesses, "as requested")  # raises where there is one device
        placement = replicate(devices, job.phases, why)
        return placement, opened(placement, job)[0]
    if asked != "auto":
        placement = (
            split(devices, guesses, "as requested") if asked == "split" else replicate(devices, 2, "as requested")
        )
        return placement, opened(placement, job)[0]
    everywhere = replicate(devices, 2, "")
    try:
        supervisor, facts = opened(everywhere, replace(job, measure=True))
    except DeviceMemoryError as error:
        stack.close()
        placement = split(devices, guesses, f"both models do not fit on one device ({error})")
        return placement, opened(placement, job)[0]
    if stop.is_set():
        return everywhere, supervisor
    placement = best(devices, [Cost(fact["seconds"]["detect"], fact["seconds"]["encode"]) for fact in facts])
    if placement.name == "replicate":
        return placement, supervisor
    stack.close()
    return placement, opened(placement, job)[0]
