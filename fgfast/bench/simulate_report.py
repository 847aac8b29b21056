"""The result of `fgfast bench simulate`: rows, notes and verdict; and costs read back from an earlier result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from fgfast.bench import compare, simulate_images
from fgfast.bench.result import Result, Row, envelope, rows_of
from fgfast.bench.simulate import Scenario
from fgfast.bench.simulate_account import Figures, Setup
from fgfast.bench.simulate_clock import Cost
from fgfast.bench.simulate_job import STEPS
from fgfast.bench.text import figure
from fgfast.bench.whole import PAPER_SECONDS
from fgfast.errors import UsageError
from fgfast.records import Size

NAME = "simulate"
_CPU, _HELD = "CPU", "with the GIL"
_TITLES = {"predicted": "by simulation", "measured": "models asleep, all else real"}

Found = Mapping[str, tuple[Figures, Setup]]


def result(scenario: Scenario, found: Found) -> Result:
    """Return the result of a scenario.

    Args:
        scenario: what was simulated.
        found: "predicted", "measured" -> figures and setup.
    """
    rows: list[Row] = []
    for kind, (own, setup) in found.items():
        rows += _rows(_TITLES[kind], own, setup)
    if len(found) == 2:
        ratio = found["predicted"][0].rate / found["measured"][0].rate
        rows.append(Row("predicted / measured", ratio, "times", "", "validation"))
    rows += rows_of_costs(next(iter(found.values()))[1].costs)
    return envelope(
        NAME,
        rows,
        title=f"Simulation: {scenario.title}",
        rounds=1,
        notes=_notes(scenario, found),
        headline=[f"{_TITLES[kind]}: rate" for kind in found],
        images=scenario.count,
        verdict=[_verdict(kind, own) for kind, (own, _) in found.items()],
        bound={kind: own.bound for kind, (own, _) in found.items()},
    )


def rows_of_costs(costs: Mapping[str, Cost]) -> list[Row]:
    """Return the rows of what each step costs."""
    return [
        Row(f"{name}, {part}", 1e3 * value, "ms", "lower", "cost of a step")
        for name, cost in costs.items()
        for part, value in ((_CPU, cost.cpu), (_HELD, cost.held))
    ]


def _rows(group: str, own: Figures, setup: Setup) -> list[Row]:
    rows = [
        Row("rate", own.rate, "images/s", "higher", group),
        Row("wall time per image", 1e3 / own.rate, "ms", "lower", group),
        *(Row(f"idle, {name}", 100 * idle, "%", "lower", group) for name, idle in own.idle.items()),
        Row("parent's CPU per image", 1e3 * own.parent, "ms", "lower", group),
        Row("workers' CPU per image", 1e3 * own.worker, "ms", "lower", group),
        Row("waiting for a core or the GIL, per image", 1e3 * own.waited, "ms", "lower", group),
    ]
    if setup.costs:
        rows.append(Row("runner's own CPU per image, in the workers", 1e3 * setup.runner, "ms", "lower", group))
    rows += [Row(f"taken: {name}", 100 * share, "%", "", group) for name, share in own.shares.items()]
    return rows


def _verdict(kind: str, own: Figures) -> str:
    seconds = 1 / own.rate
    times = PAPER_SECONDS / seconds
    against = f"{figure(times)} times as fast as" if times >= 1 else f"{figure(1 / times)} times"
    return (
        f"{figure(own.rate)} images/s, {figure(seconds)} s per image, {_TITLES[kind]}; {against} the {PAPER_SECONDS} s "
        f"of the paper. Bound: {own.bound}."
    )


def _notes(scenario: Scenario, found: Found) -> list[str]:
    notes = [
        "No GPU took part: a device serves one batch after the other, and sleeps for the time given. What launching a "
        "batch costs the CPU is not measured, and not in it.",
        _of_canvases(),
        "Rates and shares are those once under way, without the slow-down.",
    ]
    if "predicted" in found:
        _, setup = found["predicted"]
        cpu, held = (1e3 * sum(getattr(cost, part) for cost in setup.costs.values()) for part in ("cpu", "held"))
        notes.append(
            f"A step sleeps with the token of one of {setup.cores} cores: {cpu:.1f} ms per image, {held:.1f} of them "
            "with the token of its worker's GIL, as measured on this machine. The runner, the ledger and the commit of "
            "files are real; files have one byte."
        )
        if scenario.slow_down > 1:
            notes.append(
                f"All times were multiplied by {scenario.slow_down:g}, and the rate is given without that; the "
                "runner's own time was measured before and multiplied, too."
            )
    return notes


def _of_canvases() -> str:
    """Return how the images are spread over the canvases, in a sentence."""
    images: Counter[Size] = Counter()
    for size, count in simulate_images.CUB.items():
        images[simulate_images.canvas_of(Size(*size))] += count
    shares = ", ".join(
        f"{canvas.height}x{canvas.width} {count / simulate_images.COUNT:.0%}" for canvas, count in images.most_common()
    )
    return (
        f"Images have the sizes of {simulate_images.COUNT} photographs of CUB-200-2011, and so Detic's canvases are "
        f"mixed: {shares}. A batch takes the device as long on any of them."
    )


def read_costs(file: Path) -> dict[str, Cost]:
    """Return the costs of the steps from an earlier result.

    Raises:
        UsageError: the file is no result of this bench, or holds no costs.
    """
    rows = {row.key: row.value / 1e3 for row in rows_of(compare.read(file, NAME, "simulate_all"))}
    try:
        return {
            name: Cost(rows[f"cost of a step: {name}, {_CPU}"], rows[f"cost of a step: {name}, {_HELD}"])
            for name in STEPS
        }
    except KeyError as error:
        raise UsageError(
            f"{file} does not say what {str(error.args[0])!r} is; give a result of fgfast bench simulate --json that "
            "was not made with --real-stages"
        ) from None
