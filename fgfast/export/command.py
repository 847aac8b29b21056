"""The arguments and the output of `python -m fgfast.export` and of the scripts in export/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fgfast.errors import FgfastError
from fgfast.export.exportable import DETIC_SPLIT, EXPORTABLE, HELP, check_installed, family_of, parse_canvases
from fgfast.methods import ModelSpec
from fgfast.records import Size


def main(description: str | None, model: str | None = None, graphs: Sequence[str] = ()) -> int:
    """Read the arguments, export, and print the paths of the files.

    Args:
        description: what --help prints first.
        model: of a script for one family of models: the default of its option --model. None makes the model an
            argument that must be given and may be any.
        graphs: names of fgfast.graphs to write; empty takes those that `fgfast convert` loads.

    Returns:
        The exit code.
    """
    given = _parser(description, model).parse_args()
    try:
        check_installed()
        from fgfast.export import make

        spec = ModelSpec(given.model, given.model_weights, make.choose_precision(given.precision), batch=given.batch)
        paths = make.export(
            spec,
            canvases=given.canvas,
            graphs=DETIC_SPLIT if given.split else graphs,
            backend=given.backend,
            out=given.out,
            on_message=lambda line: print(line, file=sys.stderr),
        )
    except FgfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(*paths, sep="\n")
    return 0


def _parser(description: str | None, model: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=None if model else "python -m fgfast.export",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.set_defaults(model=model, canvas=[], split=False)
    parser.add_argument("-h", "--help", action="help", help="Print this text and exit.")
    family = family_of(model) if model else ""
    names = [name for name in EXPORTABLE if name.startswith(family)]
    if model is None:
        parser.add_argument("model", help=f"The model is one of {', '.join(names)}.")
    elif len(names) > 1:
        parser.add_argument("--model", help=f"The model is one of {', '.join(names)}; the default is {model}.")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help=HELP["precision"])
    parser.add_argument("--batch", type=int, default=1, help=HELP["batch"])
    parser.add_argument("--backend", default="onnx", choices=("onnx", "tensorrt"), help=HELP["backend"])
    parser.add_argument("--model-weights", default="cached", help=HELP["model_weights"])
    parser.add_argument("--out", type=Path, help=HELP["out"])
    if family != "sam":
        parser.add_argument("--canvas", type=_canvases, metavar="HEIGHTxWIDTH", help=HELP["canvas"])
    if family in ("", "detic"):
        parser.add_argument("--split", action="store_true", help=HELP["split"])
    return parser


def _canvases(text: str) -> list[Size]:
    try:
        return parse_canvases(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
