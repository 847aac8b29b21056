"""Files of figures that matplotlib draws: whether one can be written, and its writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast.errors import MissingExtraError, UsageError
from fgfast.writing import Target, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_DOTS_PER_INCH = 150  # of a .png: sharp on a screen of twice the usual density, and in print at half a page


def check(path: Path) -> None:
    """Refuse a figure that cannot be drawn, before anything is measured.

    Raises:
        UsageError: the suffix of the file is not one of `SUFFIXES`.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot writes {', '.join(SUFFIXES)} files, not {path.name!r}")
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot", "--plot")


@contextmanager
def figure(path: Path, title: str, width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure to draw into; write it in the format of the file's suffix once the block ends.

    Args:
        path: the file; `check` took it.
        title: above all; it is plain text.
        width, height: in inches.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    import matplotlib

    with matplotlib.rc_context():
        # Without the matplotlibrc of the current folder, which may be anybody's, and can have TeX run.
        matplotlib.rcdefaults()
        from matplotlib.figure import Figure

        drawing = Figure(figsize=(width, height), layout="constrained")
        drawing.suptitle(title.replace("$", r"\$"), fontsize=10)
        yield drawing
        with replacing(Target.file(path)) as file:
            drawing.savefig(file, dpi=_DOTS_PER_INCH, format=path.suffix[1:].lower())
