"""Measures the native ops beside the NumPy reference and other libraries, in turns, after comparing the results."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from fgfast.bench.op_cases import NATIVE, NUMPY, OPS, SIZES, TORCH, Case, cases
from fgfast.bench.result import Result, Row, envelope
from fgfast.bench.timing import in_turns, threads
from fgfast.errors import UnknownNameError
from fgfast.machine import available_cores

# Where the NumPy reference takes longer than this many seconds, it is timed only once.
_PATIENCE = 0.2
# The prefix of rows that compare the native op with another contender.
_FASTER = "native is faster than"


def measure(*, rounds: int = 7, only: Sequence[str] = (), short: bool = False) -> Result:
    """Time every op with one thread and, where it has threads, with all cores.

    Args:
        rounds: how often each contender is timed; medians are quoted.
        only: the names of ops; all by default.
        short: measure on the smaller images only.

    Returns:
        Milliseconds of each contender, and how many times as fast as each rival the native op is. That ratio is that of
        the fastest rounds of both, because other load on the machine only adds time, most of all to contenders that
        wait for several threads.

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
        "Results were compared before they were timed: they are equal to the bit, those of attention to 2e-5, in "
        "bfloat16 to 3 % on average.",
        "OpenCV and PyTorch resize with other filters than Pillow, on whose pixels the models were trained: only their "
        "times can be compared.",
    ]
    if not find_spec("fgfast._native"):
        notes.append("The native ops are not installed: there is nothing to compare the others with.")
    if not find_spec("torch"):
        notes.append("PyTorch is not installed and was left out.")
    title = "Native ops beside other libraries"
    headline = [f"mask_post, {n} of 500x375, 1 thread: {_FASTER} {TORCH}" for n in ("1 mask", "3 masks")]
    return envelope("ops", rows, title=title, rounds=rounds, notes=notes, headline=headline, plots=_plots(rows))


def _plots(rows: Sequence[Row]) -> dict[str, Any]:
    """The bars of the native op over its fastest rival with the same results, of each case."""
    least: dict[str, Row] = {}
    for row in rows:
        rival = row.name.removeprefix(_FASTER).strip()
        if not row.name.startswith(_FASTER) or rival == NUMPY or (row.group.startswith("resize") and rival != "Pillow"):
            continue
        if row.group not in least or row.value < least[row.group].value:
            least[row.group] = row
    values = [(f"{group}: {row.name.removeprefix(_FASTER).strip()}", row.value) for group, row in least.items()]
    title = "Native op beside the fastest other one with the same results"
    return {"bars": {"title": title, "unit": "times as fast", "values": values, "log": True}} if values else {}


def _measured(case: Case, rounds: int) -> list[Row]:
    """Compare and time the contenders of a case; return its rows."""
    distances = compare(case)
    rows: list[Row] = []
    with threads(case.threads):
        calls = dict(case.contenders)
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
            # The NumPy reference may have been timed only once.
            ratios = tuple(theirs / own for theirs, own in zip(values, ours, strict=False))
            rows.append(Row(f"{_FASTER} {name}", min(values) / min(ours), "times", "higher", case.title, ratios))
    for name, distance in distances.items():
        rows.append(Row(f"{name} is off by", distance, case.unit, "", case.title))
    return rows


def compare(case: Case) -> dict[str, float]:
    """Compare the results of all contenders with that of the first one.

    Returns:
        Name -> distance for the contenders that are known to compute something else.

    Raises:
        AssertionError: another contender differs by more than is allowed.
    """
    first, *rest = case.contenders
    with threads(case.threads):
        wanted = case.contenders[first]()
        distances = {name: case.distance(case.contenders[name](), wanted) for name in rest}
    for name, distance in distances.items():
        if name not in case.others and not distance <= case.allowed:
            raise AssertionError(f"{case.title}: {name} differs from {first} by {distance:.3g}")
    return {name: distance for name, distance in distances.items() if name in case.others}
