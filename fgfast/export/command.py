"""The arguments and the output of `python -m fgfast.export` and of the scripts in export/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fgfast.errors import FgfastError
from fgfast.export.exportable import DETIC_SPLIT, EXPORTABLE, check_installed, family_of, parse_canvas


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

        paths = make.export(
            given.model,
            weights=given.model_weights,
            precision=make.choose_precision(given.precision),
            batch=given.batch,
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


def _canvas(text: str) -> tuple[int, int]:
    try:
        return parse_canvas(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="The matrix products are computed in this precision; auto is bf16 on a GPU that has it, else fp32.",
    )
    parser.add_argument("--batch", type=int, default=1, help="The graph takes this many images per call.")
    parser.add_argument(
        "--backend",
        default="onnx",
        choices=("onnx", "tensorrt"),
        help="onnx writes ONNX files; tensorrt also builds the engines for this machine's first GPU.",
    )
    parser.add_argument(
        "--model-weights",
        default="cached",
        help="The weights are those in the cache (cached), random ones (random:SEED), or those of a file.",
    )
    parser.add_argument(
        "--out", type=Path, help="The graphs are written into this folder; by default where fgfast convert finds them."
    )
    if family != "sam":
        parser.add_argument(
            "--canvas",
            type=_canvas,
            action="append",
            metavar="HEIGHTxWIDTH",
            help="A detector's graph is made for padded images of this size in pixels, multiples of 32; the option may "
            "be repeated. By default there are two sizes, which hold every image.",
        )
    if family in ("", "detic"):
        parser.add_argument(
            "--split",
            action="store_true",
            help="Detic is written as two graphs, between which the caller suppresses proposals.",
        )
    return parser
