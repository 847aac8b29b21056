"""Draws what `fgfast quality` measured: the risk-coverage curve of the doubt, and IoU before and after review."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast.figure_files import figure
from fgfast.review.quality import WRONG_BELOW, Quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart without colour too: the second is drawn as an outline.
_BEFORE, _AFTER = "#8c9199", "#2468a6"
_BINS = 20


def write(path: Path, quality: Quality, title: str) -> None:
    """Draw both figures side by side, and write them in the format of the file's suffix."""
    with figure(path, title, 10, 4.2) as drawing:
        left, right = drawing.subplots(1, 2)
        _curve(left, quality)
        _overlaps(right, quality)


def _curve(axes: Axes, quality: Quality) -> None:
    coverage, risk = quality.curve()
    axes.set_title("What leaving out the most doubtful is worth", fontsize=9)
    axes.set_xlabel("coverage: share of the images that are kept, least doubtful first")
    axes.set_ylabel("risk: mean of 1 - IoU of those")
    if not risk:
        axes.text(0.5, 0.5, "the run has no doubt", ha="center", va="center", transform=axes.transAxes)
        return
    axes.plot(coverage, risk, color=_AFTER, label="by doubt")
    axes.axhline(risk[-1], color=_BEFORE, linestyle="--", label="in no order")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.1 * max(risk) or 1)  # a flat curve is not drawn on the frame
    axes.legend(fontsize=8)


def _overlaps(axes: Axes, quality: Quality) -> None:
    axes.set_title("IoU with the official masks", fontsize=9)
    axes.set_xlabel("IoU")
    axes.set_ylabel("images")
    bins = [n / _BINS for n in range(_BINS + 1)]
    before: Sequence[float] = [one.before.iou for one in quality.judged if one.before]
    after: Sequence[float] = [one.after.iou for one in quality.judged if one.after]
    axes.hist(before, bins, color=_BEFORE, label="as the run made them")
    axes.hist(after, bins, histtype="step", color=_AFTER, linewidth=1.5, label="now, after review")
    axes.axvline(WRONG_BELOW, color="black", linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=10)
    axes.legend(fontsize=8, loc="upper left")
