"""`python -m fgfast.export MODEL`: the same as `fgfast export`, for scripts that have no command line of ours."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fgfast.errors import FgfastError
from fgfast.export import make


def main() -> int:
    """Read the arguments, export, print the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fgfast.export", description=make.__doc__)
    parser.add_argument(
        "model", help="detic, sam_vit_b, sam_vit_l, sam_vit_h, grounding_dino_tiny, grounding_dino_base"
    )
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--batch", type=int, default=1, help="images per call")
    parser.add_argument("--canvas", type=canvas, action="append", default=[], help="HEIGHTxWIDTH of a detector")
    parser.add_argument("--split", action="store_true", help="Detic as two graphs")
    parser.add_argument("--backend", default="onnx", choices=("onnx", "tensorrt"))
    parser.add_argument("--model-weights", default="cached", help="cached, random:SEED, or a file")
    parser.add_argument("--out", type=Path, help="folder; by default where convert looks for graphs")
    given = parser.parse_args()
    try:
        paths = make.export(
            given.model,
            weights=given.model_weights,
            precision=make.choose_precision(given.precision),
            batch=given.batch,
            canvases=given.canvas,
            split=given.split,
            backend=given.backend,
            out=given.out,
            say=lambda line: print(line, file=sys.stderr),
        )
    except FgfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(*paths, sep="\n")
    return 0


def canvas(text: str) -> tuple[int, int]:
    """ "800x1216" -> (800, 1216)."""
    height, width = (int(part) for part in text.split("x"))
    return height, width


if __name__ == "__main__":
    sys.exit(main())
