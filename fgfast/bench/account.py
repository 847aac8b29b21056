"""Turns runs of a job into rows and into the series of the roofline. Nothing here runs or measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from fgfast.bench import events
from fgfast.bench.job import Job, Ran
from fgfast.bench.result import Row
from fgfast.bench.roofline import Roof, gmac_of
from fgfast.records import Size


class Spent(NamedTuple):
    """What the forward of a model took on its device.

    Attributes:
        model: "detic", "sam_vit_b", ...
        ms: milliseconds per image.
        batch: the mean number of images per batch.
        gmac: multiply-accumulates per image, in 1e9.
        floor_ms: the milliseconds that they take at least on one device.
    """

    model: str
    ms: float
    batch: float
    gmac: float
    floor_ms: float


class Gap(NamedTuple):
    """Device time that the models' arithmetic does not need.

    Attributes:
        where: what the time is spent on, in words.
        ms: milliseconds per image.
    """

    where: str
    ms: float


def end_to_end(runs: Sequence[Ran]) -> list[Row]:
    """The rows of the whole job, with a round per run."""
    group = "end to end"
    rows = [
        Row.of("rate", [run.rate for run in runs], "images/s", "higher", group),
        Row.of("wall time per image", [1e3 / run.rate for run in runs], "ms", "lower", group),
    ]
    paces = [events.pace(run.events) for run in runs]
    if all(paces):
        rows.append(Row.of("rate once under way", paces, "images/s", "higher", group))
    rows.append(Row.of("start and end of the run", [run.seconds - run.wall for run in runs], "s", "lower", group))
    if all(events.has_models(run.events) for run in runs):
        whole = [100 * events.outside_forward(run.events) for run in runs]
        under_way = [100 * events.outside_forward(run.events, events.steady(run.events)) for run in runs]
        rows.append(Row.of("time outside the models' forward", whole, "%", "lower", group))
        rows.append(Row.of("the same, once under way", under_way, "%", "lower", group))
    if all(run.peak_mib for run in runs):
        rows.append(Row.of("peak memory, all processes", [run.peak_mib for run in runs], "MiB", "lower", group))
    for n in range(len(runs[-1].gpu_mib)):
        rows.append(Row.of(f"peak memory of GPU {n}", [run.gpu_mib[n] for run in runs], "MiB", "lower", group))
    return rows


def of_stages(runs: Sequence[Ran]) -> list[Row]:
    """The rows of each stage: milliseconds per image over all threads, images per batch, images that waited for it."""
    found: dict[str, list[events.Cost]] = {}
    for run in runs:
        for cost in events.costs(run.events):
            found.setdefault(cost.stage, []).append(cost)
    rows = [Row.of(stage, [c.ms for c in own], "ms", "lower", "work per image") for stage, own in found.items()]
    for stage, own in found.items():
        if own[-1].pieces != own[-1].items:
            together = [cost.items / cost.pieces for cost in own]
            rows.append(Row.of(stage, together, "images", "", "images at once"))
    for stage, own in found.items():
        if any(cost.most_waiting for cost in own):
            waiting = [cost.mean_waiting for cost in own]
            rows.append(Row.of(stage, waiting, "images", "", "waiting for it, on average"))
    return rows


def of_devices(runs: Sequence[Ran]) -> list[Row]:
    """The rows of each worker: the percentage of the time in which its device computes a model."""
    shares: dict[str, list[float]] = {}
    for run in runs:
        for worker, share in events.busy(run.events).items():
            shares.setdefault(worker, []).append(100 * share)
        for worker, share in events.busy(run.events, events.steady(run.events)).items():
            shares.setdefault(f"{worker}, once under way", []).append(100 * share)
    return [Row.of(name, values, "%", "higher", "device busy with models") for name, values in shares.items()]


def devices(ran: Ran) -> list[str]:
    """The devices that computed models, each once: the names of the workers without their numbers."""
    return sorted({worker.partition("#")[0] for worker in events.busy(ran.events)})


def spent(ran: Ran, what: Job, roofs: Sequence[Roof], sizes: Sequence[Size]) -> list[Spent]:
    """What the forward of each model took, beside its floor on the average device.

    Args:
        ran: the run.
        what: the job.
        roofs: the roof of each device.
        sizes: (height, width) of the stored images, in pixels.
    """
    stages = {what.detector: "detect", what.segmenter: "encode"}
    found = []
    for model in what.models:
        for cost in events.costs(ran.events):
            if cost.device and cost.stage == stages[model]:
                gmac = gmac_of(model, sizes)
                floor = statistics.fmean(roof.ms(gmac) for roof in roofs)
                found.append(Spent(model, cost.ms, cost.items / cost.pieces, gmac, floor))
    return found


def of_floor(ran: Ran, models: Sequence[Spent], roofs: Sequence[Roof]) -> list[Row]:
    """The rows of the arithmetic floor: each model against it on its device, the job against it on all devices."""
    rows = []
    for roof in roofs:
        name = f"fastest product, {roof.device}, {roof.precision}"
        rows.append(Row(name, roof.flops / 1e9, "GFLOP/s", "higher", "arithmetic floor"))
    for own in models:
        rows.append(Row(f"{own.model}: multiply-accumulates", own.gmac, "GMAC", "", "arithmetic floor"))
        rows.append(Row(f"{own.model}: floor", own.floor_ms, "ms", "lower", "arithmetic floor"))
        rows.append(Row(f"{own.model}: forward", own.ms, "ms", "lower", "arithmetic floor"))
        rows.append(Row(f"{own.model}: forward / floor", own.ms / own.floor_ms, "times", "lower", "arithmetic floor"))
    if models:
        floor = sum(own.floor_ms for own in models) / len(roofs)
        rows.append(Row("all models: floor", floor, "ms", "lower", "arithmetic floor"))
        rows.append(Row("wall time / floor", 1e3 / ran.rate / floor, "times", "lower", "arithmetic floor"))
    return rows


def gaps(ran: Ran, models: Sequence[Spent]) -> list[Gap]:
    """What device time beyond the floor is spent on, the largest gap first."""
    workers = max(1, len(events.busy(ran.events)))
    found = [Gap(f"{own.model}'s forward", own.ms - own.floor_ms) for own in models]
    idle = events.outside_forward(ran.events) * workers * 1e3 / ran.rate
    found.append(Gap("devices that wait for the rest", idle))
    return sorted(found, key=lambda gap: -gap.ms)


def roofline(models: Sequence[Spent], roofs: Sequence[Roof], bytes_of: dict[str, float]) -> dict[str, Any]:
    """The series of the roofline: the roofs of the devices, and where the models and the products lie.

    Args:
        models: what the forward of each took.
        roofs: the roof of each device.
        bytes_of: model -> the bytes that it moves at least per image.
    """
    points = [
        {"name": own.model, "intensity": 2e9 * own.gmac / bytes_of[own.model], "flops": 2e12 * own.gmac / own.ms}
        for own in models
    ]
    return {
        "precision": roofs[0].precision,
        "roofs": [{"device": r.device, "flops": r.flops, "bandwidth": r.bandwidth} for r in roofs],
        "models": points,
        "products": [
            {"name": p.name, "intensity": p.intensity, "flops": p.flops} for r in roofs[:1] for p in r.products
        ],
    }
