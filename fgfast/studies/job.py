"""The job of a worker process: a cell is one item, which takes minutes or hours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from fgfast.errors import (
    DeviceFailedError,
    FgfastError,
    MissingExtraError,
    OutputFailedError,
    OutputRefusedError,
    UsageError,
)
from fgfast.runner import Failures, Finished, Stage, WorkerSpec
from fgfast.studies.cell import Cell
from fgfast.studies.grid import Grid

# What torch says of a device that no longer works; what was computed after it is worth nothing.
_BROKEN = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS_EXECUTION_FAILED")


_FAILURES = Failures(fatal=(OutputFailedError, OutputRefusedError), broken=(DeviceFailedError,))


@dataclass(slots=True, eq=False)
class CellWork:
    """A cell to work on."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class CellDone:
    """What became of a cell.

    Attributes:
        cell: the cell.
        failed: why it failed, in a sentence; empty where it is finished.
        seconds: that it took, or the rest of it, where it was begun before.
    """

    cell: Cell
    failed: str = ""
    seconds: float = 0.0


class CellSteps(Protocol):
    """What is done with a cell. It is pickled, and imports torch only when it is called."""

    @property
    def less_memory(self) -> str:
        """What to do where a device has not enough memory."""

    def __call__(self, cell: Cell, device: str, threads: int, /) -> Iterator[object]:
        """Do it, with so many threads that load ahead; each thing yielded is a sign of life."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainAndTest:
    """Trains a cell and tests it; see `CellSteps`."""

    grid: Grid

    @property
    def less_memory(self) -> str:
        return (
            f"divide batches into more parts (--parts {2 * self.grid.parts}), which gives the same gradients but for "
            "batch normalisation, or use a smaller batch (--batch)"
        )

    def __call__(self, cell: Cell, device: str, threads: int, /) -> Iterator[object]:
        from fgfast.studies.one_cell import run_cell

        return run_cell(self.grid, cell, device, threads)


@dataclass(frozen=True, slots=True, eq=False)
class StudyJob:
    """Works on cells. It is pickled and opened in each worker process.

    Attributes:
        steps: what is done with a cell.
        threads: of torch on a CPU; results may differ in their last bits with another number.
        loaders: threads that load batches ahead.
    """

    steps: CellSteps
    threads: int = 1
    loaders: int = 1
    phases: int = 1

    def open(self, spec: WorkerSpec) -> StudyRuntime:
        """Import torch, and check that the device works."""
        try:
            import torch

            from fgfast.studies import torchvision_shim

            torchvision_shim.declare()
            import timm
            import torchvision
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "studies", "a study") from error
        if spec.device == "cpu":
            torch.set_num_threads(self.threads)
        torch.zeros(1, device=spec.device)
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
        return StudyRuntime([_RunCell(self.steps, spec.device, self.loaders)], {"device": spec.device, **versions})


@dataclass(frozen=True, slots=True)
class StudyRuntime:
    """The opened job; see `fgfast.runner.JobRuntime`."""

    stages: list[Stage[CellWork]]
    facts: dict[str, Any]
    threads: int = 1
    failures: Failures = _FAILURES

    def result_of(self, finished: Finished[CellWork]) -> CellDone:
        """Return what became of a cell."""
        error, seconds = finished.error, sum(finished.seconds.values())
        if error is None:
            return CellDone(finished.item.cell, seconds=seconds)
        if isinstance(error, FgfastError):
            return CellDone(finished.item.cell, str(error), seconds)
        return CellDone(finished.item.cell, f"internal error: {type(error).__name__}: {error}", seconds)


@dataclass(frozen=True, slots=True)
class _RunCell:
    steps: CellSteps
    device: str
    loaders: int
    name: str = "cell"

    def __call__(self, work: CellWork, /) -> Iterator[object]:
        import torch

        try:
            yield from self.steps(work.cell, self.device, self.loaders)
        except torch.cuda.OutOfMemoryError as error:
            raise UsageError(f"{self.device} has not enough memory: {self.steps.less_memory}") from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in _BROKEN):
                raise DeviceFailedError(self.device, str(error)) from error
            raise


def quarantined(work: CellWork, reason: str, detail: str) -> CellDone:
    """Return what became of a cell that crashes its workers."""
    return CellDone(work.cell, f"{reason}: {detail}")
