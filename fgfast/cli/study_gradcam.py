"""`fgfast study gradcam`: where the classifiers of a finished study look."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.convert import DEADLINE
from fgfast.cli.frame import EXIT_SOME_FAILED, verbose_option
from fgfast.terminal import line, message, note, say, say_json

if TYPE_CHECKING:
    from fgfast.studies.gradcam_look import Gradcam
    from fgfast.studies.gradcam_report import Found
    from fgfast.studies.job import CellDone
    from fgfast.studies.run import Carried


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), show_default="STUDY_gradcam", help="Names the output folder.")
@click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seeds the noise of repainted backgrounds, and the choice of the images that the page shows.",
)
@click.option(
    "--limit", type=click.IntRange(1), help="Looks at no more than this many test images, of each class alike."
)
@click.option(
    "--batch",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Sets the images at a time, to save memory; figures may differ in their last bits.",
)
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="Names devices, each looks at one model at a time: cuda:0,cuda:1.",
)
@click.option(
    "--deadline",
    default=DEADLINE,
    show_default=True,
    type=click.FloatRange(min=1.0),
    help="Restarts a worker process that takes more than this many seconds for a step.",
)
@click.option("--in-process", is_flag=True, help="Does all work in this process, for debugging.")
@click.option("--overwrite", is_flag=True, help="Deletes what was found, and starts again.")
@click.option("--dry-run", is_flag=True, help="Says what the study takes, by a measured step, and changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
@verbose_option
def gradcam(study: Path, run: Path | None, **given: Any) -> None:
    """Show where the models of a study look, by Grad-CAM and by input gradients, and how much of it is background.

    STUDY is the output folder of fgfast study crossval or masking; RUN the run that it was trained on, where the study
    does not name it.
    """
    from fgfast.cli.interruption import Interruption
    from fgfast.studies import gradcam_report
    from fgfast.studies.gradcam_look import plan
    from fgfast.studies.gradcam_study import run as carry_out
    from fgfast.studies.request import devices_of
    from fgfast.studies.run import loaders_for

    as_json, overwrite = given["as_json"], given["overwrite"]
    look = plan(study, run, **{key: given[key] for key in ("out", "root", "seed", "limit", "batch")})
    look.check(overwrite)
    devices = devices_of(given["devices"])
    from fgfast.studies.gradcam_cell import check  # needs torch, whose absence devices_of has said

    check(look)
    if not as_json:
        note("\n".join(line(text) for text in _lines(look, devices)))
    if given["dry_run"]:
        from fgfast.studies.gradcam_estimate import estimate

        found = estimate(look, devices, loaders_for(devices))
        facts = {"cells": found.cells, "images": found.images, "hours": found.seconds / 3600}
        say_json(json.dumps(facts, indent=2)) if as_json else say(_taking(facts))
        return

    def progress(one: CellDone, done: int, total: int) -> None:
        if not as_json:
            state = one.failed or "looked at"
            note(message(f"  {done} of {total}: {one.cell.name}, {state}, {one.seconds:.0f} s"))

    pages: list[Found | None] = []

    def show(carried: Carried) -> None:
        pages.append(gradcam_report.write(look.out, [(one.cell.name, one.failed) for one in carried.failed]))

    with Interruption(
        "each model ends after its current step; those that are not finished start again"
    ) as interruption:
        carried = carry_out(
            look,
            devices,
            stop=interruption.stop,
            progress=progress,
            overwrite=overwrite,
            in_process=given["in_process"],
            deadline=given["deadline"],
            show=show,
        )
    _end(look, carried, pages[0], as_json)
    if carried.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if carried.failed else 0)


def _lines(look: Gradcam, devices: tuple[str, ...]) -> list[str]:
    """Return what will be done, in a few lines."""
    grid = look.grid
    left = sum(look.finished(cell) for cell in grid.cells)
    lines = [
        f"Grad-CAM of {grid.name} of {grid.dataset}: {len(grid.cells)} models, {left} of them looked at before, on "
        f"{len(grid.test):,} test images from {grid.run}, on {', '.join(devices)}"
    ]
    if look.not_run:
        what, why = look.not_run[0]
        lines.append(f"  {len(look.not_run)} of the study are left out, as {what}: {why}")
    return [*lines, f"  to {look.out}"]


def _taking(facts: dict[str, float]) -> str:
    hours = facts["hours"]
    time = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    return f"{facts['cells']} models, {facts['images']:,} images each, about {time}"


def _end(look: Gradcam, carried: Carried, found: Found | None, as_json: bool) -> None:
    from fgfast.studies.gradcam_report import PAGE, said

    sentences = [f"{text} {sure}".strip() for text, sure in said(found)] if found else []
    finished = len(found.look.study.trained) if found else 0
    if as_json:
        failed = {one.cell.name: one.failed for one in carried.failed}
        facts = {"out": str(look.out), "finished": finished, "failed": failed, "verdict": sentences}
        say_json(json.dumps(facts, indent=2))
        return
    state = f"{finished} of {len(look.grid.cells)} models were looked at"
    more = "; the same command goes on" if carried.stopped or carried.failed else ""
    page = f"page: {look.out / PAGE}" if found else "no page: nothing is finished"
    say(message("\n".join([f"{state}{more}", *sentences, page])))
