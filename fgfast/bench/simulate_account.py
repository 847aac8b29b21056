"""Derives the figures of a simulated run from its traces: rate, idle devices, CPU of parent and runner, the bound.

All functions are pure.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgfast.bench.events import Interval, union
from fgfast.bench.simulate_clock import Cost
from fgfast.bench.simulate_job import STEPS, TracedResult

# The parts of a run that do not count: the queues fill at its beginning, and drain at its end.
FIRST, LAST = 0.2, 0.15
# The share of its time from which a resource bounds the rate, and the idle share below which a device does.
_BOUND, _BUSY = 0.85, 0.05


@dataclass(frozen=True, slots=True)
class Collected:
    """The state of the parent process when it had recorded some results.

    Attributes:
        at: time.monotonic().
        cpu: the CPU seconds of its process so far.
        images: the number of results so far.
    """

    at: float
    cpu: float
    images: int


@dataclass(frozen=True, slots=True)
class Setup:
    """The machine that is simulated.

    Attributes:
        cores: cores for all processes; this machine's where the CPU's work was real.
        threads: of each worker's pool.
        workers: the workers, each with a device of its own, in order.
        slow_down: the factor by which every simulated time was multiplied.
        costs: what each step costs, before that; empty where it was real.
        runner: the CPU seconds per image of the workers' runner itself, and those of the parent, before that.
    """

    cores: int
    threads: int
    workers: tuple[str, ...]
    slow_down: float
    costs: Mapping[str, Cost]
    runner: float = 0.0
    parent: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a run, once it is under way, without the slow-down.

    Attributes:
        rate: images per second.
        idle: worker -> the share of the time in which its device computes nothing.
        parent: CPU seconds of the parent per image.
        worker: CPU seconds of the workers per image: in a simulation the runner's own, else also the steps'.
        shares: resource -> the share of its time for which it was taken.
        waited: seconds per image for which steps waited for a core.
        seconds: how long the run was looked at.
    """

    rate: float
    idle: Mapping[str, float]
    parent: float
    worker: float
    shares: Mapping[str, float]
    waited: float
    seconds: float

    @property
    def bound(self) -> str:
        """What bounds the rate, in words."""
        name, share = max(self.shares.items(), key=lambda item: item[1])
        if self.shares["devices"] >= 1 - _BUSY:
            return "devices"
        if share >= _BOUND:
            return name
        return f"nothing is taken all the time; most of all {name}, {share:.0%}"


def figures(results: Sequence[TracedResult], collected: Sequence[Collected], setup: Setup) -> Figures:
    """Return the figures of a run.

    Args:
        results: of all images.
        collected: the parent, each time it had recorded results.
        setup: what was simulated.

    Raises:
        ValueError: the run was too short.
    """
    done = sorted(result.trace.cpu[-1][1] for result in results)
    first, last = done[0], done[-1]
    within = first + FIRST * (last - first), last - LAST * (last - first)
    inside = [at for at in done if within[0] < at <= within[1]]
    if len(inside) < 2 or inside[0] == inside[-1]:
        raise ValueError(f"{len(results)} images are too few to see a rate: simulate more of them")
    parent, worker = _parent(collected, within), _workers(results, within)
    # The slope of a line: images come in batches, and where the first and the last batch falls would be chance.
    rate = statistics.linear_regression(inside, range(len(inside))).slope
    idle = _idle(results, within, setup.workers)
    waited = sum(result.trace.waited for result in results) / len(results)
    shares = _shares(setup, rate, idle, parent, sum(worker.values()) / rate, waited)
    return Figures(
        rate=rate * setup.slow_down,
        idle=idle,
        parent=parent,
        worker=sum(worker.values()) / rate,
        shares=shares,
        waited=waited / setup.slow_down,
        seconds=within[1] - within[0],
    )


def step_seconds(results: Sequence[TracedResult]) -> dict[str, float]:
    """Return the mean CPU seconds of each step in a run of one worker whose work was real, once it was under way."""
    steps = sorted(
        (result.trace.steps for result in results), key=lambda sums: sum(times for _, times in sums.values())
    )
    before, after = (steps[round(share * (len(steps) - 1))] for share in (FIRST, 1 - LAST))
    return {name: (after[name][0] - before[name][0]) / (after[name][1] - before[name][1]) for name in STEPS}


def _parent(collected: Sequence[Collected], within: Interval) -> float:
    """Return the parent's CPU seconds per image between the first and the last time it recorded results."""
    inside = [one for one in collected if within[0] <= one.at <= within[1]]
    inside = inside if len(inside) > 1 else list(collected)
    first, last = inside[0], inside[-1]
    return (last.cpu - first.cpu) / max(1, last.images - first.images)


def _workers(results: Sequence[TracedResult], within: Interval) -> dict[str, float]:
    """Return worker -> the CPU seconds that its process takes per second."""
    seen = defaultdict(list)
    for result in results:
        for worker, at, cpu in result.trace.cpu:
            if within[0] <= at <= within[1]:
                seen[worker].append((at, cpu))
    ends = {worker: (min(states), max(states)) for worker, states in seen.items() if len(states) > 1}
    return {worker: (b[1] - a[1]) / (b[0] - a[0]) for worker, (a, b) in ends.items() if b[0] > a[0]}


def _idle(results: Sequence[TracedResult], within: Interval, workers: Sequence[str]) -> dict[str, float]:
    """Return worker -> the share of the time in which its device computes nothing."""
    spans = defaultdict(set)
    for result in results:
        for worker, start, end in result.trace.spans:
            spans[worker].add((max(start, within[0]), min(end, within[1])))
    length = within[1] - within[0]
    busy = {
        worker: sum(end - start for start, end in union(span for span in spans[worker] if span[1] > span[0]))
        for worker in workers
    }
    return {worker: 1 - busy[worker] / length for worker in workers}


def _shares(
    setup: Setup, rate: float, idle: Mapping[str, float], parent: float, worker: float, waited: float
) -> dict[str, float]:
    """Return resource -> the share of its time for which it was taken.

    Args:
        setup: what was simulated.
        rate: images per second, as they came.
        idle: share of each device.
        parent, worker: CPU seconds per image.
        waited: seconds per image for which steps waited for a core.
    """
    # In split, one device may have to wait for the other: the busier one bounds.
    shares = {"devices": 1 - min(idle.values()), "the parent process": parent * rate * setup.slow_down}
    if setup.costs:
        cpu, held = (sum(getattr(setup.costs[step], part) for step in STEPS) for part in ("cpu", "held"))
        everything = (cpu + setup.runner + setup.parent) * setup.slow_down
        shares["cores"] = everything * rate / setup.cores
        shares["the workers' GIL"] = (held + setup.runner) * setup.slow_down * rate / len(setup.workers)
        pool = (cpu + setup.runner) * setup.slow_down + waited
        shares["the threads of the pools"] = pool * rate / (setup.threads * len(setup.workers))
    else:
        shares["cores"] = (parent + worker) * rate / setup.cores
    return shares
