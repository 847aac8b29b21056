"""Carries a study out that trains: its grid, its trainings, its page, and what is said of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.cli.study_options import request_of
from fgfast.terminal import line, message, note, say, say_json

if TYPE_CHECKING:
    from fgfast.studies.cell import Cell
    from fgfast.studies.grid import EvaluationSet, Grid
    from fgfast.studies.job import CellDone
    from fgfast.studies.pairs import RunPairs
    from fgfast.studies.recipes import Recipe
    from fgfast.studies.request import Request
    from fgfast.studies.run import Carried


def train_and_show(
    name: str,
    run: Path,
    recipes: Sequence[Recipe],
    cells: Sequence[Cell],
    tests: Sequence[EvaluationSet],
    given: dict[str, Any],
) -> None:
    """Carry a study out: make its grid, train, write its page."""
    from fgfast.cli.interruption import Interruption
    from fgfast.studies.one_cell import check
    from fgfast.studies.report import write
    from fgfast.studies.request import devices_of, grid_of
    from fgfast.studies.run import loaders_for
    from fgfast.studies.run import run as carry_out

    request = request_of(run, recipes, given)
    grid, pairs, groups = grid_of(request, name, cells, tests)
    grid.check(given["overwrite"])
    check(grid)
    devices = devices_of(given["devices"])
    as_json = given["as_json"]
    if not as_json:
        note("\n".join(line(text) for text in _lines(grid, pairs, request, devices)))
    if given["dry_run"]:
        from fgfast.studies.estimate import estimate

        found = estimate(grid, devices, loaders_for(devices))
        facts = {"cells": found.cells, "epochs": found.epochs, "hours": found.seconds / 3600, "bytes": found.bytes}
        say_json(json.dumps(facts, indent=2)) if as_json else say(_taking(facts))
        return

    def progress(one: CellDone, done: int, total: int) -> None:
        if not as_json:
            note(
                message(
                    f"  {done} of {total}: {one.cell.name}, {one.failed or 'trained and tested'}, {one.seconds:.0f} s"
                )
            )

    pages: list[Path | None] = []

    def show(carried: Carried) -> None:
        pages.append(write(grid, [(one.cell.name, one.failed) for one in carried.failed], groups))

    with Interruption("each training ends after its current step, and goes on from its last epoch") as interruption:
        carried = carry_out(
            grid,
            devices,
            stop=interruption.stop,
            progress=progress,
            overwrite=given["overwrite"],
            in_process=given["in_process"],
            deadline=given["deadline"],
            show=show,
        )
    _end(grid, carried, pages[0], as_json)
    if carried.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if carried.failed else 0)


def _lines(grid: Grid, pairs: RunPairs, request: Request, devices: Sequence[str]) -> list[str]:
    """Return what a study will do, in a few lines."""
    left = sum(grid.finished(cell) for cell in grid.cells)
    recipes = ", ".join(f"{one.name}: {one.epochs} epochs" for one in grid.recipes.values())
    lines = [
        f"{grid.name} of {grid.dataset}: {len(grid.train):,} images train, {len(grid.test):,} test, "
        f"{len(pairs.classes):,} classes, from {request.run}",
        f"  {len(grid.cells)} trainings ({recipes}), {left} of them finished before, on {', '.join(devices)}",
    ]
    if pairs.left_out:
        some = next(iter(pairs.left_out.items()))
        lines.append(f"  {len(pairs.left_out):,} images are left out, as {some[0]}: {some[1]}")
    return [*lines, f"  to {grid.out}"]


def _taking(facts: dict[str, float]) -> str:
    hours = facts["hours"]
    time = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} min"
    return f"{facts['cells']} trainings, {facts['epochs']} epochs, about {time}, {facts['bytes'] / 1e9:.2f} GB on disk"


def _end(grid: Grid, carried: Carried, page: Path | None, as_json: bool) -> None:
    from fgfast.studies.verdicts import verdict

    found = grid.study()
    sentences = [f"{text} {sure}".strip() for text, sure in verdict(found)] if found.trained else []
    if as_json:
        failed = {one.cell.name: one.failed for one in carried.failed}
        facts = {"out": str(grid.out), "finished": len(found.trained), "failed": failed, "verdict": sentences}
        say_json(json.dumps(facts, indent=2))
        return
    state = f"{len(found.trained)} of {len(grid.cells)} trainings are finished"
    more = "; the same command goes on" if carried.stopped or carried.failed else ""
    say(message("\n".join([f"{state}{more}", *sentences, f"page: {page}" if page else "no page: nothing is finished"])))
