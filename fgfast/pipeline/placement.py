"""The workers of a run: whether every device does all phases (replicate) or some detect and others segment (split)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from fgfast.errors import UsageError
from fgfast.runner import WorkerSpec

# Phases of the job: up to the prompt, and from the prompt on.
DETECTING, SEGMENTING = (0, 1), (1, 2)


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
