"""The plots of a result: timelines, queues, a roofline. Each is drawn from the series that the bench made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgfast.bench import svg
from fgfast.bench.svg import FOOT, LEFT, RIGHT, Scale
from fgfast.bench.text import figure, many

# Places in the page's row of colours.
_COLOURS = {
    "decode": 0,
    "detect.fill": 1,
    "detect.after": 1,
    "detect": 2,
    "encode.fill": 3,
    "encode.after": 3,
    "encode": 4,
    "mask": 5,
    "cut": 6,
    "write": 7,
}
_OTHERS = 8

_LANE, _GAP = 22, 6
# The least width of a piece of work, so that short ones can be seen; they reach into what follows.
_THIN = 1.8
_QUEUE, _BETWEEN = 46, 20
_ROOF = 380
_BAR, _NAMES = 16, 330
# Labels of points keep this far from one another, in the plot's units.
_LABEL = 17


def colour_of(stage: str) -> str:
    """The class of a stage's colour; what is before and after a model's forward has a paler one of its own."""
    return f"s{_COLOURS.get(stage, _OTHERS)}"


def timeline(series: Mapping[str, Any]) -> str:
    """What each thread did when: a lane a thread, a bar a piece of work, a colour a stage."""
    low, high = series["within"]
    unit, factor = _unit(high - low)
    scale = Scale(low * factor, high * factor, LEFT, RIGHT)
    drawn, y = [], 8.0
    foot = y + len(series["lanes"]) * (_LANE + _GAP)
    drawn += svg.below(scale, foot, 0, f"{unit} from the first piece of work")
    for lane in series["lanes"]:
        drawn.append(svg.text(LEFT - 8, y + _LANE / 2 + 4, lane["name"], "lane", "end"))
        for stage, start, end, items in lane["spans"]:
            x, x1 = scale(start * factor), scale(end * factor)
            told = f"{stage}: {figure((end - start) * 1e3)} ms, {many(items, 'image')}"
            drawn.append(svg.bar(x, y, max(_THIN, x1 - x), _LANE, colour_of(stage), told))
        y += _LANE + _GAP
    return svg.figure(drawn, foot + FOOT, f"{series['title']}: what each thread did when")


def queues(series: Mapping[str, Any]) -> str:
    """How many images waited for each stage: one small plot a stage, on one axis of time."""
    unit, factor = _unit(series["seconds"])
    scale = Scale(0.0, series["seconds"] * factor, LEFT, RIGHT)
    waiting: Mapping[str, Sequence[tuple[float, int]]] = series["waiting"]
    foot = len(waiting) * (_QUEUE + _BETWEEN) - 4
    drawn, top = svg.below(scale, foot, 0, f"{unit} from the first piece of work"), 8.0
    for stage, steps in waiting.items():
        most = max(depth for _, depth in steps)
        up = Scale(0, most, top + _QUEUE, top)
        points = [(scale(at * factor), up(depth)) for at, depth in steps]
        points.append((svg.RIGHT, points[-1][1]))
        x0, x1 = points[0][0], points[-1][0]
        area = [(x0, up(0)), *points, (x1, up(0))]
        drawn.append(svg.line(LEFT, up(0), RIGHT, up(0), "axis"))
        drawn.append(svg.path(area, f"area {colour_of(stage)}", steps=True))
        drawn.append(svg.path(points, f"line {colour_of(stage)}", steps=True))
        drawn.append(svg.text(LEFT - 8, top + _QUEUE - 12, stage, "lane", "end"))
        drawn.append(svg.text(LEFT - 8, top + 8, str(most), "tick", "end"))
        drawn.append(svg.text(LEFT - 8, top + _QUEUE + 4, "0", "tick", "end"))
        top += _QUEUE + _BETWEEN
    return svg.figure(drawn, foot + FOOT, "Images that waited for each stage")


def bars(series: Mapping[str, Any]) -> str:
    """A bar a value, from 0 or, on a logarithmic axis, from 1."""
    values = series["values"]
    most = max(value for _, value in values)
    low = min([1.0, *(value for _, value in values)])
    scale = Scale(_decade(low, down=True), _decade(most), _NAMES, RIGHT, True) if series.get("log") else None
    scale = scale or Scale(0.0, most * 1.05, _NAMES, RIGHT)
    zero = scale(1.0 if series.get("log") else 0.0)
    drawn, y = [], 6.0
    foot = y + len(values) * (_BAR + _GAP)
    drawn += svg.below(scale, foot, 0, series["unit"], _power)
    for name, value in values:
        drawn.append(svg.text(_NAMES - 10, y + _BAR / 2 + 4, name, "lane", "end"))
        x = scale(value)
        drawn.append(svg.bar(min(zero, x), y, max(1.0, abs(x - zero)), _BAR, "ours", f"{name}: {figure(value)}"))
        y += _BAR + _GAP
    drawn.append(svg.line(zero, 0, zero, foot, "axis"))
    return svg.figure(drawn, foot + FOOT, series["title"])


def _unit(seconds: float) -> tuple[str, float]:
    """The unit of an axis of so many seconds, and how many of it are a second."""
    return ("ms", 1e3) if seconds < 1 else ("s", 1.0)


def roofline(series: Mapping[str, Any]) -> str:
    """Operations a second over operations a byte: the roofs of the devices, the models below them."""
    points = [*series["products"], *series["models"]]
    peak = max(roof["flops"] for roof in series["roofs"])
    ridge = min(roof["flops"] / roof["bandwidth"] for roof in series["roofs"])
    across = Scale(_decade(ridge / 4, down=True), _decade(max(p["intensity"] for p in points)), LEFT, RIGHT, True)
    lowest = min(0.05 * peak, *(p["flops"] for p in points))
    up = Scale(_decade(lowest, down=True), _decade(peak * 1.05), 24 + _ROOF, 24, True)
    drawn = svg.below(across, up.start, up.end, "operations a byte, at most", _power)
    drawn += svg.beside(up, LEFT, RIGHT, "operations a second", written=_power)
    for roof in series["roofs"]:
        bend = roof["flops"] / roof["bandwidth"]
        first = max(across.low, up.low / roof["bandwidth"])
        slope = [(across(first), up(first * roof["bandwidth"])), (across(bend), up(roof["flops"]))]
        drawn.append(svg.path([*slope, (RIGHT, up(roof["flops"]))], "roof"))
        told = f"{roof['device']}: {_rate(roof['flops'])}, {series['precision']}"
        drawn.append(svg.text(across(bend) + 6, up(roof["flops"]) - 8, told, "tick"))
    for point in series["products"]:
        told = f"{point['name']}: {_rate(point['flops'])}"
        drawn.append(svg.dot(across(point["intensity"]), up(point["flops"]), "product", told, 4))
    taken: list[float] = []
    for point in sorted(series["models"], key=lambda p: -p["flops"]):
        x, y = across(point["intensity"]), up(point["flops"])
        told = f"{point['name']}: {_rate(point['flops'])}, {point['flops'] / peak:.0%} of the fastest product"
        drawn += [svg.dot(x, y, f"model {_colour_of_model(point['name'])}", told, 7)]
        place = y + 5
        while any(abs(place - other) < _LABEL for other in taken):
            place += _LABEL
        taken.append(place)
        ends = x > (LEFT + RIGHT) * 0.62
        drawn.append(svg.text(x + (-13 if ends else 13), place, told, "tag", "end" if ends else "start"))
    return svg.figure(drawn, up.start + FOOT, "Roofline: operations a second over operations a byte")


def _colour_of_model(model: str) -> str:
    """As its stage has."""
    return colour_of("encode" if model.startswith("sam_") else "detect")


def _decade(value: float, down: bool = False) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 10.0 ** -len(f"{int(1 / value)}")
    steps = [power * factor for factor in (1, 2, 5, 10)]
    return max(s for s in steps if s <= value * 1.000001) if down else min(s for s in steps if s >= value * 0.999999)


def _power(value: float) -> str:
    """1e12 as "1 T"."""
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{prefix}"
    return f"{value:g}"


def _rate(flops: float) -> str:
    """Operations a second in words."""
    return f"{figure(flops / 1e12)} T/s" if flops >= 1e12 else f"{figure(flops / 1e9)} G/s"
