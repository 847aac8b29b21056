"""`fgfast study gradcam`: where the classifiers of a finished study look (Fig. 1 of arXiv 2408.01998), in numbers.

OUT/
  gradcam.json                    of which study, run and images
  cells/NAME/cell.json            written last: a cell with it is finished
  cells/NAME/looks.parquet        a row for each image and arm; all tables are computed from these alone
  cells/NAME/sheet.safetensors    a few images as the model sees them, their masks and raw maps, for the page
  study.html, TABLE.csv, TABLE.tex
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fgfast.runner import DEADLINE
from fgfast.studies.cell import Cell
from fgfast.studies.gradcam_look import Gradcam
from fgfast.studies.job import CellDone
from fgfast.studies.run import Carried, alone, carry


@dataclass(frozen=True, slots=True, eq=False)
class _LookAt:
    """Looks at a cell; see `fgfast.studies.job.CellSteps`."""

    look: Gradcam

    @property
    def less_memory(self) -> str:
        return f"use fewer images at a time: --batch {max(1, self.look.batch // 2)}"

    def __call__(self, cell: Cell, device: str, threads: int, /) -> Iterator[object]:
        from fgfast.studies.gradcam_cell import run_cell

        return run_cell(self.look, cell, device, threads)


def run(
    look: Gradcam,
    devices: Sequence[str],
    *,
    stop: threading.Event | None = None,
    progress: Callable[[CellDone, int, int], None] | None = None,
    overwrite: bool = False,
    in_process: bool = False,
    deadline: float = DEADLINE,
    show: Callable[[Carried], None] | None = None,
) -> Carried:
    """Look at what is not finished yet, a cell to a worker; arguments and errors as of `fgfast.studies.run.run`."""
    look.check(overwrite)
    with alone(look.out):
        look.open(overwrite)
        todo = [cell for cell in look.grid.cells if not look.finished(cell)]
        before = len(look.grid.cells) - len(todo)
        stop = stop or threading.Event()
        carried = carry(_LookAt(look), todo, before, devices, stop, progress, in_process, deadline)
        if show is not None:
            show(carried)
    return carried
