"""The simulation of the runner: its cores, its GIL, its devices, and what it says of a run."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command import fgfast

from fgfast import methods
from fgfast.bench import simulate, simulate_images, simulate_report
from fgfast.bench.simulate import Scenario
from fgfast.bench.simulate_account import Collected, Setup, figures, step_seconds
from fgfast.bench.simulate_clock import CoreTokens, Cost, GilToken, SimulatedCpu
from fgfast.bench.simulate_costs import share_held
from fgfast.bench.simulate_job import STEPS, SimulatedJob, StepTimes, Trace, TracedResult
from fgfast.bench.simulate_models import BATCH, DEPTH, SleepingDetic, SleepingDevice, SleepingModel, most_in_flight
from fgfast.cli.bench_simulate import bench_simulate
from fgfast.config import Settings
from fgfast.errors import UsageError
from fgfast.models.detic.canvas import CANVASES
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.transform import resized_size
from fgfast.models.serving import batches
from fgfast.models.serving.canvases import Fixed, FixedCanvases
from fgfast.pipeline.job import ConvertJob
from fgfast.records import Image, Outcome
from fgfast.runner import BatchedStage, WorkerSpec

COSTS = dict.fromkeys(STEPS, Cost(0.001, 0.0002))


def seconds_of(work: Callable[[], object], threads: int) -> float:
    """The seconds that so many threads take for the same work at the same time."""
    all_of_them = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("cores", "threads", "cost", "least"),
    [
        (1, 4, Cost(0.05, 0.0), 0.2),  # one after the other on the core
        (2, 4, Cost(0.05, 0.0), 0.1),
        (4, 4, Cost(0.05, 0.05), 0.2),  # one after the other with the GIL, however many cores there are
        (4, 4, Cost(0.05, 0.025), 0.1),
    ],
)
def test_cores_and_the_gil_are_for_one_at_a_time(cores: int, threads: int, cost: Cost, least: float) -> None:
    tokens = CoreTokens.make(cores)
    cpu = SimulatedCpu(tokens)
    assert seconds_of(lambda: cpu.work(cost), threads) >= 0.95 * least
    cpu.close()
    tokens.close()


def test_the_gil_is_taken_as_soon_as_it_is_free_for_long_enough() -> None:
    gil = GilToken()
    assert gil.take(5.0, 1.0, now=0.0) == 5.0
    assert gil.take(0.0, 2.0, now=0.0) == 0.0  # before the one that comes later
    assert gil.take(1.0, 3.0, now=0.0) == 2.0  # between the two
    assert gil.take(1.0, 1.0, now=0.0) == 6.0  # after all of them
    assert gil.take(4.0, 0.5, now=6.5) == 4.0  # what is over is forgotten


def test_what_the_process_computes_beside_takes_core_and_gil_but_no_sleep() -> None:
    tokens = CoreTokens.make(1)
    cpu = SimulatedCpu(tokens, Cost(0.05, 0.05))
    start = time.perf_counter()
    waited = cpu.work(Cost(0.01, 0.01)), cpu.work(Cost(0.01, 0.01))
    assert time.perf_counter() - start >= 0.07 * 0.95
    assert waited == (pytest.approx(0.0, abs=0.005), pytest.approx(0.05, abs=0.01))
    cpu.close()
    tokens.close()


def test_a_device_serves_one_batch_after_the_other() -> None:
    device = SleepingDevice("w")
    (first, middle), (then, end) = device.queue(3.0), device.queue(1.0)
    assert (middle, end) == (pytest.approx(first + 3), pytest.approx(first + 4))
    assert then == middle


def test_launch_returns_at_once_and_wait_when_the_device_is_through() -> None:
    model = SleepingModel(SleepingDevice("w"), 0.05)
    slot = model.slot(False)
    start = time.monotonic()
    model.launch(slot, 2)
    assert time.monotonic() - start < 0.05
    model.wait(slot)
    assert time.monotonic() - start >= 0.1
    assert model.read(slot, 0).end == slot.span[1]


def test_batches_are_those_of_a_gpu() -> None:
    assert (batches.GPU_BATCH, batches.depth_of("cuda:0")) == (BATCH, DEPTH)


def asleep(spec: object, words: str = "") -> SleepingModel:
    """A builder of models for a real job."""
    model = SleepingModel(SleepingDevice("w"), 0.0)
    model.finish = lambda found, height, width: found  # type: ignore[attr-defined]
    return model


def test_canvases_are_mixed_as_those_of_cub_are() -> None:
    detic = SleepingDetic(SleepingDevice("w"), 0.0)
    asleep = SleepingModel(SleepingDevice("w"), 0.0, canvases=simulate_images.canvases())
    assert detic.buckets == asleep.buckets == len(CANVASES)
    graphs = FixedCanvases(lambda batch: {canvas: Fixed(None, lambda: None) for canvas in CANVASES})  # type: ignore
    for size in simulate_images.CUB:
        image = Image(np.zeros((*size, 3), np.uint8))
        wanted = graphs.bucket(resized_size(*size, SWIN_B.shorter_edge, SWIN_B.longest_edge))
        assert detic.bucket(image) == asleep.bucket(image) == wanted
    assert SleepingModel(SleepingDevice("w"), 0.0).buckets == 1
    # Both models' rings: depth 2 and one being read, of 4 images; and all but the last of each open batch.
    assert most_in_flight(8) == 8 + (3 * 4 + len(CANVASES) * 3) + (3 * 4 + 3)


def test_by_default_every_worker_gets_work_and_the_ends_do_not_matter() -> None:
    assert Scenario(8.3).count == round(15 / 0.0083)
    few = Scenario(110.0, devices=2, threads=64)
    assert few.count == few.least == 2 * 747


@pytest.mark.parametrize("phases", [(0, 2), (0, 1), (1, 2)])
def test_the_stages_are_those_of_a_conversion(phases: tuple[int, int], tmp_path: Path) -> None:
    settings = Settings(
        segmenter="sam_vit_l", detector="detic", vocabulary="bird", masks="png", devices="cuda:0", backend="torch"
    )
    own = [replace(methods.method(name), build=f"{__name__}:asleep") for name in ("detic", "sam_vit_l")]
    spec = WorkerSpec("cuda:0", "simulated", phases)
    settings = replace(settings, precision="fp32", decoder="cpu")
    real = ConvertJob(settings, *own, ("bird",), True, tmp_path, "images", "masks", None, 4)
    ours = SimulatedJob(settings, True, tmp_path, "images", "masks", 4, {"detect": 0.0, "encode": 0.0})
    wanted = [(stage.name, isinstance(stage, BatchedStage)) for stage in real.open(spec).stages]
    assert [(stage.name, isinstance(stage, BatchedStage)) for stage in ours.open(spec).stages] == wanted


def test_what_a_step_costs() -> None:
    # Other processes disturb a measurement; they do not turn it round three times.
    # On a busy machine, a thread that had to give the GIL up takes a while until it wants it again.
    assert max(share_held([lambda: sum(range(300_000))], times=50) for _ in range(3)) > 0.3
    assert min(share_held([partial(hashlib.sha256, bytes(1 << 20))], times=50) for _ in range(3)) < 0.2
    short = partial(hashlib.sha256, bytes(20_000))  # 10 us without the GIL, far less than waking up takes
    assert min(share_held([short], times=50) for _ in range(3)) < 0.5


def test_what_a_step_raises_while_it_is_measured_is_raised() -> None:
    calls = iter(range(10))
    with pytest.raises(StopIteration):
        share_held([lambda: next(calls)], times=50)
    times = StepTimes()
    spend, rest = times.timed("decode", lambda n: sum(range(n))), times.timed("mask", time.sleep)
    assert (spend(300_000), spend(10)) == (sum(range(300_000)), 45)
    rest(0.02)
    (spent, twice), (slept, once) = times.sums()["decode"], times.sums()["mask"]
    assert (twice, once) == (2, 1) and spent > 1e-3 > slept


def test_the_time_of_a_step_is_that_once_under_way() -> None:
    def after(n: int) -> Mapping[str, tuple[float, int]]:
        return dict.fromkeys(STEPS, (1.0 + 0.002 * n, n))  # a second for the first one

    found = [TracedResult(n, done(n), (), Trace(steps=after(n + 1))) for n in range(100)]
    assert step_seconds(found) == dict.fromkeys(STEPS, pytest.approx(0.002))


def traces(rate: float, busy: float, workers: int, seconds: float = 10.0) -> list[TracedResult]:
    """Results of workers that each finish `rate` images per second, with devices that are busy for a share of it."""
    found = []
    for worker in (f"w{n}" for n in range(workers)):
        for n in range(round(rate * seconds)):
            at = n / rate
            trace = Trace([(worker, at, at + busy / rate)], [(worker, at + 1 / rate, 0.001 * n)])
            found.append(TracedResult(n, done(n), (), trace))
    return found


def done(n: int) -> Outcome:
    """The outcome of an image."""
    return Outcome(f"{n}.jpg", "done", "write", twin=f"{n}.png")


def setup(**given: object) -> Setup:
    values: dict[str, object] = {"cores": 16, "threads": 8, "workers": ("w0",), "slow_down": 1.0, "costs": COSTS}
    return Setup(**(values | given))  # type: ignore[arg-type]


def test_the_figures_of_a_run() -> None:
    parent = [Collected(at, 0.0005 * 200 * at, round(200 * at)) for at in range(11)]
    found = figures(traces(100, 0.75, 2), parent, setup(workers=("w0", "w1")))
    assert found.rate == pytest.approx(200, rel=0.02)
    assert found.idle == {"w0": pytest.approx(0.25, abs=0.01), "w1": pytest.approx(0.25, abs=0.01)}
    assert found.parent == pytest.approx(0.0005, rel=0.01)
    assert found.worker == pytest.approx(0.001, rel=0.02)
    # Every step takes 1 ms at 200 images per second, on 16 cores; 0.2 ms of each with one of two GILs.
    assert found.shares["cores"] == pytest.approx(200 * 0.001 * len(STEPS) / 16, rel=0.02)
    assert found.shares["the workers' GIL"] == pytest.approx(100 * len(STEPS) * 0.0002, rel=0.02)


@pytest.mark.parametrize(
    ("given", "busy", "bound"),
    [
        ({}, 0.99, "devices"),
        ({"cores": 1}, 0.5, "cores"),
        ({"costs": dict.fromkeys(STEPS, Cost(0.001, 0.001))}, 0.5, "the workers' GIL"),
        ({"threads": 1, "costs": dict.fromkeys(STEPS, Cost(0.001, 0.0001))}, 0.5, "the threads of the pools"),
        ({"costs": dict.fromkeys(STEPS, Cost(0.0001, 0.0001))}, 0.5, "nothing is taken all the time; most of all"),
    ],
)
def test_the_bound_has_a_name(given: dict[str, object], busy: float, bound: str) -> None:
    parent = [Collected(0.0, 0.0, 0), Collected(10.0, 0.1, 1000)]
    assert figures(traces(100, busy, 1), parent, setup(**given)).bound.startswith(bound)


def test_the_parent_can_be_the_bound() -> None:
    parent = [Collected(0.0, 0.0, 0), Collected(10.0, 9.5, 1000)]
    assert figures(traces(100, 0.5, 1), parent, setup()).bound == "the parent process"


def test_slower_times_give_the_same_rate() -> None:
    parent = [Collected(0.0, 0.0, 0), Collected(10.0, 0.1, 250)]
    found = figures(traces(25, 0.9, 1), parent, setup(slow_down=4.0))
    assert found.rate == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize(
    ("devices", "placement"),
    [(1, "replicate"), *(pytest.param(2, placement, marks=pytest.mark.full) for placement in ("replicate", "split"))],
)
def test_a_simulated_run(devices: int, placement: str, tmp_path: Path) -> None:
    scenario = Scenario(4.0, devices=devices, threads=4, placement=placement)
    scenario = replace(scenario, images=scenario.least)
    found, _ = simulate.measure(scenario, folder=tmp_path, costs=COSTS)["predicted"]
    # No faster than the devices: each does everything; or one only encodes, the longer part of it.
    longest = 1e3 * scenario.seconds["encode"] if placement == "split" else 4.0 / devices
    assert 0 < found.rate < 1.25e3 / longest
    assert len(found.idle) == devices
    assert found.parent > 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("fgfast-bench")]


@pytest.mark.full
def test_real_stages_and_costs_of_an_earlier_result(tmp_path: Path) -> None:
    arguments = ["--device-ms", "5", "--images", "350", "--validate", "--threads", "2", "--json"]
    done = fgfast("bench", "simulate", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {f"{row.get('group')}: {row['name']}": row["value"] for row in found["rows"]}
    assert rows["by simulation: rate"] > 0 and rows["models asleep, all else real: rate"] > 0
    assert rows["validation: predicted / measured"] > 0
    assert set(found["bound"]) == {"predicted", "measured"}
    (tmp_path / "old.json").write_text(done.stdout)
    costs = simulate_report.read_costs(tmp_path / "old.json")
    assert costs.keys() == set(STEPS)
    assert all(0 <= cost.held <= cost.cpu for cost in costs.values())
    found["rows"] = [row for row in found["rows"] if row["name"] != "write, CPU"]
    (tmp_path / "old.json").write_text(json.dumps(found))
    with pytest.raises(UsageError, match="does not say what 'cost of a step: write, CPU' is"):
        simulate_report.read_costs(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--device-ms'"),
        (["--validate", "--cores", "4"], "--cores has no effect on work that is real"),
        (["--real-stages", "--slow-down", "4"], "--slow-down has no effect on work that is real"),
        (["--real-stages", "--costs", "old.json"], "--costs has no effect with --real-stages"),
        (["--real-stages", "--validate"], "leave out --real-stages"),
    ],
)
def test_options_without_effect_are_refused(arguments: list[str], message: str) -> None:
    given = ["--device-ms", "8.3", *arguments] if arguments else []
    done = CliRunner().invoke(bench_simulate, given)
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"placement": "split"}, "--placement split needs two devices or more, not 1"),
        ({"images": 372}, "--images must be from 374 to 100000, not 372, with 8 threads for each of 1 devices"),
        ({"device_ms": float("nan")}, "--device-ms must be from 0.1 to 60000, not nan"),
        ({"device_ms": float("inf")}, "--device-ms must be from 0.1 to 60000, not inf"),
        ({"devices": 65}, "--devices must be from 1 to 64, not 65"),
        ({"slow_down": 0.5}, "--slow-down must be from 1 to 1000, not 0.5"),
    ],
)
def test_scenarios_that_cannot_be_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        simulate.measure(Scenario(**{"device_ms": 8.3, **given}), folder=tmp_path)
