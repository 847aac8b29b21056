"""`fgfast export`."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import click

from fgfast.cli.frame import choices
from fgfast.config import PRECISIONS

MODELS = ("detic", "sam_vit_b", "sam_vit_l", "sam_vit_h", "grounding_dino_tiny", "grounding_dino_base")


def _canvases(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> list[tuple[int, int]]:
    found = []
    for text in ",".join(texts).split(",") if texts else ():
        match = re.fullmatch(r"(\d+)x(\d+)", text.strip())
        if match is None or any(int(n) % 32 or not int(n) for n in match.groups()):
            raise click.BadParameter(f"{text!r} must be HEIGHTxWIDTH in multiples of 32, for example 800x1216")
        found.append((int(match[1]), int(match[2])))
    return found


@click.command()
@click.argument("model", shell_complete=choices(MODELS))
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help=f"Of the matrix products: {', '.join(PRECISIONS)}.",
    shell_complete=choices(PRECISIONS),
)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Images per call.")
@click.option(
    "--canvas",
    "canvases",
    multiple=True,
    callback=_canvases,
    help="HEIGHTxWIDTH of a detector's images, several between commas.  [default: those that hold every image]",
)
@click.option("--split", is_flag=True, help="Detic as two graphs; suppression is left to the caller between them.")
@click.option(
    "--backend",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "tensorrt"]),
    help="onnx, or the engine for this GPU as well.",
)
@click.option("--model-weights", default="cached", show_default=True, help="cached, random:SEED, or a file.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: where convert looks for graphs]")
def export(**options: Any) -> None:
    """Write a model as ONNX, and as TensorRT's engine; compare with PyTorch, delete what differs.

    MODEL is detic, sam_vit_b, sam_vit_l, sam_vit_h, grounding_dino_tiny or grounding_dino_base. Made once; afterwards
    `fgfast convert` takes whichever backend is fastest here. Precision "auto" is bf16 on a GPU that has it, else fp32.
    """
    from fgfast.cli.console import note
    from fgfast.errors import MissingExtraError

    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export", "fgfast export")
    from fgfast.export import make

    paths = make.export(
        options["model"],
        weights=options["model_weights"],
        precision=make.choose_precision(options["precision"]),
        batch=options["batch"],
        canvases=options["canvases"],
        split=options["split"],
        backend=options["backend"],
        out=options["out"],
        say=note,
    )
    for path in paths:
        click.echo(path)
