"""`fgfast export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgfast.cli.frame import choices
from fgfast.export.exportable import DETIC_SPLIT, EXPORTABLE, HELP, check_installed, parse_canvases
from fgfast.methods import PRECISIONS, ModelSpec
from fgfast.records import Size


def _canvases(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> list[Size]:
    try:
        return parse_canvases(",".join(texts)) if texts else []
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
    help=HELP["precision"],
    shell_complete=choices(("auto", *PRECISIONS)),
)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help=HELP["batch"])
@click.option("--canvas", "canvases", multiple=True, callback=_canvases, metavar="HEIGHTxWIDTH", help=HELP["canvas"])
@click.option("--split", is_flag=True, help=HELP["split"])
@click.option(
    "--backend", default="onnx", show_default=True, type=click.Choice(["onnx", "tensorrt"]), help=HELP["backend"]
)
@click.option("--model-weights", default="cached", show_default=True, help=HELP["model_weights"])
@click.option("--out", type=click.Path(path_type=Path), help=HELP["out"])
def export(**options: Any) -> None:
    from fgfast.cli.console import note

    check_installed()
    from fgfast.export import make

    spec = ModelSpec(
        options["model"], options["model_weights"], make.choose_precision(options["precision"]), batch=options["batch"]
    )
    paths = make.export(
        spec,
        canvases=options["canvases"],
        graphs=DETIC_SPLIT if options["split"] else (),
        backend=options["backend"],
        out=options["out"],
        on_message=note,
    )
    for path in paths:
        click.echo(path)
