"""The ops, native beside the NumPy reference and the libraries that do the same, in turns; results compared first."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fgfast.bench.op_cases import NATIVE, OPS, ORACLE, SIZES, TORCH, Case, cases
from fgfast.bench.result import Result, Row, envelope, rows_of
from fgfast.bench.text import figure
from fgfast.bench.timing import in_turns, threads
from fgfast.errors import UnknownNameError
from fgfast.machine import available_cores

# The oracle is there to be right: where it takes longer, it has one turn, and no part in the others.
_PATIENCE = 0.2  # seconds
_FASTER = "native is faster than"


def measure(*, rounds: int = 7, only: Sequence[str] = (), short: bool = False) -> Result:
    """Time every op with one thread and, where it has threads, with all cores.

    Args:
        rounds: how often each contender has its turn; medians are quoted.
        only: names of ops; all by default.
        short: on the smaller images only.

    Returns:
        Milliseconds of each contender, and how many times as fast as each rival the native op is, by the fastest
        rounds of both: what else the machine does only adds, most of all to those who wait for several threads.

    Raises:
        AssertionError: a contender's result differs; then its op is not timed.
        UnknownNameError: no op of that name.
    """
    for name in only:
        if name not in OPS:
            raise UnknownNameError("op", name, OPS)
    rows: list[Row] = []
    for op in only or OPS:
        for count in sorted({1, available_cores()}):
            for case in cases(op, count, SIZES[:1] if short else SIZES):
                rows += _measured(case, rounds)
    notes = [
        "Results were compared before they were timed: equal to the bit, attention to 2e-5.",
        "OpenCV and PyTorch resize by other filters than Pillow's, which the models were trained with: their pixels "
        "differ, and only their times can be compared.",
    ]
    if not find_spec("fgfast._native"):
        notes.append("The native ops are not installed: there is nothing to compare the others with.")
    if not find_spec("torch"):
        notes.append("PyTorch is not installed, and left out.")
    title = "Ops beside the same in other libraries"
    headline = [f"mask_post, {n} of 500x375, 1 thread: {_FASTER} {TORCH}" for n in ("1 mask", "3 masks")]
    return envelope("ops", rows, title=title, rounds=rounds, notes=notes, headline=headline, plots=_plots(rows))


def _plots(rows: Sequence[Row]) -> dict[str, Any]:
    """How many times as fast as its fastest rival of the same results the native op is, of each case."""
    least: dict[str, Row] = {}
    for row in rows:
        rival = row.name.removeprefix(_FASTER).strip()
        if (
            not row.name.startswith(_FASTER)
            or rival == ORACLE
            or (row.group.startswith("resize") and rival != "Pillow")
        ):
            continue
        if row.group not in least or row.value < least[row.group].value:
            least[row.group] = row
    values = [(f"{group}: {row.name.removeprefix(_FASTER).strip()}", row.value) for group, row in least.items()]
    note = "The fastest other one that gives the same results, and how many times as fast as it the native op is."
    bars = {"title": "Native beside its fastest rival", "note": note, "unit": "times as fast", "of": "op and rival"}
    return {"bars": [bars | {"values": values, "log": True}]} if values else {}


def _measured(case: Case, rounds: int) -> list[Row]:
    """A case's rows."""
    distances = compare(case)
    rows: list[Row] = []
    with threads(case.threads):
        calls = {c.name: c.call for c in case.contenders}
        seconds = {}
        if ORACLE in calls:
            seconds = in_turns({ORACLE: calls[ORACLE]}, 1, least=0)
            if seconds[ORACLE][0] > _PATIENCE:
                del calls[ORACLE]
        seconds |= in_turns(calls, rounds)
    for name, values in sorted(seconds.items(), key=lambda item: item[0] != NATIVE):
        rows.append(Row.of(name, (1e3 * value for value in values), "ms", "lower", case.title))
    ours = seconds.get(NATIVE)
    for name, values in seconds.items():
        if ours and name != NATIVE:
            # The oracle may have had one turn.
            ratios = tuple(theirs / own for theirs, own in zip(values, ours, strict=False))
            told = f"{_FASTER} {name}"
            rows.append(Row(told, min(values) / min(ours), "times", "higher", case.title, ratios))
    for name, distance in distances.items():
        rows.append(Row(f"{name} is off by", distance, case.unit, "", case.title))
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The table of docs/performance.md: a line a case; of others milliseconds and how many times as fast native is."""
    groups: dict[str, dict[str, Row]] = {}
    for row in rows_of(result):
        groups.setdefault(row.group, {})[row.name] = row
    lines = ["| op | native, ms | others, ms |", "| --- | --- | --- |"]
    for group, own in groups.items():
        others = [
            f"{name} {figure(row.value)} ({figure(own[f'{_FASTER} {name}'].value)} times)"
            for name, row in own.items()
            if f"{_FASTER} {name}" in own
        ]
        if NATIVE in own:
            lines.append(f"| {group} | {figure(own[NATIVE].value)} | {', '.join(others)} |")
    return "\n".join(lines)


def compare(case: Case) -> dict[str, float]:
    """Compare all contenders' results with the first one's.

    Returns:
        Name -> how far it is off, of those that are known to compute something else.

    Raises:
        AssertionError: another one differs by more than is allowed.
    """
    first, *others = case.contenders
    with threads(case.threads):
        wanted = first.call()
        found = {}
        for other in others:
            distance = case.distance(other.call(), wanted)
            if not other.same:
                found[other.name] = distance
            elif not distance <= case.allowed:
                raise AssertionError(f"{case.title}: {other.name} differs from {first.name} by {distance:.3g}")
    return found


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
