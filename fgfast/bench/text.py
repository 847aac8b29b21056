"""Results and comparisons as text, for a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from fgfast.bench.compare import Comparison
from fgfast.bench.result import Row, rows_of

# Wider than any table, so that rich does not wrap cells.
_WIDTH = 1000
# The number of names that are listed of the rows that only one result has.
_LISTED = 4


def table(result: Mapping[str, Any]) -> str:
    """Format a result: title, machine, verdict, the rows by their groups, notes."""
    parts = [f"{result['title']}\n{where(result)}"]
    parts += ["\n".join(result["verdict"])] if result.get("verdict") else []
    lines: list[Sequence[str]] = []
    for group, own in groupby(rows_of(result), key=lambda row: row.group):
        lines += [[]] if lines else []
        lines += [[group]] if group else []
        lines += [[f"  {row.name}", figure(row.value), row.unit, _range(row)] for row in own]
    parts += [_aligned(lines, ("left", "right", "left", "left")), "\n".join(result["notes"])]
    return "\n\n".join(parts).rstrip()


def columns(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table whose first column is text and whose other columns are numbers."""
    return _aligned([head, *rows], ("left", *["right"] * (len(head) - 1)), gap=2)


def _aligned(lines: Iterable[Sequence[str]], justified: Sequence[Any], gap: int = 1) -> str:
    grid = Table.grid(padding=(0, gap))
    for justify in justified:
        grid.add_column(justify=justify, no_wrap=True)
    for line in lines:
        grid.add_row(*line)
    console = Console(file=io.StringIO(), width=_WIDTH, markup=False, emoji=False, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def where(result: Mapping[str, Any]) -> str:
    """Return machine, commit and rounds in one line."""
    machine = result["machine"]
    parts = [machine["processor"], many(machine["cores"], "core"), *machine.get("gpus", [])]
    parts += [f"commit {result['commit']}", many(result["rounds"], "round")]
    return ", ".join(parts)


def many(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _range(row: Row) -> str:
    return "" if row.spread is None else f"{figure(min(row.rounds))} to {figure(max(row.rounds))}"


def figure(value: float) -> str:
    """Format a number with three significant digits and commas between thousands."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}" if abs(value) >= 1e-3 or not value else f"{value:.2g}"


def _some(keys: Sequence[str]) -> str:
    more = f"; and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return "; ".join(keys[:_LISTED]) + more


def comparison(found: Comparison) -> str:
    """Format a comparison: differences between the machines, old and new of each row, what got worse."""
    parts = ["\n".join([f"Compared with {found.old}:", *(f"  {sentence}" for sentence in found.differences)])]
    lines = [["", "old", "new", "new/old"]]
    for change in found.changes:
        row = change.row
        mark = f"{change.verdict} than noise ({change.noise:.0%})" if change.verdict else ""
        lines.append([f"  {row.key}", figure(change.old), figure(row.value), f"{change.ratio:.3f}", row.unit, mark])
    parts.append(_aligned(lines, ("left", "right", "right", "right", "left", "left"), gap=2))
    for title, keys in (("Only in the old one", found.only_old), ("Only in the new one", found.only_new)):
        parts += [f"{title}: {_some(keys)}"] if keys else []
    worse = len(found.worse)
    parts.append(f"{many(worse, 'row')} got worse than noise." if worse else "Nothing got worse than noise.")
    return "\n\n".join(parts)
