"""Who does the work of a plan: worker processes on their seats, or this very process; and which decoder they use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fgfast.config import DecoderName
from fgfast.errors import DeviceMemoryError
from fgfast.io.decoders import ON_GPU, available
from fgfast.io.output import Mode, Output
from fgfast.pipeline.decoder_choice import GateJob, Trial, sample_of
from fgfast.pipeline.job import FAILURES, ConvertJob
from fgfast.pipeline.placement import Cost, Placement, best, replicate, split
from fgfast.pipeline.plan import Plan
from fgfast.pipeline.stages import Closed, Work, given_up
from fgfast.runner import Passed, Seat, Supervisor, Watch, run

Collect = Callable[[list[Closed]], None]


@dataclass(frozen=True, slots=True)
class Crew:
    """Those who work.

    Attributes:
        work: has all work done, and hands what is closed to the collector, in the calling thread.
        said: sentences about who does what.
        deaths: how many workers have died so far; what they had begun to write lies about.
    """

    work: Callable[[Iterable[Work], Collect], None]
    said: tuple[str, ...]
    deaths: Callable[[], int]


# SAM's arithmetic and Detic's on an image of 4:3, in 10^9 multiply-accumulates (DESIGN.md, Floors): how a split shares
# out devices that nobody has timed.
_ARITHMETIC = {"sam_vit_b": 486, "sam_vit_l": 1493, "sam_vit_h": 2981}
_DETECTING = 340


@contextlib.contextmanager
def hire(
    job: ConvertJob,
    plan: Plan,
    stop: threading.Event,
    *,
    in_process: bool,
    deadline: float,
    watch: Watch | None,
) -> Iterator[Crew]:
    """A crew that is ready to work, its models loaded.

    Raises:
        UsageError: a model is missing, or the placement is not possible.
        DeviceMemoryError: the models do not fit on a device.
        WorkerLostError: a worker process died while it loaded them.
    """
    if in_process:
        yield Crew(_in_process(job, stop, watch), ("placement: in this process",), lambda: 0)
        return
    with contextlib.ExitStack() as stack:
        placement, supervisor = _open(job, plan, stop, stack, deadline, watch)
        # One device leaves nothing to say.
        told = (f"placement {placement.name}: {placement.reason}",) if len(placement.seats) > 1 else ()
        work = partial(supervisor.run, stop=stop)
        yield Crew(work, told, lambda: supervisor.deaths)


def _in_process(
    job: ConvertJob, stop: threading.Event, watch: Watch | None
) -> Callable[[Iterable[Work], Collect], None]:
    device = job.settings.places[0]
    opened = job.open(Seat(device, device, (0, job.parts)))

    def close(finished: Any) -> Closed:
        closed = opened.close(finished)
        assert not isinstance(closed, Passed)
        return closed

    return lambda items, collect: run(
        items,
        opened.stages,
        close,
        collect,
        workers=opened.threads,
        stop=stop,
        failures=FAILURES,
        watch=watch,
        seat=device,
    )


def _open(
    job: ConvertJob,
    plan: Plan,
    stop: threading.Event,
    stack: contextlib.ExitStack,
    deadline: float,
    watch: Watch | None,
) -> tuple[Placement, Supervisor[Work, Closed]]:
    """The placement that the settings ask for, opened; with "auto" the one that the measured times ask for."""
    devices, asked = plan.settings.places, plan.settings.placement
    guesses = [Cost(_DETECTING, _ARITHMETIC.get(plan.settings.segmenter, 1.0))] * len(devices)

    def opened(placement: Placement, what: ConvertJob) -> tuple[Supervisor[Work, Closed], list[dict[str, Any]]]:
        supervisor = Supervisor(what, placement.seats, given_up, deadline=deadline, watch=watch)
        stack.enter_context(supervisor)
        return supervisor, supervisor.open(stop)

    if job.parts == 1 or len(devices) == 1:
        why = "one device" if len(devices) == 1 else "one model at most; each device does everything"
        if asked == "split":
            split(devices, guesses, "as asked")  # raises where there is one device
        placement = replicate(devices, job.parts, why)
        return placement, opened(placement, job)[0]
    if asked == "split":
        placement = split(devices, guesses, "as asked")
        return placement, opened(placement, job)[0]
    if asked == "replicate":
        placement = replicate(devices, 2, "as asked")
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
    costs = [Cost(fact["seconds"]["detect"], fact["seconds"]["encode"]) for fact in facts]
    placement = best(devices, costs)
    if placement.name == "replicate":
        return placement, supervisor
    stack.close()
    return placement, opened(placement, job)[0]


def settle_decoder(
    plan: Plan,
    output: Output,
    mode: Mode,
    stop: threading.Event,
    *,
    in_process: bool,
    deadline: float,
    say: Callable[[str], None],
) -> Plan:
    """A plan whose decoder is chosen: that of the run that is gone on with, else the fastest on this data set whose
    pixels give the same masks.
    """
    if plan.settings.decoder != "auto":
        return plan
    device = next(device for device in plan.settings.places if available(device)[0] in ON_GPU)
    before = None if mode == "overwrite" else output.recorded()
    if before is not None and before.get("decoder") in available(device):
        name, reason = before["decoder"], "as in the run that is gone on with"
    else:
        trial = Trial(sample_of(plan.selected))
        name, reason = _tried(GateJob.of(plan), trial, Seat(device, device), stop, in_process, deadline)
    reason = f"decoder {name}: {reason}"
    say(reason)
    return replace(
        plan,
        settings=replace(plan.settings, decoder=name),
        reasons=(*plan.reasons, reason),
        fingerprint={**plan.fingerprint, "decoder": name},
    )


def _tried(
    job: GateJob, trial: Trial, seat: Seat, stop: threading.Event, in_process: bool, deadline: float
) -> tuple[DecoderName, str]:
    """The outcome of a trial: in a worker process, which takes the GPU's memory with it when it ends."""
    found: list[tuple[DecoderName, str]] = []
    if in_process:
        opened = job.open(seat)
        run([trial], opened.stages, opened.close, found.extend, workers=1, stop=stop)
    else:
        supervisor: Supervisor[Trial, tuple[DecoderName, str]]
        with Supervisor(job, [seat], lambda lost, reason, detail: ("cpu", detail), deadline=deadline) as supervisor:
            supervisor.open(stop)
            supervisor.run([trial], found.extend, stop)
    return found[0] if found else ("cpu", "stopped before any was tried")
