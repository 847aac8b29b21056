"""Plots of a study as inline SVG: same figures, same bytes; their ink follows the page, light or dark."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fgfast.errors import MissingExtraError
from fgfast.studies.results import Study
from fgfast.studies.tables import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"  # written as var(--ink): no colour of the plots is this
_TINTS = ("#4a8cc2", "#c98f2a", "#4b9c7b", "#9a73ad", "#cc5549", "#7b828b", "#2a9d9d")  # on light and on dark
_HATCHES = ("", "///", "", "...", "", "xxx", "")  # told apart without colour, too
_WIDTH = 7.2  # inches, 72 px each: 518 px, which a page of 360 px shrinks to two thirds
_ROW = 0.17  # inches for a bar
_LONGEST = 46  # characters of a row's name


def accuracy_bars(study: Study) -> str:
    """Draw Fig. 7's bars: a group for each model and training set, a bar for each test set, intervals as whiskers."""
    rows, arms = study.rows, study.arms
    height = 0.8 + _ROW * len(rows) * (len(arms) + 1)
    drawing, axes = _figure(height)
    bar = 1 / (len(arms) + 1)
    for n, arm in enumerate(arms):
        found = [(place, some) for place, row in enumerate(rows) if (some := row.accuracy(arm))]
        places = [place + bar * (n - (len(arms) - 1) / 2) for place, _ in found]
        tint, hatch = _TINTS[n % len(_TINTS)], _HATCHES[n % len(_HATCHES)]
        style: dict[str, Any] = {"facecolor": tint, "edgecolor": _INK, "hatch": hatch, "label": arm}
        axes.barh(places, [100 * some.value for _, some in found], bar, linewidth=0.4, **style)
        for place, (_, some) in zip(places, found, strict=True):
            _whisker(axes, place, some.low, some.high)
    _name(axes, [f"{row.name}\ntrained on {row.cell.train}" for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("images predicted right, percent", color=_INK)
    axes.legend(ncols=4, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, labelcolor=_INK)
    return svg(drawing, clean(f"bars {study.name} {study.dataset}"))


def gap_bars(study: Study) -> str:
    """Draw the BG-gap of each row with its interval over images; empty where no row has one."""
    found = [(row, gap) for row in study.rows if (gap := row.gap)]
    if not found:
        return ""
    drawing, axes = _figure(0.7 + 0.42 * len(found))
    axes.barh(
        range(len(found)), [100 * gap.value for _, gap in found], 0.6, color=_TINTS[0], edgecolor=_INK, linewidth=0.4
    )
    for place, (_, gap) in enumerate(found):
        _whisker(axes, place, gap.images.low, gap.images.high)
    axes.axvline(0, color=_INK, linewidth=0.8)
    _name(axes, [f"{row.name}\ntrained on {row.cell.train}" for row, _ in found])
    axes.set_xlabel("BG-gap: mixed-same minus mixed-rand, points", color=_INK)
    return svg(drawing, clean(f"gaps {study.name} {study.dataset}"))


def _whisker(axes: Axes, place: float, low: float | None, high: float | None) -> None:
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, the first on top; texts are plain: "$" begins no formula."""
    lines = ["\n".join(plain(line) for line in name.split("\n")) for name in names]
    axes.set_yticks(range(len(names)), lines, fontsize=8, parse_math=False, color=_INK)
    axes.set_ylim(len(names) - 0.5, -0.5)


def plain(text: str) -> str:
    """Return a name as a drawing can hold it: no control characters, and not longer than a line."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]", "?", clean(text))  # XML can hold none of these
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of one drawing."""
    drawing, grid = _empty(max(height, 1.2), 1, 1)
    return drawing, grid[0][0]


def figure_of(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Return an empty figure of square drawings, in rows and columns."""
    return _empty(_WIDTH / columns * rows, rows, columns)


def _empty(height: float, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """Return an empty figure, without the matplotlibrc of the current folder, which may be anybody's.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "studies", "the page of a study") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        from matplotlib.figure import Figure

        drawing = Figure(figsize=(_WIDTH, height), layout="constrained")
        grid: list[list[Axes]] = drawing.subplots(rows, columns, squeeze=False).tolist()
    drawing.patch.set_visible(False)
    for axes in (axes for row in grid for axes in row):
        axes.patch.set_visible(False)
        axes.tick_params(colors=_INK, labelsize=8)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_INK)
    return drawing, grid


def svg(drawing: Figure, salt: str) -> str:
    """Return a figure as an <svg> element for a page with others: no date, ids by the salt, ink of the page."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": salt, "svg.fonttype": "path"})
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    own = "p" + hashlib.sha256(salt.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", text)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace(_INK, "var(--ink)").strip()
