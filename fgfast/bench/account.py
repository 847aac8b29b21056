"""Turns runs of a job into rows and the series of the roofline plot. Nothing here runs or measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from fgfast.bench import events
from fgfast.bench.job import Job, Ran
from fgfast.bench.result import Row
from fgfast.bench.roofline import Roof, gmac_of
from fgfast.records import Size


class Spent(NamedTuple):
    """The cost of a model's forward on its device.

    Attributes:
        model: "detic", "sam_vit_b", ...
        ms: milliseconds per image.
        batch: the mean number of images per batch.
        gmac: multiply-accumulates per image, in 1e9.
        floor_ms: the least milliseconds that they take on one device.
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
    """Return the rows of the whole job, with a round per run."""
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
    """Return the rows of each stage: milliseconds per image over all threads, images per batch, images waiting."""
    found: dict[str, list[events.Cost]] = {}
    for run in runs:
        for cost in events.costs(run.events):
            found.setdefault(cost.stage, []).append(cost)
    rows = []
    for stage, own in found.items():
        rows.append(Row.of(stage, [cost.ms for cost in own], "ms", "lower", "work per image"))
        if own[-1].pieces != own[-1].items:
            rows.append(Row.of(stage, [cost.items / cost.pieces for cost in own], "images", "", "images at once"))
        waiting = [cost.mean_waiting for cost in own]
        if any(waiting):
            rows.append(Row.of(stage, waiting, "images", "", "waiting for it, on average"))
    return rows


def of_devices(runs: Sequence[Ran]) -> list[Row]:
    """Return the rows of each worker: the percentage of the time in which its device computes a model."""
    shares: dict[str, list[float]] = {}
    for run in runs:
        for suffix, within in (("", None), (", once under way", events.steady(run.events))):
            for worker, share in events.busy(run.events, within).items():
                shares.setdefault(worker + suffix, []).append(100 * share)
    return [Row.of(name, values, "%", "higher", "device busy with models") for name, values in shares.items()]


def devices(ran: Ran) -> list[str]:
    """Return the devices that computed models, each once: the names of the workers without their numbers."""
    return sorted({worker.partition("#")[0] for worker in events.busy(ran.events)})


def spent(ran: Ran, what: Job, roofs: Sequence[Roof], sizes: Sequence[Size]) -> list[Spent]:
    """Return the cost of each model's forward beside its floor on the average device.

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
    """Return the rows of the arithmetic floor: each model's on its device, the job's on all devices."""
    group = "arithmetic floor"
    rows = []
    for roof in roofs:
        name = f"fastest product, {roof.device}, {roof.precision}"
        rows.append(Row(name, roof.flops / 1e9, "GFLOP/s", "higher", group))
    for own in models:
        rows.append(Row(f"{own.model}: multiply-accumulates", own.gmac, "GMAC", "", group))
        rows.append(Row(f"{own.model}: floor", own.floor_ms, "ms", "lower", group))
        rows.append(Row(f"{own.model}: forward", own.ms, "ms", "lower", group))
        rows.append(Row(f"{own.model}: forward / floor", own.ms / own.floor_ms, "times", "lower", group))
    if models:
        floor = sum(own.floor_ms for own in models) / len(roofs)
        rows.append(Row("all models: floor", floor, "ms", "lower", group))
        rows.append(Row("wall time / floor", 1e3 / ran.rate / floor, "times", "lower", group))
    return rows


def gaps(ran: Ran, models: Sequence[Spent]) -> list[Gap]:
    """Return what device time beyond the floor is spent on, the largest gap first."""
    workers = max(1, len(events.busy(ran.events)))
    found = [Gap(f"{own.model}'s forward", own.ms - own.floor_ms) for own in models]
    idle = events.outside_forward(ran.events) * workers * 1e3 / ran.rate
    found.append(Gap("devices that wait for the rest", idle))
    return sorted(found, key=lambda gap: -gap.ms)


def roofline(models: Sequence[Spent], roofs: Sequence[Roof], bytes_of: dict[str, float]) -> dict[str, Any]:
    """Return the series of the roofline plot: the roofs of the devices, and the points of the models and products.

    Args:
        models: the cost of each model's forward.
        roofs: the roof of each device.
        bytes_of: model -> the least bytes that it moves per image.
    """
    return {
        "precision": roofs[0].precision,
        "roofs": [{"device": r.device, "flops": r.flops, "bandwidth": r.bandwidth} for r in roofs],
        "models": [
            {"name": own.model, "intensity": 2e9 * own.gmac / bytes_of[own.model], "flops": 2e12 * own.gmac / own.ms}
            for own in models
        ],
        "products": [asdict(product) for product in roofs[0].products],
    }
