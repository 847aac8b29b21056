"""`fgfast study`: what the background did to classifiers, a command per study."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fgfast.cli.convert import DEADLINE
from fgfast.cli.frame import EXIT_SOME_FAILED, verbose_option
from fgfast.cli.study_gradcam import gradcam
from fgfast.terminal import Group, line, message, note, say, say_json

if TYPE_CHECKING:
    from fgfast.studies.cell import Cell
    from fgfast.studies.grid import EvaluationSet, Grid
    from fgfast.studies.job import CellDone
    from fgfast.studies.pairs import RunPairs
    from fgfast.studies.recipes import Recipe
    from fgfast.studies.request import Request
    from fgfast.studies.run import Carried

F = TypeVar("F", bound=Callable[..., Any])

# The options of every study that trains.
_COMMON = (
    click.option("--out", type=click.Path(path_type=Path), show_default="RUN_STUDY", help="Names the output folder."),
    click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved."),
    click.option(
        "--seeds",
        default=3,
        show_default=True,
        type=click.IntRange(1),
        help="Sets the number of trainings of each kind; fewer than 3 give no interval.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Seeds splits and choices of backgrounds.",
    ),
    click.option("--epochs", type=click.IntRange(1), show_default="the recipe's", help="Sets the number of epochs."),
    click.option("--batch", type=click.IntRange(2), show_default="the recipe's", help="Sets the samples per step."),
    click.option(
        "--lr", type=click.FloatRange(0, min_open=True), show_default="the recipe's", help="Sets the learning rate."
    ),
    click.option(
        "--image-size",
        type=click.IntRange(8),
        show_default="the model's",
        help="Sets the side of the input, in pixels.",
    ),
    click.option(
        "--no-pretrained", is_flag=True, help="Starts from random weights instead of timm's, of this machine's cache."
    ),
    click.option(
        "--timm", multiple=True, metavar="NAME=VALUE", help="Gives an option to timm's models, as in drop_rate=0.1."
    ),
    click.option(
        "--test-share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        show_default="the data set's test split",
        help="Tests on this share of each class.",
    ),
    click.option(
        "--limit", type=click.IntRange(1), help="Trains, and tests, on at most this many images, of each class alike."
    ),
    click.option(
        "--flagged",
        default="use",
        show_default=True,
        help="Uses images whose masks are flagged, or not. One of: use, skip.",
    ),
    click.option(
        "--fill",
        default="black",
        show_default=True,
        help="Selects what takes the background's place. One of: black, mean (the model's), blur, noise.",
    ),
    click.option(
        "--select",
        default="last",
        show_default=True,
        help="Selects the epoch that counts, the last or the best on a tenth of train. One of: last, best-val.",
    ),
    click.option(
        "--parts", default=1, show_default=True, type=click.IntRange(1), help="Divides batches, to save a GPU's memory."
    ),
    click.option("--no-weights", is_flag=True, help="Keeps no weights of what is trained; gradcam needs them."),
    click.option(
        "--devices",
        default="auto",
        show_default=True,
        help="Names devices, each trains one model at a time: cuda:0,cuda:1.",
    ),
    click.option(
        "--deadline",
        default=DEADLINE,
        show_default=True,
        type=click.FloatRange(min=1.0),
        help="Restarts a worker process that takes more than this many seconds for a step.",
    ),
    click.option("--in-process", is_flag=True, help="Does all work in this process, for debugging."),
    click.option("--overwrite", is_flag=True, help="Deletes what is trained, and starts again."),
    click.option("--dry-run", is_flag=True, help="Says what the study takes, by a measured step, and changes nothing."),
    click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON."),
    verbose_option,
)


def with_options(command: F) -> F:
    for option in reversed(_COMMON):
        command = option(command)
    return command


@click.group(cls=Group)
def study() -> None:
    """Train classifiers with and without background, and show what it did.

    A study that was stopped goes on where it was, by the same command. Exit codes are those of fgfast convert.
    """


study.add_command(gradcam)


@study.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    show_default="those of the paper",
    help="Names a model of timm, or a file of weights named like one.",
)
@click.option(
    "--train-on",
    "trained_on",
    multiple=True,
    show_default="x, x_fg, mixed-rand",
    help="Names what is trained on: x, x_fg, mixed-same, mixed-rand, mixed-next, only-bg, x-box.",
)
@click.option("--recipe", default="quick", show_default=True, help="Names how is trained; docs/study.md lists them.")
@with_options
def crossval(run: Path, backbones: tuple[str, ...], trained_on: tuple[str, ...], recipe: str, **given: Any) -> None:
    """Train on images, on foregrounds and on mixed ones; test each on all of them.

    RUN is the output folder of fgfast convert.
    """
    from fgfast.studies import crossval as module

    chosen = changed_recipes((recipe,), given)
    cells = module.cells(
        split(backbones) or module.BACKBONES,
        split(trained_on) or module.TRAINED_ON,  # type: ignore[arg-type]
        chosen[0].name,
        range(given["seeds"]),
        not given["no_pretrained"],
    )
    train_and_show("crossval", run, chosen, cells, module.TESTS, given)


@study.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    show_default="ConvNeXt and DINOv2, small, base, large",
    help="Names a model of timm, or a file of weights named like one.",
)
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    show_default="those of the backbone's kind",
    metavar="WHERE[:STAGE[:POOLING[:CLASS-TOKEN]]]",
    help="Names how the background is masked, as in late:second-last:fg:block. WHERE: none, early, late, both; STAGE: "
    "last, second-last; POOLING: native, class, patch, both, fg; CLASS-TOKEN: keep, drop, block.",
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("masking-2308-frozen", "masking-2308"),
    show_default=True,
    help="Names how is trained; docs/study.md lists them.",
)
@click.option(
    "--share",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Counts a cell of features as foreground from this share of subject on.",
)
@click.option(
    "--waterbirds",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Names a run over Waterbirds, to test a study of CUB on it, too: by species, and by groups.",
)
@click.option(
    "--waterbirds-root", type=click.Path(path_type=Path), help="Names Waterbirds' folder, where it has moved."
)
@with_options
def masking(
    run: Path,
    backbones: tuple[str, ...],
    strategies: tuple[str, ...],
    recipes: tuple[str, ...],
    share: float,
    **given: Any,
) -> None:
    """Mask the background early, in pixels, or late, in features; train and test each way.

    RUN is the output folder of fgfast convert.
    """
    from fgfast.studies import masking_study as module

    chosen = changed_recipes(split(recipes), given)
    cells = module.cells(
        split(backbones) or module.BACKBONES,
        split(strategies),
        [one.name for one in chosen],
        range(given["seeds"]),
        not given["no_pretrained"],
        share,
        given["fill"],
    )
    train_and_show("masking", run, chosen, cells, module.TESTS, given)


@study.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    show_default="those of the paper",
    help="Names a model of timm, a file of weights named like one, or a folder STUDY/cells/NAME of a trained one.",
)
@click.option("--arm", "arms", multiple=True, show_default="x, x_fg, only-bg, x-box", help="Names what is shown.")
@with_options
def features(run: Path, backbones: tuple[str, ...], arms: tuple[str, ...], **given: Any) -> None:
    """Measure how classes lie in the features of backbones, with and without background; nothing is trained.

    RUN is the output folder of fgfast convert. Options of training have no effect but --batch and --image-size.
    """
    from fgfast.studies import crossval as of_paper
    from fgfast.studies import features_run
    from fgfast.studies.cell import Cell
    from fgfast.studies.request import devices_of, grid_of

    (chosen,) = changed_recipes(("quick",), given)
    cells = [
        Cell("features", name, recipe=chosen.name, pretrained=not given["no_pretrained"])
        for name in split(backbones) or of_paper.BACKBONES
    ]
    grid, pairs, _ = grid_of(request_of(run, [chosen], given), "features", cells, of_paper.TESTS)
    grid.check(given["overwrite"])
    devices = devices_of(given["devices"])
    lines = (
        f"features of {grid.dataset}: {len(grid.train):,} images train, {len(grid.test):,} test, "
        f"{len(pairs.classes):,} classes, from {run}",
        f"  {len(cells)} backbones, on {devices[0]}",
        f"  to {grid.out}",
    )
    if not given["as_json"]:
        note("\n".join(map(line, lines)))
    if given["dry_run"]:
        return
    found = features_run.run(
        grid,
        split(arms) or features_run.ARMS,  # type: ignore[arg-type]
        devices[0],
        overwrite=given["overwrite"],
        progress=None if given["as_json"] else lambda text: note(message(f"  {text}")),
    )
    if given["as_json"]:
        say_json(json.dumps({"out": str(grid.out), "figures": found.figures, "failed": found.failed}, indent=2))
    else:
        sentences = [f"{text} {sure}".strip() for text, sure in found.verdict]
        say(message("\n".join([*sentences, f"page: {grid.out / 'study.html'}"])))
    sys.exit(EXIT_SOME_FAILED if found.failed else 0)


@study.command()
@click.argument("studies", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Names the folder of the page.  [default: that of the first study]"
)
@click.option("--compare", is_flag=True, help="Compares two studies: the second minus the first.")
@verbose_option
def report(studies: tuple[Path, ...], out: Path | None, compare: bool) -> None:
    """Make one page of finished studies, of one data set or of several, from their folders alone.

    The paper's findings stand first, each over data sets and backbones: holds, does not hold, or too few runs.
    """
    from fgfast.studies import report as module
    from fgfast.studies.page import write_comparison
    from fgfast.studies.stored import stored
    from fgfast.writing import Target

    target = Target(out or studies[0])
    if not compare:
        say(f"page: {module.together(target, studies)}")
        return
    if len(studies) != 2:
        raise click.UsageError("--compare takes two studies")
    write_comparison(target, *(stored(folder).study for folder in studies))
    say(f"page: {target.path / 'compared.html'}")


def split(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for name in names for part in name.split(",") if part.strip())


def changed_recipes(names: Sequence[str], given: dict[str, Any]) -> list[Recipe]:
    """Return recipes, with what the command's options change in them."""
    from fgfast.studies.recipes import recipe

    changed = {key: given[key] for key in ("epochs", "batch", "lr", "image_size")}
    return [recipe(name, **changed) for name in names]


def request_of(run: Path, recipes: Sequence[Recipe], given: dict[str, Any]) -> Request:
    """Return what the options ask."""
    from fgfast.studies.request import Request

    return Request(
        run=run,
        out=given["out"],
        root=given["root"],
        recipes={one.name: one for one in recipes},
        pretrained=not given["no_pretrained"],
        keep_weights=not given["no_weights"],
        options=_timm(given["timm"]),
        waterbirds=given.get("waterbirds"),
        waterbirds_root=given.get("waterbirds_root"),
        **{key: given[key] for key in ("seeds", "seed", "test_share", "flagged", "fill", "select", "limit", "parts")},
    )


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

    with Interruption("each training ends after its current step, and goes on from its last epoch") as interruption:
        carried = carry_out(
            grid,
            devices,
            stop=interruption.stop,
            progress=progress,
            overwrite=given["overwrite"],
            in_process=given["in_process"],
            deadline=given["deadline"],
        )
    page = write(grid, [(one.cell.name, one.failed) for one in carried.failed], groups)
    _end(grid, carried, page, as_json)
    if carried.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if carried.failed else 0)


def _timm(given: Sequence[str]) -> dict[str, Any]:
    """Return options of timm: values are Python's, lists as 1,2,3."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--timm takes NAME=VALUE, as in drop_rate=0.1, not {text!r}")
        try:
            found[name] = json.loads(f"[{value}]" if "," in value else value)
        except ValueError:
            found[name] = value
    return found


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
    time = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    return f"{facts['cells']} trainings, {facts['epochs']} epochs, about {time}, {facts['bytes'] / 1e9:.2f} GB on disk"


def _end(grid: Grid, carried: Carried, page: Path | None, as_json: bool) -> None:
    from fgfast.studies.page import verdict

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
