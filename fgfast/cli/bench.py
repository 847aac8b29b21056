"""`fgfast bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.bench_output import DIR, OUTPUTS, Option, add_options, count_option, folder_of, path_option, report
from fgfast.cli.bench_simulate import bench_floors, bench_simulate
from fgfast.cli.frame import Commands
from fgfast.cli.settings import settings_options

if TYPE_CHECKING:
    from fgfast.bench.job import Job


def _device(default: str, help: str) -> Option[Any]:
    return click.option("--device", default=default, show_default=True, help=help)


_PLOT = path_option("--plot", help="Also draws the result as a figure into a .png, .svg or .pdf file.")
_TRACE = path_option("--trace", help="Also writes the run as a Chrome trace, for ui.perfetto.dev or chrome://tracing.")
_WEIGHTS = click.option(
    "--model-weights",
    help="Loads the weights from the cache (cached) or a file, or draws them at random (random:SEED).  "
    "[default: random]",
)
_NULL = click.option("--null", is_flag=True, help="Leaves the models out: the data set's boxes serve as masks.")
_ROUNDS = "Measures this many rounds and reports the medians."
_IMAGES = "Measures on this many images.  [default: 24; 2000 with --null]"
_JOB = (
    settings_options(
        (
            *("segmenter", "detector", "model_weights", "precision", "batch", "model_threads", "decoder"),
            "workers_per_device",
        ),
        segmenter="sam_vit_b",
        detector="detic",
        model_weights="random:0",
    ),
    count_option(
        "--cpu-threads", help="Sets the threads for everything but the models.  [default: as convert chooses]"
    ),
)


@click.group(cls=Commands, invoke_without_command=True)
@add_options(_WEIGHTS, DIR, *OUTPUTS, _PLOT, _TRACE)
@click.pass_context
def bench(ctx: click.Context, /, model_weights: str | None, folder: Path | None, **output: Any) -> None:
    """Measure this machine. Without a command, measure everything in a few minutes and print a verdict."""
    if ctx.invoked_subcommand is not None:
        for name in ("model_weights", "folder", *output):
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"the options of {ctx.invoked_subcommand} must follow its name")
        return
    from fgfast.bench import job, whole
    from fgfast.terminal import note

    weights = model_weights or job.MODEL_WEIGHTS
    report("all", lambda: whole.measure(folder=folder_of(folder), model_weights=weights, on_message=note), **output)


@bench.command("ops")
@click.argument("ops", nargs=-1)
@add_options(
    count_option("--rounds", 7, help=_ROUNDS),
    click.option("--short", is_flag=True, help="Measures on small images only."),
    *OUTPUTS,
    _PLOT,
)
def bench_ops(ops: tuple[str, ...], rounds: int, short: bool, **output: Any) -> None:
    """Measure the native ops beside NumPy, PyTorch, OpenCV, Pillow.

    OPS: mask_post, composite, rle_encode, resize, nms, attention, attention_bf16, evidence; by default
    all.
    """
    from fgfast.bench.ops import measure

    report("ops", lambda: measure(rounds=rounds, only=ops, short=short), **output)


@bench.command("models")
@click.argument("model", default="sam_vit_b", type=click.Choice(["sam_vit_b", "sam_vit_l", "sam_vit_h", "detic"]))
@add_options(
    count_option("--rounds", 5, help=_ROUNDS),
    _WEIGHTS,
    _device("auto", "Runs all contenders on this device: auto, cpu, cuda:0, ..."),
    click.option(
        "--peers",
        is_flag=True,
        help="Also measures the engines that are installed of OpenVINO, ONNX Runtime and transformers, on the CPU.",
    ),
    *OUTPUTS,
)
def bench_models(model: str, rounds: int, model_weights: str | None, device: str, peers: bool, **output: Any) -> None:
    """Measure a model beside its reference.

    The reference of SAM is segment-anything, that of Detic is the original, each where it is installed.
    """
    from fgfast.models.files.checkpoints import import_torch

    import_torch("fgfast bench models")
    from fgfast.models.serving.devices import choose_device

    where = choose_device(device)
    given: dict[str, Any] = {"rounds": rounds, "device": where, "with_peers": peers}
    if model == "detic":
        from fgfast.bench import detic

        weights = model_weights or detic.MODEL_WEIGHTS
        report("detic", lambda: detic.measure(model_weights=weights, **given), **output)
        return
    from fgfast.bench import models

    name, weights = model.removeprefix("sam_"), model_weights or models.MODEL_WEIGHTS
    report(model, lambda: models.measure_sam(name, model_weights=weights, **given), **output)


@bench.command("io")
@add_options(
    count_option("--images", 2000, 8, help="Measures on this many images per round."),
    count_option("--rounds", 5, help=_ROUNDS),
    count_option("--cpu-threads", help="Sets the threads of fgfast.  [default: as convert chooses]"),
    DIR,
    *OUTPUTS,
)
def bench_io(images: int, rounds: int, cpu_threads: int | None, folder: Path | None, **output: Any) -> None:
    """Measure decode, cut, write and ledger without a model, beside a plain Pillow loop."""
    from fgfast.bench.io import measure

    where = folder_of(folder)
    report("io", lambda: measure(images=images, rounds=rounds, cpu_threads=cpu_threads, folder=where), **output)


@bench.command("expand")
@click.argument("kinds", metavar="[KIND]...", nargs=-1)
@add_options(
    count_option("--images", 1000, 8, help="Measures on at most this many images; slow kinds take fewer."),
    count_option("--rounds", 3, help=_ROUNDS),
    count_option("--workers", 2, 2, help="Compares one worker with this many."),
    DIR,
    *OUTPUTS,
)
def bench_expand(
    kinds: tuple[str, ...], images: int, rounds: int, workers: int, folder: Path | None, **output: Any
) -> None:
    """Measure the kinds of expansion, by default all, beside a plain loop over the same library calls."""
    from fgfast.bench.expand import measure
    from fgfast.expand import table

    chosen = [table.kind(name).name for name in kinds]
    where = folder_of(folder)
    report(
        "expand",
        lambda: measure(kinds=chosen, images=images, rounds=rounds, workers=workers, folder=where),
        **output,
    )


@bench.command("decoders")
@add_options(
    path_option("--folder", help="Decodes the JPEGs in this folder.  [default: random images and sample photographs]"),
    _device("cpu", "Decodes on this device: cpu, cuda:0, ..."),
    count_option("--rounds", 5, help=_ROUNDS),
    settings_options(("segmenter", "model_weights")),
    *OUTPUTS,
)
def bench_decoders(folder: Path | None, device: str, as_json: bool, old: Path | None, save: bool, **given: Any) -> None:
    """Measure the JPEG decoders: rates, pixels, and whether their pixels give the same masks."""
    from fgfast.bench.decoders import measure

    where = folder_of(folder) if folder else None
    report("decoders", lambda: measure(folder=where, device=device, **given), as_json, old, save)


@bench.command("pipeline")
@add_options(
    _NULL,
    count_option("--images", help=_IMAGES),
    count_option("--rounds", 1, help=_ROUNDS),
    count_option("--references", 2, 0, help="Runs the references on this many images, too."),
    click.option("--devices", help="Runs workers on these devices, separated by commas: cpu, cuda:0, ..."),
    settings_options(("placement",)),
    *_JOB,
    DIR,
    *OUTPUTS,
    _PLOT,
    _TRACE,
)
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
    """Measure a whole run from files to files: stages, devices, memory, arithmetic floor, reference."""
    from fgfast.bench import job, pipeline

    what, output = _job(null, options)
    what = job.on(what, tuple(devices.split(",")) if devices else (), placement)
    count, where = images or (24 if what.models else 2000), folder_of(folder)
    report(
        "pipeline" if what.models else "pipeline-null",
        lambda: pipeline.measure(what, images=count, folder=where, rounds=rounds, references=references),
        **output,
    )


@bench.command("scaling")
@add_options(
    click.option(
        "--devices",
        multiple=True,
        help="Measures on these devices, such as cuda:0,cuda:1; repeatable.  [default: all]",
    ),
    _NULL,
    count_option("--images", help=_IMAGES),
    count_option("--rounds", 1, help=_ROUNDS),
    *_JOB,
    DIR,
    *OUTPUTS,
    _PLOT,
)
def bench_scaling(
    devices: tuple[str, ...], null: bool, images: int | None, rounds: int, folder: Path | None, **options: Any
) -> None:
    """Measure one run on one device and on several.

    Each list of devices runs in both placements, replicate and split; all twins must have the same bytes.
    """
    from fgfast.bench import scaling

    what, output = _job(null, options)
    count, where = images or (24 if what.models else 2000), folder_of(folder)
    report("scaling", lambda: scaling.measure(what, devices, images=count, folder=where, rounds=rounds), **output)


def _job(null: bool, options: dict[str, Any]) -> tuple[Job, dict[str, Any]]:
    """The job that the options describe, and the remaining options."""
    from fgfast.bench import job

    of_models = ("segmenter", "detector", "model_weights", "precision", "batch", "model_threads", "decoder")
    source, by_hand = click.get_current_context().get_parameter_source, click.core.ParameterSource.COMMANDLINE
    for name in (*of_models, "placement"):
        if null and source(name) is by_hand:
            raise click.UsageError(f"--{name.replace('_', '-')} has no effect with --null: no model runs")
    made = job.Job(**{name: options.pop(name) for name in (*of_models, "workers_per_device", "cpu_threads")})
    return job.null(made.cpu_threads, made.workers_per_device) if null else made, options


bench.add_command(bench_simulate)
bench.add_command(bench_floors)
