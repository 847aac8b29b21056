"""Carries the grid of test_study_training out, in a process that is killed."""

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parents[2]),
    str(Path(__file__).parents[1]),
    str(Path(__file__).parents[2] / "bench"),
]

if __name__ == "__main__":
    from test_study_training import cell, grid

    from fgfast.studies.run import run

    cells = tuple(cell(seed, train) for seed in (0, 1) for train in ("x", "x_fg", "mixed-rand"))
    run(grid(Path(sys.argv[1]), cells), ["cpu", "cpu"])
