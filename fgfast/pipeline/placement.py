"""Which device does what: the workers of a run, and the arithmetic that chooses between the two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from fgfast.errors import UsageError
from fgfast.runner import WorkerSpec

# Phases of the job: up to the prompt, and from there.
DETECTING, SEGMENTING = (0, 1), (1, 2)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds per image of both models on one device.

    Attributes:
        detect: of the detector.
        segment: of SAM's encoder and decoder.
    """

    detect: float
    segment: float


@dataclass(frozen=True, slots=True)
class DevicePlacement:
    """Which worker does which phases where.

    Attributes:
        name: "replicate" or "split".
        specs: the workers.
        reason: why, in a sentence.
    """

    name: str
    specs: tuple[WorkerSpec, ...]
    reason: str


def replicate(devices: Sequence[str], phases: int, reason: str) -> DevicePlacement:
    """Every device does all phases of the job."""
    return DevicePlacement("replicate", tuple(WorkerSpec(n, d, (0, phases)) for n, d in _named(devices)), reason)


def split(devices: Sequence[str], costs: Sequence[Cost], reason: str) -> DevicePlacement:
    """Some devices detect and the others segment, so that the rate is highest.

    Raises:
        UsageError: there is one device only.
    """
    if len(devices) < 2:
        raise UsageError(
            f"--placement split needs two devices or more, and there is {', '.join(devices)}: see --devices"
        )
    roles = max(_splits(len(devices)), key=lambda roles: _split_rate(roles, costs))
    specs = [
        WorkerSpec(name, device, DETECTING if detects else SEGMENTING)
        for (name, device), detects in zip(_named(devices), roles, strict=True)
    ]
    return DevicePlacement("split", tuple(specs), reason)


def best(devices: Sequence[str], costs: Sequence[Cost]) -> DevicePlacement:
    """The placement of the higher rate, and the figures that say so."""
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
    """Every way of letting some detect and the others segment. Beyond eight devices, of those in a row only."""
    if count <= 8:
        return [roles for roles in product((True, False), repeat=count) if 0 < sum(roles) < count]
    return [tuple(n < first for n in range(count)) for first in range(1, count)]


def _split_rate(roles: Sequence[bool], costs: Sequence[Cost]) -> float:
    """Images a second: of the two kinds the slower."""
    detecting = sum(1 / c.detect for c, detects in zip(costs, roles, strict=True) if detects)
    segmenting = sum(1 / c.segment for c, detects in zip(costs, roles, strict=True) if not detects)
    return min(detecting, segmenting)


def _named(devices: Sequence[str]) -> list[tuple[str, str]]:
    """A unique name for each: "cpu", "cpu#2"."""
    seen: Counter[str] = Counter()
    named = []
    for device in devices:
        seen[device] += 1
        named.append((device if seen[device] == 1 else f"{device}#{seen[device]}", device))
    return named


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
