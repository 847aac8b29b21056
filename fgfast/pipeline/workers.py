"""The workers of a job: worker processes on devices, or this process."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from fgfast.errors import DeviceMemoryError, UsageError, WorkerLostError
from fgfast.io.warned import captured
from fgfast.machine import available_cores
from fgfast.pipeline.placement import (
    Cost,
    DevicePlacement,
    Devices,
    Load,
    asked,
    best,
    copies,
    repeated,
    replicate,
    split,
)
from fgfast.pipeline.work import FAILURES, Result, Work, quarantined, result_of
from fgfast.runner import DEADLINE, JobRuntime, Supervisor, Watch, WorkerSpec, run

Collect = Callable[[list[Result]], None]


class WorkJob(Protocol):
    """A job whose items are `Work`s: a frozen dataclass, pickled and opened in each worker process.

    Attributes:
        phases: the number of its phases.
        threads: number of threads in each worker's pool.
        measure: whether to time the models when the job is opened.
        cost: what an image costs on a device, as guessed without measuring.
    """

    @property
    def phases(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def measure(self) -> bool: ...

    @property
    def cost(self) -> Cost: ...

    def open(self, spec: WorkerSpec, /) -> JobRuntime[Work, Result]: ...


J = TypeVar("J", bound=WorkJob)


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are ready.

    Attributes:
        work: processes all works, and passes results to the collector in the calling thread.
        messages: sentences about the placement, and about the number of workers.
        crashes: counts the worker processes that have crashed so far; they may leave temporary files behind.
        threads: number of threads in all pools.
    """

    work: Callable[[Iterable[Work], Collect], None]
    messages: tuple[str, ...]
    crashes: Callable[[], int]
    threads: int


@contextlib.contextmanager
def start(
    job: WorkJob, devices: Devices, stop: threading.Event, *, in_process: bool, deadline: float, watch: Watch | None
) -> Iterator[Workers]:
    """Start workers and wait until their models are loaded; the end of the context ends them.

    Raises:
        UsageError: a model is missing, or the placement is impossible.
        DeviceMemoryError: the models do not fit on a device.
        WorkerLostError: a worker process crashed while it loaded the models.
    """
    if in_process and deadline != DEADLINE:
        raise UsageError(f"deadline {deadline:g} has no effect in one process, which nothing can end")
    if in_process and (asked(devices.workers_per_device) or 1) > 1:
        raise UsageError(f"workers-per-device {devices.workers_per_device} has no effect in one process")
    if in_process:
        with captured():
            work, chosen = _in_process(job, devices.places[0], stop, watch)
            yield Workers(work, ("placement: in this process", *chosen), lambda: 0, job.threads)
        return
    with contextlib.ExitStack() as stack:
        opening = _Opening(job, devices, stop, stack, deadline, watch)
        placement, supervisor, facts = _placed(opening)
        messages = [f"placement {placement.name}: {placement.reason}"] if len(placement.specs) > 1 else []
        if (count := asked(devices.workers_per_device)) is not None:
            messages.append(f"workers per device: {count}, as requested")
        threads = job.threads * len(placement.specs)
        placement, more, why = _with_more(opening, placement, supervisor, facts)
        messages += dict.fromkeys(sentence for fact in facts for sentence in fact.get("chosen", ()))
        yield Workers(partial(supervisor.run, stop=stop), (*messages, *why), lambda: supervisor.crashes, threads + more)


def _in_process(
    job: WorkJob, device: str, stop: threading.Event, watch: Watch | None
) -> tuple[Callable[[Iterable[Work], Collect], None], list[str]]:
    runtime = job.open(WorkerSpec(device, device, (0, job.phases)))
    work = partial(
        run,
        threads=runtime.threads,
        stop=stop,
        failures=FAILURES,
        watch=watch,
        worker=device,
    )
    # Not the runtime's own result: with all phases in one process, nothing is handed off.
    return lambda items, collect: work(items, runtime.stages, result_of, collect), runtime.facts["chosen"]


@dataclass(frozen=True, slots=True)
class _Opening:
    """What it takes to start workers; `stack` ends them."""

    job: WorkJob
    devices: Devices
    stop: threading.Event
    stack: contextlib.ExitStack
    deadline: float
    watch: Watch | None

    def open(
        self, placement: DevicePlacement, measure: bool = False
    ) -> tuple[Supervisor[Work, Result], list[dict[str, Any]]]:
        """Start the workers of a placement; return them and their facts."""
        job = _with(self.job, measure=True) if measure else self.job
        supervisor = Supervisor(job, placement.specs, quarantined, deadline=self.deadline, watch=self.watch)
        self.stack.enter_context(supervisor)
        return supervisor, supervisor.open(self.stop)

    @property
    def times(self) -> dict[str, int]:
        """Device -> number of workers per entry of the list of devices, where it is asked for."""
        return dict.fromkeys(self.devices.places, asked(self.devices.workers_per_device) or 1)


def _with(job: J, **changes: Any) -> J:
    """Return a job with other values."""
    changed: J = replace(job, **changes)  # type: ignore[type-var]  # every job is a dataclass; a protocol cannot say it
    return changed


Placed = tuple[DevicePlacement, Supervisor[Work, Result], list[dict[str, Any]]]


def _placed(opening: _Opening) -> Placed:
    """Start the workers of the requested placement; "auto" chooses it by the measured times."""
    job, devices, wanted = opening.job, opening.devices.places, opening.devices.placement
    # Without measured times, a split is chosen by the models' multiply-accumulates.
    guesses = [job.cost] * len(devices)
    if job.phases == 1 or len(devices) == 1:
        why = "one device" if len(devices) == 1 else "one model at most; each device does everything"
        if wanted == "split":
            split(devices, guesses, "as requested")  # raises where there is one device
        placement = replicate(devices, job.phases, why)
    elif wanted == "auto":
        return _faster(opening, guesses)
    else:
        way = split(devices, guesses, "as requested") if wanted == "split" else replicate(devices, 2, "as requested")
        placement = way
    placement = repeated(placement, opening.times)
    return placement, *opening.open(placement, measure=placement.name == "replicate" and _may_grow(opening.devices))


def _faster(opening: _Opening, guesses: Sequence[Cost]) -> Placed:
    """Start the workers of the faster placement, as measured."""
    devices = opening.devices.places
    everywhere = replicate(devices, 2, "")
    try:
        supervisor, facts = opening.open(everywhere, measure=True)
    except DeviceMemoryError as error:
        opening.stack.close()
        placement = split(devices, guesses, f"both models do not fit on one device ({error})")
    else:
        if opening.stop.is_set():
            return everywhere, supervisor, []
        placement = best(devices, [Cost(fact["seconds"]["detect"], fact["seconds"]["encode"]) for fact in facts])
        if placement.name == "replicate":
            return placement, supervisor, facts
        opening.stack.close()
    placement = repeated(placement, opening.times)
    return placement, *opening.open(placement)


def _may_grow(devices: Devices) -> bool:
    """Whether the number of workers on a device is to be chosen by measurement: where models run on a GPU."""
    on_gpu = any(device.startswith("cuda") for device in devices.places)
    return asked(devices.workers_per_device) is None and on_gpu and devices.models


def _with_more(
    opening: _Opening, placement: DevicePlacement, supervisor: Supervisor[Work, Result], facts: list[dict[str, Any]]
) -> tuple[DevicePlacement, int, list[str]]:
    """Start further workers where one cannot keep its device busy, or where they were asked for and are not there yet.

    Returns:
        The placement, the number of threads in the new workers' pools, and sentences about the choice.
    """
    times, why = opening.times, list[str]()
    if _may_grow(opening.devices) and not opening.stop.is_set():
        if placement.name == "split":
            return placement, 0, ["workers per device: 1, because the models are split"]
        times, why = _measured(placement, facts)
    present = Counter(spec.device for spec in placement.specs)
    if all(times[device] * count == present[device] for device, count in Counter(opening.devices.places).items()):
        return placement, 0, why
    larger = repeated(placement, times)
    new = larger.specs[len(placement.specs) :]
    threads = max(1, min(opening.job.threads, available_cores() // len(larger.specs)))
    try:
        supervisor.add(_with(opening.job, threads=threads), new, opening.stop)
    except (DeviceMemoryError, WorkerLostError) as error:
        if not _may_grow(opening.devices):
            raise  # so many were asked for
        return placement, 0, [*why, f"workers per device: 1 after all, because no more could be started ({error})"]
    return larger, threads * len(new), why


def _measured(placement: DevicePlacement, facts: list[dict[str, Any]]) -> tuple[dict[str, int], list[str]]:
    """Return device -> number of workers, by the facts that the workers reported, and a sentence per device."""
    times, why = {}, []
    for spec, fact in zip(placement.specs, facts, strict=True):
        found, reason = 1, f"what Python's lock costs is not known: {fact.get('not_held')}"
        if not spec.device.startswith("cuda"):
            found, reason = 1, "a CPU computes in the worker itself"
        elif "held" in fact:
            load = Load(fact["held"], sum(fact["seconds"].values()), *fact["memory"])
            found, reason = copies(load, available_cores())
        if spec.device not in times:
            why.append(f"workers per device on {spec.device}: {found}; {reason}")
        times[spec.device] = found
    return times, why
