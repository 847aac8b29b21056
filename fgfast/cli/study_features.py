"""`fgfast study features`: how classes lie in the features of backbones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.cli.study_options import OF_TRAINING, changed_recipes, request_of, split, without_training
from fgfast.terminal import line, message, note, say, say_json

if TYPE_CHECKING:
    from fgfast.studies.cell import Arm
    from fgfast.studies.features_estimate import Estimate
    from fgfast.studies.features_run import Found
    from fgfast.studies.grid import Grid
    from fgfast.studies.request import Request


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    show_default="those of the paper",
    help="Names a model of timm, a file of weights named like one, or a folder STUDY/cells/NAME of a trained one.",
)
@click.option("--arm", "arms", multiple=True, show_default="x, x_fg, only-bg, x-box", help="Names what is shown.")
@without_training
def features(run: Path, backbones: tuple[str, ...], arms: tuple[str, ...], **given: Any) -> None:
    """Measure how classes lie in the features of backbones, with and without background; nothing is trained.

    RUN is the output folder of fgfast convert.
    """
    from fgfast.cli.interruption import Interruption
    from fgfast.studies import features_run
    from fgfast.studies.run import loaders_for

    shown: tuple[Arm, ...] = split(arms) or features_run.ARMS  # type: ignore[assignment]
    features_run.check(shown)
    device = _device(given["devices"])
    grid, request = _grid(run, split(backbones), given)
    grid.check(given["overwrite"])
    as_json, threads = given["as_json"], loaders_for((device,))
    if not as_json:
        note("\n".join(line(text) for text in _lines(grid, shown, device, request)))
    if given["dry_run"]:
        from fgfast.studies.features_estimate import estimate

        _say_estimate(estimate(grid, shown, device, threads), as_json)
        return
    with Interruption("features of an arm that is not finished are computed again") as interruption:
        found = features_run.run(
            grid,
            shown,
            device,
            threads=threads,
            overwrite=given["overwrite"],
            progress=None if as_json else lambda text: note(message(f"  {text}")),
            stop=interruption.stop,
        )
    _end(grid, found, as_json)
    if found.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if found.failed else 0)


def _device(asked: str) -> str:
    """Return the one device: of all that there are, the first."""
    from fgfast.studies.request import devices_of

    if "," in asked:
        raise click.UsageError(f"features are computed on one device, as in --devices cuda:0, not {asked!r}")
    return devices_of(asked)[0]


def _grid(run: Path, backbones: tuple[str, ...], given: dict[str, Any]) -> tuple[Grid, Request]:
    from fgfast.studies import crossval
    from fgfast.studies.cell import Cell
    from fgfast.studies.request import grid_of

    given = {**given, **{name[2:].replace("-", "_"): value for name, value in OF_TRAINING.items()}}
    (chosen,) = changed_recipes(("quick",), given)
    names = [str(Path(name)) if Path(name).is_dir() else name for name in backbones or crossval.BACKBONES]
    cells = [Cell("features", name, recipe=chosen.name, pretrained=not given["no_pretrained"]) for name in names]
    request = request_of(run, [chosen], given)
    return grid_of(request, "features", cells, crossval.TESTS).grid, request


def _lines(grid: Grid, arms: tuple[Arm, ...], device: str, request: Request) -> list[str]:
    """Return what will be done, in a few lines."""
    return [
        f"features of {grid.dataset}: {len(grid.train):,} images train, {len(grid.test):,} test, "
        f"{len(grid.pairs.classes):,} classes, from {request.run}",
        f"  {len(grid.cells)} backbones, {', '.join(arms)}, on {device}",
        f"  to {grid.out}",
    ]


def _say_estimate(found: Estimate, as_json: bool) -> None:
    hours = found.seconds / 3600
    if as_json:
        facts = {"backbones": found.backbones, "images": found.images, "hours": hours, "bytes": found.bytes}
        say_json(json.dumps(facts, indent=2))
        return
    time = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    size = f"{found.bytes / 1e9:.2f} GB on disk"
    say(f"{found.backbones} backbones, {found.images:,} images in all, about {time}, {size}; then measures and maps")


def _end(grid: Grid, found: Found, as_json: bool) -> None:
    sentences = [f"{text} {sure}".strip() for text, sure in found.verdict]
    if as_json:
        facts = {"out": str(grid.out), "figures": found.figures, "verdict": sentences, "failed": found.failed}
        say_json(json.dumps(facts, indent=2))
        return
    for backbone, why in found.failed.items():
        note(message(f"  {backbone}: {why}"))
    page = "no page: it was stopped; the same command goes on" if found.stopped else f"page: {grid.out / 'study.html'}"
    say(message("\n".join([*sentences, page])))
