"""`fgfast export`; the same command runs as `python -m fgfast.export` and, per family, as the scripts in export/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from fgfast.errors import UsageError
from fgfast.export.exportable import (
    DETIC_SPLIT,
    EXPORTABLE,
    Common,
    check_installed,
    family_of,
    graphs_of,
    parse_canvases,
)
from fgfast.methods import PRECISIONS, ModelSpec, find
from fgfast.terminal import Command, note, report, say_path

if TYPE_CHECKING:
    from fgfast.export.quantise_sample import CalibrationSample
    from fgfast.records import Size


def _canvases(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> list[Size] | Common:
    try:
        return parse_canvases(",".join(texts)) if texts else []
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in EXPORTABLE if name.startswith(incomplete)]


@click.command(
    cls=Command,
    help=f"""Write a model as ONNX, optionally as a TensorRT engine as well, and compare it with PyTorch.

    MODEL is one of {", ".join(EXPORTABLE)}. A graph that differs from PyTorch is deleted. Export a model once;
    afterwards `fgfast convert` uses whichever backend is fastest on this machine.
    """,
)
@click.argument("model", shell_complete=_models)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *PRECISIONS]),
    help="Computes the matrix products in this precision; auto is bf16 on a GPU that supports it, otherwise fp32. fp8 "
    "and int8 quantise SAM's image encoder and need --calibrate.",
)
@click.option(
    "--calibrate",
    metavar="DATASET",
    help="Finds the scales of a quantised encoder on images of this data set, a name or a folder, and compares the "
    "masks of other images of it with those in float32.",
)
@click.option(
    "--images",
    default=32,
    show_default=True,
    type=click.IntRange(8),
    help="Takes this many images of the data set: half of them give the scales, the other half are compared.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Makes graphs that take this many images per call; by default 1, and 4 for TensorRT.",
)
@click.option(
    "--words",
    type=click.IntRange(1),
    help="Makes Detic's heads for vocabularies of up to this many words; by default any number in ONNX files, and "
    "LVIS's 1203 for TensorRT.",
)
@click.option(
    "--canvas",
    "canvases",
    multiple=True,
    callback=_canvases,
    metavar="HEIGHTxWIDTH|common",
    help="Makes a detector's graph for padded images of this size in pixels, multiples of 32, or for several sizes "
    "separated by commas; by default for two sizes that hold every image. With common also for square, 4:3 and 3:2 "
    "images, seven in all: a run takes the smallest that holds the image.",
)
@click.option(
    "--split",
    is_flag=True,
    help="Writes Detic as two graphs, between which proposals are suppressed; always so for TensorRT.",
)
@click.option(
    "--backend",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "tensorrt"]),
    help="Writes ONNX files (onnx), or also builds the engines for this machine's first GPU (tensorrt).",
)
@click.option(
    "--model-weights",
    default="cached",
    show_default=True,
    help="Loads the weights from the cache (cached) or from a file, or draws them at random (random:SEED).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Writes the graphs into this folder; by default into the one where fgfast convert finds them.",
)
def export(
    model: str,
    precision: str,
    batch: int | None,
    backend: str,
    model_weights: str,
    out: Path | None,
    canvases: Sequence[Size] | Common = (),
    split: bool = False,
    words: int | None = None,
    graphs: Sequence[str] = (),
    calibrate: str | None = None,
    images: int = 32,
) -> None:
    """The help is above, because it lists the models; only scripts pass `graphs`, see `main`."""
    model = found.name if (found := find(model)) else model
    family_of(model)  # raises, before anything slow is imported
    _check_options(model, split=split, words=words, canvases=canvases, calibrate=calibrate)
    check_installed()
    from fgfast.export import make

    spec = ModelSpec(model, model_weights, make.choose_precision(precision), batch=batch)
    wanted = graphs_of(model, DETIC_SPLIT if split else graphs)
    make.check_sample(spec, wanted, calibrate is not None)  # before the images are read
    if backend == "tensorrt":
        make.check_tensorrt(spec.precision)
    paths = make.export(
        spec,
        canvases=canvases,
        graphs=wanted,
        backend=backend,
        words=words,
        out=out,
        sample=_sample(model, calibrate, images) if calibrate is not None else None,
        on_message=note,
    )
    for path in paths:
        say_path(path)


def _check_options(
    model: str, *, split: bool, words: int | None, canvases: Sequence[Size] | Common, calibrate: str | None
) -> None:
    """Refuse options that would have no effect, before anything slow begins."""
    if family_of(model) != "detic" and (split or words is not None):
        option = "--split" if split else "--words"
        raise UsageError(f"{option} is for detic, and has no effect on {model}: omit it")
    if canvases and family_of(model) == "sam":
        raise UsageError(f"{model} takes images of one size: omit --canvas")
    given = click.get_current_context().get_parameter_source("images")
    if calibrate is None and given is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--images is the number of images of --calibrate, and has no effect without it: omit it")


def _sample(model: str, dataset: str, images: int) -> CalibrationSample:
    from fgfast.export.quantise_sample import draw
    from fgfast.models.sam.architecture import architecture

    note(f"calibrating on {images} images of {dataset}")
    return draw(dataset, images, architecture(model.removeprefix("sam_")).side)


def main(description: str | None = None, model: str | None = None, graphs: Sequence[str] = ()) -> NoReturn:
    """Run the command outside fgfast's command line.

    Args:
        description: what --help prints first, with its line breaks; None keeps that of `fgfast export`.
        model: of a script for one family of models: the default of its option --model, which replaces the argument
            MODEL. None allows any model.
        graphs: names of fgfast.graphs to write; empty takes those that `fgfast convert` loads.
    """
    command: click.Command = export
    if model is not None:
        family = family_of(model)
        names = ", ".join(name for name in EXPORTABLE if name.startswith(family))
        quantising = ("calibrate", "images")
        absent = {
            "detic": ("model", *quantising),
            "grounding_dino": ("model", "split", "words", *quantising),
            "sam": ("model", "split", "canvases", "words"),
        }
        chosen = click.Option(["--model"], default=model, show_default=True, help=f"Exports this model: {names}.")
        options = [option for option in export.params if option.name not in absent[family]]
        assert export.callback is not None
        callback = partial(export.callback, graphs=graphs)
        command = Command(None, params=[chosen, *options], callback=callback)
    if description:
        command.help = "\b\n" + description.strip().replace("\n\n", "\n\n\b\n")
    try:
        command.main(help_option_names=["-h", "--help"], max_content_width=110)
    except Exception as error:
        sys.exit(report(error))
