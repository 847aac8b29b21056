"""The workers of a run: whether every device does all phases (replicate) or some detect and others segment (split), how
many workers share a device, and how many threads each has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from fgfast.errors import UsageError
from fgfast.machine import available_cores
from fgfast.runner import WorkerSpec

# Phases of the job: up to the prompt, and from the prompt on.
DETECTING, SEGMENTING = (0, 1), (1, 2)

# The most threads of a worker's pool by default. The threads of a process share Python's lock (the GIL): decoding,
# resizing and encoding release it, and eight of them keep it busy with the rest.
MOST_THREADS = 8
# A device gets a second worker where the first would hold Python's lock this many times as long per image as the device
# computes, as many as the lock needs then, and at most this many; each needs this many times the memory of the first.
_MARGIN, _MOST_COPIES, _MEMORY = 1.1, 4, 1.1


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds per image of both models on one device.

    Attributes:
        detect: the detector's.
        segment: those of SAM's encoder and decoder.
    """

    detect: float
    segment: float


@dataclass(frozen=True, slots=True)
class Load:
    """What one worker needs of its GPU and of its process, as measured there.

    Attributes:
        held: seconds per image for which it holds Python's lock.
        computing: seconds per image for which the device computes.
        free, total: bytes of the device's memory once the models are loaded.
    """

    held: float
    computing: float
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class DevicePlacement:
    """The phases and the device of each worker.

    Attributes:
        name: "replicate" or "split".
        specs: the workers.
        reason: the reason for the choice, in a sentence.
    """

    name: str
    specs: tuple[WorkerSpec, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices that a job's workers are to run on.

    Attributes:
        places: their names; one that occurs twice has two workers.
        placement: "auto", "replicate" or "split"; see `fgfast.config.Settings`.
        workers_per_device: "auto", or a number.
        models: whether models run there, so that the number of workers may be chosen by measurement.
    """

    places: tuple[str, ...]
    placement: str = "auto"
    workers_per_device: str | int = "auto"
    models: bool = False


def replicate(devices: Sequence[str], phases: int, reason: str) -> DevicePlacement:
    """Let every device do all phases of the job."""
    return DevicePlacement("replicate", tuple(WorkerSpec(n, d, (0, phases)) for n, d in _named(devices)), reason)


def split(devices: Sequence[str], costs: Sequence[Cost], reason: str) -> DevicePlacement:
    """Let some devices detect and the others segment, in the split with the highest rate.

    Raises:
        UsageError: there is only one device.
    """
    if len(devices) < 2:
        raise UsageError(f"--placement split needs two devices or more, not only {', '.join(devices)}: see --devices")
    roles = max(_splits(len(devices)), key=lambda roles: _split_rate(roles, costs))
    specs = [
        WorkerSpec(name, device, DETECTING if detects else SEGMENTING)
        for (name, device), detects in zip(_named(devices), roles, strict=True)
    ]
    return DevicePlacement("split", tuple(specs), reason)


def best(devices: Sequence[str], costs: Sequence[Cost]) -> DevicePlacement:
    """Return the placement with the higher rate; its reason states the figures."""
    together = sum(1 / (cost.detect + cost.segment) for cost in costs)
    apart = max(_split_rate(roles, costs) for roles in _splits(len(devices)))
    figures = ", ".join(
        f"{device} detects in {_duration(cost.detect)} and segments in {_duration(cost.segment)} per image"
        for device, cost in dict(zip(devices, costs, strict=True)).items()
    )
    reason = f"{figures}; replicate would give {together:.3g} images per second, split {apart:.3g}"
    if together >= apart:
        return replicate(devices, 2, reason)
    return split(devices, costs, reason)


def pool_threads(cpu_threads: int | None, workers: int) -> int:
    """Return the threads of each worker's pool: its share of those asked for; or of the cores, at most MOST_THREADS.

    Raises:
        UsageError: fewer than one is asked for.
    """
    if cpu_threads is None:
        return max(1, min(MOST_THREADS, available_cores() // workers))
    if cpu_threads < 1:
        raise UsageError(f"cpu_threads must be at least 1, not {cpu_threads}")
    return max(1, cpu_threads // workers)


def asked(workers_per_device: str | int) -> int | None:
    """Return the number of workers that the setting asks for on each device; None where it is to be measured."""
    return None if workers_per_device == "auto" else int(workers_per_device)


def copies(load: Load, cores: int) -> tuple[int, str]:
    """Return the number of workers for a GPU, and the reason: more than one where Python's lock is the limit of one."""
    figures = (
        f"one holds Python's lock for {_duration(load.held)} per image, and the device computes "
        f"{_duration(load.computing)}"
    )
    if load.held <= _MARGIN * load.computing:
        return 1, figures
    wanted = min(_MOST_COPIES, math.ceil(load.held / load.computing))
    fitting = 1 + int(load.free / (_MEMORY * max(1, load.total - load.free)))
    limits = {f"{cores} cores": max(1, cores // 2), f"{load.free / 2**30:.1f} GiB of free memory": fitting}
    found = min(wanted, *limits.values())
    short = [name for name, most in limits.items() if most == found and most < wanted]
    return found, f"{figures}, but there are only {' and '.join(short)}" if short else figures


def repeated(placement: DevicePlacement, times: Mapping[str, int]) -> DevicePlacement:
    """Return the placement with as many workers for each of its workers as `times` says for its device."""
    more = [spec for spec in placement.specs for _ in range(times.get(spec.device, 1) - 1)]
    specs = [*placement.specs, *more]
    names = [name for name, _ in _named([spec.device for spec in specs])]
    specs = [replace(spec, name=name) for spec, name in zip(specs, names, strict=True)]
    return replace(placement, specs=tuple(specs))


def _splits(count: int) -> list[tuple[bool, ...]]:
    """Return every split into detecting (True) and segmenting devices; of more than eight, only the first n detect."""
    if count <= 8:
        return [roles for roles in product((True, False), repeat=count) if 0 < sum(roles) < count]
    return [tuple(n < first for n in range(count)) for first in range(1, count)]


def _split_rate(roles: Sequence[bool], costs: Sequence[Cost]) -> float:
    """Return images per second, which the slower of the two groups limits."""
    detecting = sum(1 / c.detect for c, detects in zip(costs, roles, strict=True) if detects)
    segmenting = sum(1 / c.segment for c, detects in zip(costs, roles, strict=True) if not detects)
    return min(detecting, segmenting)


def _named(devices: Sequence[str]) -> list[tuple[str, str]]:
    """Pair each device with a unique name: "cpu", "cpu#2"."""
    seen: Counter[str] = Counter()
    named = []
    for device in devices:
        seen[device] += 1
        named.append((device if seen[device] == 1 else f"{device}#{seen[device]}", device))
    return named


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
