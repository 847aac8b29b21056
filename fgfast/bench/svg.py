"""Plots as inline SVG: scales with ticks, and the few marks that the bench's page needs. The page colours classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 1100
"""Of every plot, in its own units; the page scales it."""
# Where the plotting area begins and ends, beside the labels of the vertical axis.
LEFT, RIGHT = 112, WIDTH - 14
# Room below for ticks and the axis' name.
FOOT = 42
# Logarithmic axes of fewer powers of ten have ticks between them.
_DECADES = 3


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along an axis.

    Attributes:
        low, high: values at its ends.
        start, end: their places.
        log: equal factors, not equal steps, are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, rounded to what can be seen."""
        turn: Callable[[float], float] = math.log10 if self.log else float
        low, high = turn(self.low), turn(self.high)
        part = (turn(value) - low) / (high - low) if high > low else 0.0
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self, about: int = 8) -> list[float]:
        """Round values from end to end: about so many, or every power of ten, of few powers 2 and 5 times it, too."""
        if self.log:
            factors = (1, 2, 5) if self.high < self.low * 10**_DECADES else (1,)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [factor * 10.0**power for power in powers for factor in factors]
            return [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / about
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def figure(body: Sequence[str], height: float, label: str) -> str:
    """The image, named for those who cannot see it."""
    return f'<svg viewBox="0 0 {WIDTH} {round(height)}" role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A label; anchor: "start", "middle", "end"."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    """A straight line of a class."""
    return f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" class="{kind}"/>'


def bar(x: float, y: float, width: float, height: float, kind: str, told: str = "") -> str:
    """A filled rectangle, with what is told of it where the pointer rests."""
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}">{title}</rect>'


def dot(x: float, y: float, kind: str, told: str, radius: float = 5) -> str:
    """A point."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{kind}"><title>{escape(told)}</title></circle>'


def path(points: Sequence[tuple[float, float]], kind: str, steps: bool = False) -> str:
    """A line through points; with steps each value holds until the next one."""
    if not points:
        return ""
    (x, y), *rest = points
    drawn = [f"M{x:g} {y:g}"]
    drawn += [f"H{x:g}V{y:g}" if steps else f"L{x:g} {y:g}" for x, y in rest]
    return f'<path d="{"".join(drawn)}" class="{kind}"/>'


def below(scale: Scale, y: float, top: float, name: str, written: Callable[[float], str] = "{:g}".format) -> list[str]:
    """The horizontal axis at height y: ticks, their grid up to `top`, its name with the unit."""
    drawn = [line(scale.start, y, scale.end, y, "axis")]
    for value in scale.ticks():
        x = scale(value)
        drawn += [line(x, top, x, y, "grid"), text(x, y + 17, written(round(value, 9)), "tick", "middle")]
    return [*drawn, text((scale.start + scale.end) / 2, y + 35, name, "name", "middle")]


def beside(
    scale: Scale, x: float, end: float, name: str, about: int = 5, written: Callable[[float], str] = "{:g}".format
) -> list[str]:
    """The vertical axis at x: ticks, their grid up to `end`, its name with the unit written upwards."""
    drawn = []
    for value in scale.ticks(about):
        y = scale(value)
        drawn += [line(x, y, end, y, "grid"), text(x - 8, y + 4, written(round(value, 9)), "tick", "end")]
    middle = (scale.start + scale.end) / 2
    upwards = f'transform="translate(18 {middle:g}) rotate(-90)"'
    return [*drawn, f'<text {upwards} class="name" text-anchor="middle">{escape(name)}</text>']
