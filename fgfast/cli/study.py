"""`fgfast study`: what the background did to classifiers, a command per study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgfast.cli.frame import verbose_option
from fgfast.cli.study_features import features
from fgfast.cli.study_gradcam import gradcam
from fgfast.cli.study_options import changed_recipes, split, with_options
from fgfast.cli.study_training import train_and_show
from fgfast.terminal import Group, say


@click.group(cls=Group)
def study() -> None:
    """Train classifiers with and without background, and show what it did.

    A study that was stopped goes on where it was, by the same command. Exit codes are those of fgfast convert.
    """


study.add_command(features)
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
