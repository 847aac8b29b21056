"""The job of a worker process: a cell is one item, which takes minutes or hours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
    """A cell to be trained and tested."""

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


@dataclass(frozen=True, slots=True, eq=False)
class StudyJob:
    """Trains and tests cells. It is pickled and opened in each worker process.

    Attributes:
        grid: the study.
        threads: of torch on a CPU; results may differ in their last bits with another number.
        loaders: threads that load batches ahead.
    """

    grid: Grid
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
        return StudyRuntime([_RunCell(self.grid, spec.device, self.loaders)], {"device": spec.device, **versions})


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
    grid: Grid
    device: str
    loaders: int
    name: str = "cell"

    def __call__(self, work: CellWork, /) -> Iterator[object]:
        import torch

        from fgfast.studies.one_cell import run_cell

        try:
            yield from run_cell(self.grid, work.cell, self.device, self.loaders)
        except torch.cuda.OutOfMemoryError as error:
            raise UsageError(
                f"{self.device} has not enough memory: divide batches into more parts (--parts {2 * self.grid.parts}), "
                "which gives the same gradients, or use a smaller batch (--batch)"
            ) from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in _BROKEN):
                raise DeviceFailedError(self.device, str(error)) from error
            raise


def quarantined(work: CellWork, reason: str, detail: str) -> CellDone:
    """Return what became of a cell that crashes its workers."""
    return CellDone(work.cell, f"{reason}: {detail}")
