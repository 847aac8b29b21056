"""Results and comparisons as text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fgfast.bench.compare import Comparison
from fgfast.bench.result import Row, rows_of

# Names listed of rows that only one result has.
_SOME = 4


def table(result: Mapping[str, Any]) -> str:
    """A result for a person: what, where, verdict, rows by their groups, notes."""
    lines = [str(result["title"]), where(result), ""]
    if verdict := result.get("verdict"):
        lines += [*verdict, ""]
    rows = rows_of(result)
    width = max((len(row.name) for row in rows), default=0) + 2
    for group, own in groupby(rows, key=lambda row: row.group):
        if group:
            lines.append(group)
        lines += [_line(row, width) for row in own]
        lines.append("")
    return "\n".join([*lines, *result["notes"]]).rstrip()


def where(result: Mapping[str, Any]) -> str:
    """Machine, commit, rounds in a line."""
    machine = result["machine"]
    parts = [machine["processor"], many(machine["cores"], "core"), *machine.get("gpus", [])]
    parts += [f"commit {result['commit']}", many(result["rounds"], "round")]
    return ", ".join(parts)


def many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _line(row: Row, width: int) -> str:
    told = f"  {row.name:{width}} {figure(row.value):>9} {row.unit}"
    if row.spread is None:
        return told.rstrip()
    return f"{told:{width + 25}} {figure(min(row.rounds))} to {figure(max(row.rounds))}"


def figure(value: float) -> str:
    """A number with three digits, thousands apart."""
    if value != value:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}" if abs(value) >= 1e-3 or not value else f"{value:.2g}"


def some(keys: Sequence[str]) -> str:
    """The first of many names, and how many there are."""
    more = f"; and {len(keys) - _SOME} more" if len(keys) > _SOME else ""
    return "; ".join(keys[:_SOME]) + more


def comparison(found: Comparison) -> str:
    """A comparison for a person."""
    lines = [f"Compared with {found.old}:", *(f"  {sentence}" for sentence in found.differences), ""]
    width = max((len(change.row.key) for change in found.changes), default=0) + 2
    lines.append(f"  {'':{width}} {'old':>9} {'new':>9} {'new/old':>8}")
    for change in found.changes:
        row = change.row
        mark = f"  {change.verdict} than noise ({change.noise:.0%})" if change.verdict else ""
        figures = f"{figure(change.old):>9} {figure(row.value):>9} {change.ratio:8.3f}"
        lines.append(f"  {row.key:{width}} {figures} {row.unit}{mark}")
    for title, keys in (("Only in the old one", found.only_old), ("Only in the new one", found.only_new)):
        if keys:
            lines += ["", f"{title}: {some(keys)}"]
    worse = len(found.worse)
    lines += ["", f"{many(worse, 'row')} got worse than noise." if worse else "Nothing got worse than noise."]
    return "\n".join(lines)
