"""Simulates the runner on devices and cores that this machine lacks: models sleep, and so does the work on the CPU.

The supervisor, its workers, their flows and threads, the ledger and the commit of files are the real ones. What a
device would compute is time asleep; what a step costs on the CPU was measured on this machine, and is time asleep with
the token of a core and, for a part of it, with the worker's GIL. `real_stages` leaves only the models asleep, and so
measures what the simulation predicts.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from fgfast.bench import floors, simulate_images
from fgfast.bench.simulate_account import FIRST, LAST, Collected, Figures, Setup, figures, step_seconds
from fgfast.bench.simulate_clock import CoreTokens, Cost
from fgfast.bench.simulate_costs import measure as measure_held
from fgfast.bench.simulate_job import STEPS, Simulated, SimulatedJob, TracedResult, TracedWork
from fgfast.bench.simulate_models import most_in_flight
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.errors import UsageError
from fgfast.io.output import Output
from fgfast.io.portable_paths import PortablePaths
from fgfast.machine import available_cores
from fgfast.pipeline.placement import Cost as DeviceCost
from fgfast.pipeline.placement import replicate, split
from fgfast.pipeline.work import Result, Work, quarantined, record
from fgfast.records import Sample
from fgfast.runner import Supervisor, WorkerSpec, run_item
from fgfast.writing import Target, TempFiles, remove_tree, scratch_folder

# Different images; their names differ, and every one is read as often as there are images to convert.
_SOURCES = simulate_images.COUNT
# Of these, those on which the share of the GIL is measured; the images of the runs in which CPU time is.
_MEASURED, _FULL_LOAD = 8, 600
# The runs that show what the runner itself costs, of which the median counts.
_ALONE = 3
# Seconds of a simulation by default.
_SECONDS = 15
_NOTHING = Cost(0.0, 0.0)
# The number of files on which the cost of writing an empty one is measured.
_EMPTY = 200


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        device_ms: of both models per image, on one device.
        devices: their number; each has a worker.
        threads: of each worker's pool.
        cores: of the machine, for all workers.
        placement: "replicate" or "split".
        slow_down: the factor for every simulated time; a machine with few cores can carry more devices then.
        images: how many are converted; None takes as many as the devices compute in some seconds, and enough.
        format: of the cut-outs, as `fgfast convert` names it.
    """

    device_ms: float
    devices: int = 1
    threads: int = 8
    cores: int = 16
    placement: str = "replicate"
    slow_down: float = 1.0
    images: int | None = None
    format: str = "png"

    @property
    def seconds(self) -> dict[str, float]:
        """Stage of a model -> the device's seconds per image; the models share it as their arithmetic does."""
        detect = floors.detic_share()
        return {"detect": detect * self.device_ms / 1e3, "encode": (1 - detect) * self.device_ms / 1e3}

    @property
    def workers(self) -> tuple[WorkerSpec, ...]:
        """The workers, as `fgfast convert` places them."""
        names = [f"simulated:{n}" for n in range(self.devices)]
        costs = [DeviceCost(self.seconds["detect"], self.seconds["encode"])] * self.devices
        return (split(names, costs, "") if self.placement == "split" else replicate(names, 2, "")).specs

    @property
    def least(self) -> int:
        """The fewest images from which the rate can be seen.

        In the parts of the run that count, every worker has all the images in flight that it can have; and neither the
        images with which its batches are filled first nor those that drain last belong to them.
        """
        return self.devices * math.ceil(most_in_flight(self.threads) / min(FIRST, LAST))

    @property
    def count(self) -> int:
        """The number of images."""
        worth = round(_SECONDS * 1e3 * self.devices / self.device_ms / self.slow_down)
        return self.images or max(self.least, min(worth, _MOST_IMAGES))

    @property
    def title(self) -> str:
        """The scenario in words."""
        devices = f"{self.devices} device{'s' if self.devices > 1 else ''} at {self.device_ms:g} ms"
        placement = f", {self.placement}" if self.devices > 1 else ""
        slow = f", all times x{self.slow_down:g}" if self.slow_down != 1 else ""
        return f"{devices}{placement}, {self.threads} threads per worker, {self.cores} cores{slow}"


class Simulation:
    """Runs scenarios on images in one folder.

    Args:
        folder: a scratch folder; its disk is written to.
        costs: of the steps; None measures them.
    """

    def __init__(self, folder: Path, costs: dict[str, Cost] | None = None) -> None:
        self._folder, self._given = folder, costs
        simulate_images.make_images(folder / "source")
        self._dataset = open_dataset(str(folder / "source"))
        self.costs = costs or {}
        self._templates: tuple[Work, ...] = ()
        self._canvases = simulate_images.canvases()

    def prepare(self, format: str) -> None:
        """Send the images through all stages once, and measure what each step costs, if that is not known."""
        real = self._job(Scenario(1e-3, format=format))
        works = [self._work(n, format) for n in range(_SOURCES)]
        stages = real.real_stages("templates")
        if not self._given:
            held = measure_held(stages, works[:_MEASURED])
            works[:_MEASURED] = [self._work(n, format) for n in range(_MEASURED)]
            cpu = self._cpu_seconds(format)
            self.costs = {name: Cost(cpu[name], cpu[name] * held[name]) for name in STEPS}
        for work in works:
            run_item(stages, cast(Work, work))
        self._templates = tuple(works)

    def _cpu_seconds(self, format: str) -> dict[str, float]:
        """Return the CPU seconds of each step while all of this machine's cores are busy with real work."""
        busy = _busy(Scenario(1.0, threads=available_cores(), format=format))
        return step_seconds(self._run(self._job(busy), busy)[0])

    def simulate(self, scenario: Scenario) -> tuple[Figures, Setup]:
        """Simulate a scenario, after short runs with one device that show what the runner itself costs."""
        short = _busy(replace(scenario, devices=1, placement="replicate", slow_down=1.0))
        alone = [figures(*self._runner_alone(short), self._setup(short, {}, 0.0, 0.0)) for _ in range(_ALONE)]
        runner = statistics.median(one.worker for one in alone) - _of_two_files(self._folder)
        return self._simulated(scenario, max(0.0, runner), statistics.median(one.parent for one in alone))

    def _runner_alone(self, scenario: Scenario) -> tuple[list[TracedResult], list[Collected]]:
        """Run a scenario whose steps take no time at all: what its workers do is the runner."""
        with _tokens(scenario.cores) as tokens:
            costs = dict.fromkeys(self.costs, _NOTHING)
            return self._run(self._simulated_job(scenario, costs, _NOTHING, tokens), scenario)

    def _simulated(self, scenario: Scenario, runner: float, parent: float) -> tuple[Figures, Setup]:
        times = scenario.slow_down
        # The real runner takes its time on this machine: the simulated cores learn of it, and what the slow-down adds
        # to it is slept.
        beside = Cost(runner + times * parent, runner).scaled(1 / len(STEPS))
        slower = Cost((times - 1) * runner, (times - 1) * runner).scaled(1 / len(STEPS))
        spent = {name: cost.scaled(times) + slower for name, cost in self.costs.items()}
        setup = self._setup(scenario, self.costs, runner, parent)
        with _tokens(scenario.cores) as tokens:
            job = self._simulated_job(scenario, spent, beside, tokens)
            return figures(*self._run(job, scenario), setup), setup

    def _simulated_job(
        self, scenario: Scenario, spent: dict[str, Cost], beside: Cost, tokens: CoreTokens
    ) -> SimulatedJob:
        cpu = Simulated(spent, beside, tokens, self._templates, self._canvases)
        return replace(self._job(scenario), cpu=cpu)

    def really(self, scenario: Scenario) -> tuple[Figures, Setup]:
        """Run a scenario with the real work on the CPU, on this machine's cores."""
        scenario = replace(scenario, cores=available_cores(), slow_down=1.0)
        setup = self._setup(scenario, {}, 0.0, 0.0)
        return figures(*self._run(self._job(scenario), scenario), setup), setup

    @staticmethod
    def _setup(scenario: Scenario, costs: dict[str, Cost], runner: float, parent: float) -> Setup:
        names = tuple(spec.name for spec in scenario.workers)
        return Setup(scenario.cores, scenario.threads, names, scenario.slow_down, costs, runner, parent)

    def _job(self, scenario: Scenario) -> SimulatedJob:
        settings = Settings(segmenter="box", detector="annotations", masks="png", format=scenario.format)  # type: ignore[arg-type]
        output = Output(self._folder / "out", self._dataset.folder)
        seconds = {name: scenario.slow_down * each for name, each in scenario.seconds.items()}
        turn = self._dataset.turn_exif
        names = output.twin.name, output.masks.name
        return SimulatedJob(settings, turn, output.out, *names, threads=scenario.threads, seconds=seconds)

    def _work(self, n: int, format: str) -> TracedWork:
        source: Sample = self._dataset.samples[n % _SOURCES]
        suffix = ".jpg" if format in ("same", "jpeg") else f".{format}"
        sample = replace(source, key=f"images/{n:06d}.jpg")
        return TracedWork(n, sample, f"images/{n:06d}{suffix}", f"images/{n:06d}.png")

    def _run(self, what: SimulatedJob, scenario: Scenario) -> tuple[list[TracedResult], list[Collected]]:
        """Convert the images; return their results, and the state of this process along the way."""
        remove_tree(Target(what.out))
        results: list[TracedResult] = []
        collected: list[Collected] = []
        root = Path(self._dataset.root)
        portable, stop = PortablePaths(what.out, root), threading.Event()
        with Output(what.out, self._dataset.folder) as output:
            output.open("overwrite", {"simulated": scenario.title}, root)
            output.make_folders(["images/0.png"], ["images/0.png"])
            works = [self._work(n, scenario.format) for n in range(scenario.count)]
            output.ledger.register((work.position, work.sample) for work in works)

            def collect(batch: list[Result]) -> None:
                record(batch, output, portable)
                results.extend(cast(list[TracedResult], batch))
                collected.append(Collected(time.monotonic(), time.process_time(), len(results)))

            with Supervisor(what, scenario.workers, quarantined) as supervisor:
                supervisor.open(stop)
                supervisor.run(cast(list[Work], works), collect, stop)
        if failed := [result.outcome for result in results if result.outcome.status == "failed"]:
            raise AssertionError(f"{len(failed)} of {len(results)} images failed, {failed[0].detail}")
        return results, collected


def _busy(scenario: Scenario) -> Scenario:
    """Return the scenario with a device that never makes anybody wait.

    Threads that find work at once need not be woken; on an idle core, waking up can cost more than all else that the
    runner does.
    """
    busy = replace(scenario, device_ms=LIMITS["device_ms"][0])
    return replace(busy, images=max(busy.least, _FULL_LOAD))


@contextmanager
def _tokens(cores: int) -> Iterator[CoreTokens]:
    tokens = CoreTokens.make(cores)
    try:
        yield tokens
    finally:
        tokens.close()


def _of_two_files(folder: Path) -> float:
    """Return the CPU seconds that writing the files of one byte takes, which the cost of the step "write" includes."""
    files = TempFiles(folder)
    start = time.process_time()
    for n in range(_EMPTY):
        files.write(f"empty/{n}", b"\0")
    return 2 * (time.process_time() - start) / _EMPTY


@contextmanager
def simulation(folder: Path, costs: dict[str, Cost] | None = None) -> Iterator[Simulation]:
    """Make a simulation that works below a folder; what it writes is deleted in the end."""
    with scratch_folder("fgfast-bench-", folder) as scratch:
        yield Simulation(scratch, costs)


# The least and the most that an option may be.
LIMITS = {
    "device_ms": (0.1, 60_000),
    "devices": (1, 64),
    "threads": (1, 1024),
    "cores": (1, 4096),
    "slow_down": (1, 1000),
}
_MOST_IMAGES = 100_000


def check(scenario: Scenario) -> None:
    """Refuse a scenario that cannot be.

    Raises:
        UsageError: a number is out of its range, or the placement needs more devices.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(scenario, name)
        if not least <= value <= most:  # nor NaN
            raise UsageError(f"--{name.replace('_', '-')} must be from {least:g} to {most:g}, not {value:g}")
    if not scenario.least <= scenario.count <= _MOST_IMAGES:
        raise UsageError(
            f"--images must be from {scenario.least} to {_MOST_IMAGES}, not {scenario.count}, with {scenario.threads} "
            f"threads for each of {scenario.devices} devices: the beginning and the end of a shorter run are a large "
            "part of it"
        )
    if scenario.placement == "split" and scenario.devices < 2:
        raise UsageError(f"--placement split needs two devices or more, not {scenario.devices}: see --devices")


def measure(
    scenario: Scenario,
    *,
    folder: Path,
    mode: str = "simulation",
    costs: dict[str, Cost] | None = None,
    on_message: Callable[[str], None] = lambda message: None,
) -> dict[str, tuple[Figures, Setup]]:
    """Simulate or run a scenario.

    Args:
        scenario: what is simulated.
        folder: the folder to work in; its disk is written to.
        mode: "simulation", "real stages", or "both".
        costs: of the steps; None measures them.
        on_message: is called with a line about each part before it begins.

    Returns:
        "predicted" and "measured" -> figures and setup, as far as the mode asks for them.
    """
    check(scenario)
    found = {}
    with simulation(folder, costs) as made:
        if mode != "real stages":
            if not costs:
                on_message("measuring what each step costs on the CPU")
            made.prepare(scenario.format)
            on_message(f"simulating {scenario.title}")
            found["predicted"] = made.simulate(scenario)
        if mode != "simulation":
            on_message(f"running {scenario.title}, the models asleep and all else real")
            found["measured"] = made.really(scenario)
    return found
