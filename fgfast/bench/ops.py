"""Measures the native ops beside the NumPy reference and libraries that do the same, in turns; results come first."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from fgfast.bench.op_cases import NATIVE, NUMPY, OPS, SIZES, TORCH, Case, cases
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.timing import in_turns, threads
from fgfast.errors import UnknownNameError
from fgfast.machine import available_cores

# The NumPy reference is there to be right: where it takes longer than this many seconds, it has only one turn.
_PATIENCE = 0.2
FASTER = "native is faster than"
"""How the name of a row begins that compares the native op with another contender."""


def measure(*, rounds: int = 7, only: Sequence[str] = (), short: bool = False) -> Result:
    """Time every op with one thread and, where it has threads, with all cores.

    Args:
        rounds: how often each contender has its turn; medians are quoted.
        only: the names of ops; all by default.
        short: measure on the smaller images only.

    Returns:
        Milliseconds of each contender, and how many times as fast as each rival the native op is. That ratio is of the
        fastest rounds of both, because other load on the machine only adds time, most of all to those that wait for
        several threads.

    Raises:
        AssertionError: the result of a contender differs; then its op is not timed.
        UnknownNameError: there is no op of that name.
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
        "Results were compared before they were timed: they are equal to the bit, those of attention to 2e-5.",
        "OpenCV and PyTorch resize by other filters than Pillow, with whose pixels the models were trained: only their "
        "times can be compared.",
    ]
    if not find_spec("fgfast._native"):
        notes.append("The native ops are not installed: there is nothing to compare the others with.")
    if not find_spec("torch"):
        notes.append("PyTorch is not installed and was left out.")
    title = "Native ops beside other libraries"
    headline = [f"mask_post, {n} of 500x375, 1 thread: {FASTER} {TORCH}" for n in ("1 mask", "3 masks")]
    return envelope("ops", rows, title=title, rounds=rounds, notes=notes, headline=headline, plots=_plots(rows))


def _plots(rows: Sequence[Row]) -> dict[str, Any]:
    """The bars of the native op over its fastest rival with the same results, of each case."""
    least: dict[str, Row] = {}
    for row in rows:
        rival = row.name.removeprefix(FASTER).strip()
        if not row.name.startswith(FASTER) or rival == NUMPY or (row.group.startswith("resize") and rival != "Pillow"):
            continue
        if row.group not in least or row.value < least[row.group].value:
            least[row.group] = row
    values = [(f"{group}: {row.name.removeprefix(FASTER).strip()}", row.value) for group, row in least.items()]
    title = "Native op beside the fastest other one with the same results"
    return {"bars": {"title": title, "unit": "times as fast", "values": values, "log": True}} if values else {}


def _measured(case: Case, rounds: int) -> list[Row]:
    """Compare and time the contenders of a case; return its rows."""
    distances = compare(case)
    rows: list[Row] = []
    with threads(case.threads):
        calls = {c.name: c.call for c in case.contenders}
        seconds = {}
        if NUMPY in calls:
            seconds = in_turns({NUMPY: calls[NUMPY]}, 1, least=0)
            if seconds[NUMPY][0] > _PATIENCE:
                del calls[NUMPY]
        seconds |= in_turns(calls, rounds)
    for name, values in sorted(seconds.items(), key=lambda item: item[0] != NATIVE):
        rows.append(Row.of(name, (1e3 * value for value in values), "ms", "lower", case.title))
    ours = seconds.get(NATIVE)
    for name, values in seconds.items():
        if ours and name != NATIVE:
            # The NumPy reference may have had one turn only.
            ratios = tuple(theirs / own for theirs, own in zip(values, ours, strict=False))
            rows.append(Row(f"{FASTER} {name}", min(values) / min(ours), "times", "higher", case.title, ratios))
    for name, distance in distances.items():
        rows.append(Row(f"{name} is off by", distance, case.unit, "", case.title))
    return rows


def compare(case: Case) -> dict[str, float]:
    """Compare the results of all contenders with that of the first one.

    Returns:
        Name -> distance, of the contenders that are known to compute something else.

    Raises:
        AssertionError: another contender differs by more than is allowed.
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
