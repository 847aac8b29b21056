"""What runs of a job amount to, as rows and as series for plots. Nothing here runs or measures anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from fgfast.bench import events as told
from fgfast.bench.floors import Roof, gmac_of
from fgfast.bench.job import Job, Ran
from fgfast.bench.result import Row

# Of a timeline: finer pieces than a pixel cannot be seen.
_PIXELS = 1100
# The second timeline shows so many forwards of each device, or so many seconds of a run without models.
_FORWARDS, _MOMENT = 6, 0.1


class Spent(NamedTuple):
    """What a model took on its device.

    Attributes:
        model: "detic", "sam_vit_b", ...
        ms: milliseconds of forward per image.
        batch: images at once, on average.
        gmac: multiply-accumulates per image, in 1e9.
        floor_ms: the least that they take on one device.
    """

    model: str
    ms: float
    batch: float
    gmac: float
    floor_ms: float


class Gap(NamedTuple):
    """Device time per image that is not the models' arithmetic: where, and how many milliseconds."""

    where: str
    ms: float


def end_to_end(runs: Sequence[Ran]) -> list[Row]:
    """Of the whole job, a figure a run."""
    group = "end to end"
    rows = [
        Row.of("rate", [run.rate for run in runs], "images/s", "higher", group),
        Row.of("wall time per image", [1e3 / run.rate for run in runs], "ms", "lower", group),
    ]
    paces = [told.pace(run.events) for run in runs]
    if all(paces):
        rows.append(Row.of("rate once under way", paces, "images/s", "higher", group))
    rows.append(Row.of("start and end of the run", [run.seconds - run.wall for run in runs], "s", "lower", group))
    if all(told.has_models(run.events) for run in runs):
        whole = [100 * told.outside_forward(run.events) for run in runs]
        under_way = [100 * told.outside_forward(run.events, told.steady(run.events)) for run in runs]
        rows.append(Row.of("time outside the models' forward", whole, "%", "lower", group))
        rows.append(Row.of("the same, once under way", under_way, "%", "lower", group))
    if all(run.peak_mib for run in runs):
        rows.append(Row.of("peak memory, all processes", [run.peak_mib for run in runs], "MiB", "lower", group))
    for n in range(len(runs[-1].gpu_mib)):
        rows.append(Row.of(f"peak memory of GPU {n}", [run.gpu_mib[n] for run in runs], "MiB", "lower", group))
    return rows


def of_stages(runs: Sequence[Ran]) -> list[Row]:
    """Milliseconds per image of each stage, of whichever threads did it; and how many images waited for it."""
    found: dict[str, list[told.Cost]] = {}
    for run in runs:
        for cost in told.costs(run.events):
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
    """The part of the time in which each device computes a model."""
    shares: dict[str, list[float]] = {}
    for run in runs:
        for seat, share in told.busy(run.events).items():
            shares.setdefault(seat, []).append(100 * share)
        for seat, share in told.busy(run.events, told.steady(run.events)).items():
            shares.setdefault(f"{seat}, once under way", []).append(100 * share)
    return [Row.of(name, values, "%", "higher", "device busy with models") for name, values in shares.items()]


def devices(ran: Ran) -> list[str]:
    """The devices that computed models, each once: seats without their numbers."""
    return sorted({seat.partition("#")[0] for seat in told.busy(ran.events)})


def spent(ran: Ran, what: Job, roofs: Sequence[Roof], sizes: Sequence[tuple[int, int]]) -> list[Spent]:
    """What each model took, beside its floor on the average device.

    Args:
        ran: the run.
        what: the job.
        roofs: of the devices.
        sizes: (height, width) of the stored images, in pixels.
    """
    stages = {what.detector: "detect", what.segmenter: "encode"}
    found = []
    for model in what.models:
        for cost in told.costs(ran.events):
            if cost.device and cost.stage == stages[model]:
                gmac = gmac_of(model, sizes)
                floor = statistics.fmean(roof.ms(gmac) for roof in roofs)
                found.append(Spent(model, cost.ms, cost.items / cost.pieces, gmac, floor))
    return found


def of_floor(ran: Ran, models: Sequence[Spent], roofs: Sequence[Roof]) -> list[Row]:
    """Cost against the arithmetic floor: of each model on its device, and of the whole job on all devices."""
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
    """Where device time goes beyond the floor, largest first."""
    seats = max(1, len(told.busy(ran.events)))
    found = [Gap(f"{own.model}'s forward", own.ms - own.floor_ms) for own in models]
    idle = told.outside_forward(ran.events) * seats * 1e3 / ran.rate
    found.append(Gap("devices that wait for the rest", idle))
    return sorted(found, key=lambda gap: -gap.ms)


def plots(ran: Ran) -> dict[str, Any]:
    """Series for the page: timelines of the whole run and of a moment of it, queues, costs of stages."""
    first, last = told.span(ran.events)
    if last <= first:
        return {}
    timelines = [_timeline("The whole run", ran, (0.0, last - first))]
    moment = _moment(ran)
    if moment[1] - moment[0] < 0.6 * (last - first):
        timelines.append(_timeline("A moment from its middle", ran, moment))
    waiting = {stage: steps for stage, steps in told.depths(ran.events).items() if any(n for _, n in steps)}
    costs = [asdict(cost) | {"ms": cost.ms} for cost in told.costs(ran.events)]
    return {"timelines": timelines, "queues": {"seconds": last - first, "waiting": waiting}, "stages": costs}


def _timeline(title: str, ran: Ran, within: told.Interval) -> dict[str, Any]:
    finest = (within[1] - within[0]) / _PIXELS
    lanes = [
        {"name": f"{lane.seat or 'parent'} {lane.thread}".strip(), "spans": lane.spans}
        for lane in told.lanes(ran.events, within, finest)
    ]
    return {"title": title, "within": within, "lanes": lanes}


def _moment(ran: Ran) -> told.Interval:
    """Some forwards from the middle of the run, in seconds from the first event."""
    first, last = told.span(ran.events)
    middle = (last - first) / 2
    forwards = sorted(
        (e for e in ran.events if told.is_forward(e)), key=lambda e: abs((e.start + e.end) / 2 - first - middle)
    )
    seats = len({e.seat for e in forwards})
    some = forwards[: _FORWARDS * seats]
    if not some:
        return max(0.0, middle - _MOMENT / 2), min(last - first, middle + _MOMENT / 2)
    low, high = told.span(some)
    return low - first, high - first


def roofline(models: Sequence[Spent], roofs: Sequence[Roof], bytes_of: dict[str, float]) -> dict[str, Any]:
    """Series for a roofline: what devices give, and where models and products lie.

    Args:
        models: what they took.
        roofs: of the devices.
        bytes_of: model -> bytes that an image moves at least.
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
