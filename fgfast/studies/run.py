"""Carries a grid of cells out: whole trainings side by side, one to a worker, a worker to a device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fgfast.errors import UsageError
from fgfast.machine import available_cores
from fgfast.pipeline.placement import replicate
from fgfast.runner import DEADLINE, Supervisor
from fgfast.runner import run as run_here
from fgfast.studies.cell import Cell
from fgfast.studies.grid import LOCK, Grid
from fgfast.studies.job import CellDone, CellSteps, CellWork, StudyJob, TrainAndTest, quarantined
from fgfast.writing import Target, locked, sweep_temp_files

# Threads that load batches ahead on a GPU, at most: a batch waits in each.
_MOST_LOADERS = 8


@dataclass(frozen=True, slots=True)
class Carried:
    """What a run of a grid did.

    Attributes:
        before: number of cells that were finished before.
        done: what became of the others.
        stopped: whether it was stopped before all were done.
    """

    before: int
    done: tuple[CellDone, ...]
    stopped: bool

    @property
    def failed(self) -> tuple[CellDone, ...]:
        """The cells that failed."""
        return tuple(one for one in self.done if one.failed)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other processes from working in a study's folder, and delete what killed ones left half-written.

    Raises:
        UsageError: one works in it.
    """
    from filelock import Timeout

    try:
        with locked(Target(out, LOCK), timeout=0):
            sweep_temp_files([Target(out)], folders=True)
            yield
    except Timeout:
        raise UsageError(f"another process works in {out}: wait for it, or choose another folder") from None


def run(
    grid: Grid,
    devices: Sequence[str],
    *,
    stop: threading.Event | None = None,
    progress: Callable[[CellDone, int, int], None] | None = None,
    overwrite: bool = False,
    in_process: bool = False,
    deadline: float = DEADLINE,
    show: Callable[[Carried], None] | None = None,
) -> Carried:
    """Train and test what is not finished yet.

    Args:
        grid: the study.
        devices: a worker for each; one that occurs twice has two. Those on a CPU compute on one thread each, so that
            results do not depend on their number.
        stop: when set, cells end after their current step; the same call goes on from their last epochs.
        progress: called with each cell that is done, the number of those done, and of all.
        overwrite: train everything again.
        in_process: train in this process, one cell after the other.
        deadline: seconds after which a cell without a sign of life has its process killed.
        show: called at the end, while nobody else works in the folder; it writes the page.

    Raises:
        OutputRefusedError: the folder holds another study.
        UsageError: another process works in it.
        MissingExtraError: a package is not installed.
        WorkerLostError: no worker process is left; the same call goes on.
        OutputFailedError: the disk is full or failing; what is finished is kept.
    """
    stop = stop or threading.Event()
    grid.check(overwrite)
    with alone(grid.out):
        grid.open(overwrite)
        todo = [cell for cell in grid.cells if not grid.finished(cell)]
        steps, before = TrainAndTest(grid), len(grid.cells) - len(todo)
        carried = carry(steps, todo, before, devices, stop, progress, in_process, deadline)
        if show is not None:
            show(carried)
    return carried


def carry(
    steps: CellSteps,
    cells: Sequence[Cell],
    before: int,
    devices: Sequence[str],
    stop: threading.Event,
    progress: Callable[[CellDone, int, int], None] | None,
    in_process: bool,
    deadline: float,
) -> Carried:
    """Work on cells, one to a worker; see `run`.

    Args:
        steps: what is done with each.
        cells: those that are not finished.
        before: number of those that are.
        devices, stop, progress, in_process, deadline: see `run`.
    """
    todo, done = [CellWork(cell) for cell in cells], list[CellDone]()
    if not todo:
        return Carried(before, (), False)

    def collect(results: list[CellDone]) -> None:
        for one in results:
            done.append(one)
            if progress is not None:
                progress(one, before + len(done), before + len(todo))

    specs = replicate(tuple(devices)[: len(todo)], 1, "").specs
    job = StudyJob(steps, loaders=loaders_for([spec.device for spec in specs]))
    if in_process:
        runtime = job.open(specs[0])
        run_here(todo, runtime.stages, runtime.result_of, collect, threads=1, stop=stop, failures=runtime.failures)
    else:
        with Supervisor(job, specs, quarantined, deadline=deadline, ahead=False) as supervisor:
            supervisor.open(stop)
            supervisor.run(todo, collect, stop)
    return Carried(before, tuple(done), stop.is_set())


def loaders_for(devices: Sequence[str]) -> int:
    """Return the threads of each worker that load batches ahead; a CPU that trains has none to spare."""
    if all(device == "cpu" for device in devices):
        return 1
    return max(1, min(_MOST_LOADERS, available_cores() // len(devices)))
