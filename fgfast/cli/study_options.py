"""The options of studies, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fgfast.cli.convert import DEADLINE
from fgfast.cli.frame import verbose_option

if TYPE_CHECKING:
    from fgfast.studies.recipes import Recipe
    from fgfast.studies.request import Request

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
        "--limit",
        type=click.IntRange(1),
        help="Trains, and tests, on this many images at most, but one of each class at least.",
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


# Options of trainings alone, with what they are where nothing is trained.
OF_TRAINING = {
    "--seeds": 1,
    "--epochs": None,
    "--lr": None,
    "--select": "last",
    "--parts": 1,
    "--no-weights": False,
    "--deadline": DEADLINE,
    "--in-process": False,
}


def with_options(command: F) -> F:
    """Give a command the options of every study that trains."""
    for option in reversed(_COMMON):
        command = option(command)
    return command


def without_training(command: F) -> F:
    """Give a command the options of every study but those of trainings."""
    with_options(command)
    given: Any = command
    given.__click_params__ = [p for p in given.__click_params__ if not set(p.opts) & OF_TRAINING.keys()]
    return command


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
