"""Draws a result as one figure with matplotlib: the run over time, the cost of each stage, the roofline, bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.bench.events import by_thread, costs, order_of, span
from fgfast.bench.text import figure, where
from fgfast.bench.trace import PARENT
from fgfast.figure_files import figure as figure_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fgfast.runner import Event

_WIDTH, _ROW, _FRAME = 12.0, 0.24, 1.1  # inches: of the figure, per row of a panel, around a panel
_ROOFLINE = 4.2  # inches
# The CPU's work before and after the forward of a model has a paler colour than the forward.
_COLOURS = {
    "decode": "#7a6bb5",
    "detect.fill": "#9cc3e6",
    "detect": "#2468a6",
    "detect.after": "#9cc3e6",
    "detect.choose": "#9cc3e6",
    "encode.fill": "#f2c08a",
    "encode": "#d0701a",
    "encode.after": "#f2c08a",
    "mask": "#2c8a74",
    "cut": "#b6508c",
    "write": "#8a8f2e",
}
_OTHER = "#8c9199"

Panel = tuple[float, Callable[["Axes"], None]]
"""The height in inches, and the function that draws it."""


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Draw the series of a result, one below another, and write the figure in the format of the file's suffix."""
    panels = _panels(result.get("plots", {}))
    heights = [height for height, _ in panels]
    with figure_in(path, f"{result['title']}\n{where(result)}", _WIDTH, sum(heights) + 0.6) as drawing:
        grid = drawing.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, (_, draw) in zip(grid[:, 0], panels, strict=True):
            draw(axes)


def _panels(plots: Mapping[str, Any]) -> list[Panel]:
    found: list[Panel] = []
    if events := plots.get("events"):
        found.append((_FRAME + _ROW * len(list(by_thread(events))), partial(_timeline, events=events)))
        found.append((_FRAME + _ROW * len(costs(events)), partial(_stages, events=events)))
    if roofline := plots.get("roofline"):
        found.append((_ROOFLINE, partial(_roofline, series=roofline)))
    if bars := plots.get("bars"):
        found.append((_FRAME + _ROW * len(bars["values"]), partial(_bars, **bars)))
    return found


def _colour(stage: str) -> str:
    return _COLOURS.get(stage, _OTHER)


def _timeline(axes: Axes, events: Sequence[Event]) -> None:
    """Draw a row per thread, and in it the pieces of work in the colours of their stages."""
    zero, end = span(events)
    labels = []
    for row, (worker, thread, own) in enumerate(by_thread(events)):
        labels.append(f"{worker or PARENT} {thread}".strip())
        pieces = [(e.start - zero, e.end - e.start) for e in own]
        colours = [_colour(e.stage) for e in own]
        # The outline keeps short pieces visible. Pixels keep a vector format small.
        axes.broken_barh(pieces, (row - 0.4, 0.8), color=colours, linewidth=0.3, rasterized=True)
    for stage in sorted({e.stage for e in events}, key=order_of):
        if "." not in stage:
            axes.plot([], [], color=_colour(stage), linewidth=6, label=stage)
    axes.set_title("What each thread did", loc="left")
    axes.set(xlabel="seconds from the first piece of work", xlim=(0, end - zero))
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.legend(ncols=8, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def _stages(axes: Axes, events: Sequence[Event]) -> None:
    """Draw a bar per stage."""
    own = costs(events)
    _bars(axes, "Work of each stage, all threads together", "ms per image", [(c.stage, c.ms) for c in own])
    for patch, cost in zip(axes.patches, own, strict=True):
        patch.set_color(_colour(cost.stage))


def _bars(axes: Axes, title: str, unit: str, values: Sequence[tuple[str, float]], log: bool = False) -> None:
    """Draw a bar per value, the first one on top; on a logarithmic axis bars begin at 1."""
    names, lengths = zip(*values, strict=True)
    start = 1.0 if log else 0.0
    drawn = axes.barh(range(len(names)), [value - start for value in lengths], left=start, color=_COLOURS["detect"])
    axes.bar_label(drawn, [figure(value) for value in lengths], padding=3, fontsize=8)
    axes.set_title(title, loc="left")
    axes.set(xlabel=unit, xscale="log" if log else "linear")
    axes.margins(x=0.08)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def _roofline(axes: Axes, series: Mapping[str, Any]) -> None:
    """Draw operations per second over operations per byte: the roofs, and below them the products and the models."""
    points = [*series["products"], *series["models"]]
    furthest = 2 * max(point["intensity"] for point in points)
    for roof in series["roofs"]:
        bend = roof["flops"] / roof["bandwidth"]
        label = f"{roof['device']}, {series['precision']}: {figure(roof['flops'] / 1e12)} TFLOP/s"
        line = [roof["flops"] / 10, roof["flops"], roof["flops"]]
        axes.plot([bend / 10, bend, max(furthest, 2 * bend)], line, color="black", label=label)
    for kind, colour, size in (("products", _OTHER, 16), ("models", _COLOURS["encode"], 50)):
        own = series[kind]
        axes.scatter([p["intensity"] for p in own], [p["flops"] for p in own], size, colour, label=kind, zorder=3)
    for point in series["models"]:
        text = f"{point['name']}: {figure(point['flops'] / 1e12)} TFLOP/s"
        axes.annotate(text, (point["intensity"], point["flops"]), (-8, -12), textcoords="offset points", ha="right")
    axes.set_title("Roofline", loc="left")
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="operations per second")
    axes.legend(fontsize=8, loc="upper left")
