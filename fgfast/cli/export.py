"""`fgfast export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgfast.cli.frame import choices
from fgfast.config import PRECISIONS
from fgfast.export.exportable import DETIC_SPLIT, EXPORTABLE, check_installed, parse_canvas


def _canvases(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> list[tuple[int, int]]:
    try:
        return [parse_canvas(text) for text in ",".join(texts).split(",")] if texts else []
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    help=f"""Write a model as ONNX, and as a TensorRT engine if asked, and compare it with PyTorch.

    MODEL is one of {", ".join(EXPORTABLE)}. A graph that differs from PyTorch is deleted. Export a model once;
    afterwards `fgfast convert` uses whichever backend is fastest on this machine.
    """
)
@click.argument("model", shell_complete=choices(EXPORTABLE))
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help=f"The matrix products are computed in this precision: {', '.join(PRECISIONS)}; auto is bf16 on a GPU that has "
    "it, else fp32.",
    shell_complete=choices(PRECISIONS),
)
@click.option(
    "--batch",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="The graph takes this many images per call.",
)
@click.option(
    "--canvas",
    "canvases",
    multiple=True,
    callback=_canvases,
    help="A detector's graph is made for padded images of these sizes, HEIGHTxWIDTH between commas.  "
    "[default: two that hold every image]",
)
@click.option(
    "--split", is_flag=True, help="Detic is written as two graphs, between which the caller suppresses proposals."
)
@click.option(
    "--backend",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "tensorrt"]),
    help="onnx writes ONNX files; tensorrt also builds the engines for the first GPU.",
)
@click.option(
    "--model-weights",
    default="cached",
    show_default=True,
    help="The weights are the cached ones, random ones (random:SEED), or those of a file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The graphs are written into this folder.  [default: where convert finds them]",
)
def export(**options: Any) -> None:
    from fgfast.cli.console import note

    check_installed()
    from fgfast.export import make

    paths = make.export(
        options["model"],
        weights=options["model_weights"],
        precision=make.choose_precision(options["precision"]),
        batch=options["batch"],
        canvases=options["canvases"],
        graphs=DETIC_SPLIT if options["split"] else (),
        backend=options["backend"],
        out=options["out"],
        on_message=note,
    )
    for path in paths:
        click.echo(path)
