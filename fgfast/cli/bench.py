"""`fgfast bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fgfast.cli.frame import Commands, choices
from fgfast.config import DECODERS, DETECTORS, PLACEMENTS, PRECISIONS, SEGMENTERS

if TYPE_CHECKING:
    from fgfast.bench.job import Job

F = TypeVar("F", bound=Callable[..., Any])

_OUTPUTS = (
    click.option("--json", "as_json", is_flag=True, help="Print as JSON."),
    click.option("--html", type=click.Path(path_type=Path), help="Also write a page for a browser."),
    click.option(
        "--compare",
        "old",
        type=click.Path(path_type=Path),
        help="An earlier result (--json, --save): what got slower than noise.",
    ),
    click.option("--save", is_flag=True, help="Also write bench/results/NAME-COMMIT.json; outside a clone, here."),
)
_DIR = click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [default: the current folder]"
)
_ROUNDS_HELP = "Rounds; medians are quoted."


def outputs(command: F) -> F:
    """What every bench can do with its result."""
    for option in reversed(_OUTPUTS):
        command = option(command)
    return command


def job_options(command: F) -> F:
    """What is converted with what."""
    given = (
        click.option(
            "--segmenter",
            default="sam_vit_b",
            show_default=True,
            help="As for convert; box: none.",
            shell_complete=choices(SEGMENTERS),
        ),
        click.option(
            "--detector",
            default="detic",
            show_default=True,
            help="As for convert; annotations: none.",
            shell_complete=choices(DETECTORS),
        ),
        click.option("--model-weights", help="cached, random:SEED, or a file.  [default: made up]"),
        click.option(
            "--precision",
            default="auto",
            show_default=True,
            help=f"Of the models: {', '.join(PRECISIONS)}.",
            shell_complete=choices(PRECISIONS),
        ),
        click.option("--batch", type=click.IntRange(1), help="Images at once.  [default: as convert chooses]"),
        click.option("--threads", type=click.IntRange(1), help="Of a model on a CPU.  [default: as convert chooses]"),
        click.option(
            "--decoder", default="auto", show_default=True, help="As for convert.", shell_complete=choices(DECODERS)
        ),
        click.option("--workers", type=click.IntRange(1), help="Other threads.  [default: as convert chooses]"),
    )
    for option in reversed(given):
        command = option(command)
    return command


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--model-weights", help="cached, random:SEED, or a file.  [default: made up]")
@_DIR
@outputs
@click.pass_context
def bench(ctx: click.Context, /, model_weights: str | None, folder: Path | None, **output: Any) -> None:
    """Measure this machine. Without a command: all of it in a few minutes, and a verdict."""
    if ctx.invoked_subcommand is not None:
        for name in ("model_weights", "folder", *output):
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"options of {ctx.invoked_subcommand} stand behind it")
        return
    from fgfast.bench import job, whole
    from fgfast.cli.console import note

    weights = model_weights or job.MODEL_WEIGHTS
    _report("all", lambda: whole.measure(folder=_folder(folder), model_weights=weights, say=note), **output)


@bench.command("ops")
@click.argument("ops", nargs=-1)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help=_ROUNDS_HELP)
@click.option("--short", is_flag=True, help="On small images only.")
@outputs
def bench_ops(ops: tuple[str, ...], rounds: int, short: bool, **output: Any) -> None:
    """The native ops beside NumPy, PyTorch, OpenCV, Pillow.

    OPS: mask_post, composite, rle_encode, resize, nms, attention; by default all.
    """
    from fgfast.bench.ops import measure

    _report("ops", lambda: measure(rounds=rounds, only=ops, short=short), **output)


@bench.command("models")
@click.argument("model", default="sam_vit_b", type=click.Choice(["sam_vit_b", "sam_vit_l", "sam_vit_h", "detic"]))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help=_ROUNDS_HELP)
@click.option("--model-weights", help="cached, random:SEED, or a file.  [default: made up]")
@click.option("--device", default="auto", show_default=True, help="Where all compute: auto, cpu, cuda:0, ...")
@outputs
def bench_models(model: str, rounds: int, model_weights: str | None, device: str, **output: Any) -> None:
    """A model beside its reference: SAM beside segment-anything, Detic beside the original where it is installed."""
    from fgfast.models.files.checkpoints import import_torch

    import_torch("fgfast bench models")
    from fgfast.models.serving.devices import choose_device

    where = choose_device(device)
    if model == "detic":
        from fgfast.bench import detic

        weights = model_weights or detic.MODEL_WEIGHTS
        _report("detic", lambda: detic.measure(rounds=rounds, model_weights=weights, device=where), **output)
        return
    from fgfast.bench import models

    name, weights = model.removeprefix("sam_"), model_weights or models.MODEL_WEIGHTS
    _report(model, lambda: models.measure_sam(name, rounds=rounds, model_weights=weights, device=where), **output)


@bench.command("io")
@click.option("--images", default=2000, show_default=True, type=click.IntRange(8), help="Images per round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help=_ROUNDS_HELP)
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one for each core]")
@_DIR
@outputs
def bench_io(images: int, rounds: int, workers: int | None, folder: Path | None, **output: Any) -> None:
    """Decode, cut, write and ledger without a model, beside a plain Pillow loop."""
    from fgfast.bench.io import measure

    where = _folder(folder)
    _report("io", lambda: measure(images=images, rounds=rounds, workers=workers, folder=where), **output)


@bench.command("pipeline")
@click.option("--null", is_flag=True, help="Without models: boxes are given and are the masks.")
@click.option("--images", type=click.IntRange(1), help="How many.  [default: 24; 2000 with --null]")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help=_ROUNDS_HELP)
@click.option("--references", default=2, show_default=True, type=click.IntRange(0), help="Images of the reference.")
@click.option("--devices", help="One for each worker process, between commas: cpu, cuda:0, ...")
@click.option(
    "--placement",
    default="auto",
    show_default=True,
    help=f"{', '.join(PLACEMENTS)}.",
    shell_complete=choices(PLACEMENTS),
)
@job_options
@_DIR
@outputs
def bench_pipeline(
    null: bool,
    images: int | None,
    rounds: int,
    references: int,
    devices: str | None,
    placement: str,
    folder: Path | None,
    **options: Any,
) -> None:
    """The whole job from files to files: stages, devices, queues, memory, the arithmetic floor, the reference."""
    from fgfast.bench import job, pipeline

    what, output = _job(options)
    if null:
        what = job.null(what.workers)
    what = job.on(what, tuple(devices.split(",")) if devices else (), placement)
    count, where = images or (24 if what.models else 2000), _folder(folder)
    _report(
        "pipeline" if what.models else "pipeline-null",
        lambda: pipeline.measure(what, images=count, folder=where, rounds=rounds, references=references),
        **output,
    )


@bench.command("scaling")
@click.option(
    "--devices", multiple=True, help="A list such as cuda:0,cuda:1; again for more.  [default: what is there]"
)
@click.option("--null", is_flag=True, help="Without models: boxes are given and are the masks.")
@click.option("--images", type=click.IntRange(1), help="A run.  [default: 24; 2000 with --null]")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help=_ROUNDS_HELP)
@job_options
@_DIR
@outputs
def bench_scaling(
    devices: tuple[str, ...], null: bool, images: int | None, rounds: int, folder: Path | None, **options: Any
) -> None:
    """The same job on one device and on several, in both placements; the twins must be the same bytes."""
    from fgfast.bench import job, scaling

    what, output = _job(options)
    if null:
        what = job.null(what.workers)
    count, where = images or (24 if what.models else 2000), _folder(folder)
    _report(
        "scaling",
        lambda: scaling.measure(what, devices, images=count, folder=where, rounds=rounds),
        **output,
    )


def _folder(folder: Path | None) -> Path:
    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    return (folder or Path()).absolute()


def _job(options: dict[str, Any]) -> tuple[Job, dict[str, Any]]:
    """The job that options ask for, and the options that are left."""
    from fgfast.bench.job import MODEL_WEIGHTS, Job

    names = ("segmenter", "detector", "precision", "batch", "threads", "decoder", "workers")
    weights = options.pop("model_weights") or MODEL_WEIGHTS
    return Job(**{name: options.pop(name) for name in names}, model_weights=weights), options


def _report(
    name: str, measure: Callable[[], dict[str, Any]], as_json: bool, html: Path | None, old: Path | None, save: bool
) -> None:
    """Measure, and do with the result what was asked for. What cannot be used is found out before."""

    from fgfast.bench import compare, page, result, text
    from fgfast.cli.console import note

    before = compare.read(old, name) if old else None
    if html is not None and not html.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {html.absolute().parent}")
    busy = result.busy()
    if busy:
        note(busy)
    try:
        found = measure()
    except AssertionError as error:
        raise click.ClickException(f"nothing is quoted, for results are not what they must be: {error}") from error
    found["notes"] += [busy] if busy else []
    comparison = compare.compare(before, found) if before else None
    if html:
        page.write(html, found, comparison)
        note(f"page: {html}")
    if save:
        note(f"saved: {result.save(found)}")
    if as_json:
        told = found | ({"comparison": comparison.plain()} if comparison else {})
        click.echo(result.text_of(told))
        return
    click.echo(text.table(found))
    if comparison:
        click.echo("\n" + text.comparison(comparison))
