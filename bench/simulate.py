"""Simulates what the runner must carry, one scenario after the other, and says which of it it does.

    python bench/simulate.py --save            # three quarters of an hour; nothing else may run meanwhile
    python bench/simulate.py --only validation --costs bench/results/simulate-COMMIT.json

Every scenario is one call of `fgfast bench simulate`, with the costs of the steps measured once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from fgfast import terminal
from fgfast.bench import result, simulate, simulate_report, text
from fgfast.bench.result import Row
from fgfast.bench.result import save as save_result
from fgfast.bench.simulate import Scenario, Simulation
from fgfast.bench.simulate_account import Figures
from fgfast.bench.whole import PAPER_SECONDS
from fgfast.machine import available_cores

# Milliseconds per image: an H200 as wanted, an RTX 3090, and the models that predictions are checked with.
WANTED, RTX_3090, CHECKED = 8.3, 110, (5, 10, 20)
# Images per second that one device at WANTED must reach; how many times that two and eight devices must.
RATE, TWICE, EIGHTFOLD = 118, 1.95, 7.5
# The share by which a prediction may be wrong; seconds of the parent's CPU per image; the idle share at 60 images/s.
WRONG, PARENT, IDLE = 0.10, 1e-3, 0.03
# Rounds of the validation, of which the median counts.
ROUNDS = 3
AT_MOST = f"at most {1e3 * PARENT:g}"
THREADS = (8, 64)

GROUPS = ("validation", "devices", "placements", "idle")


class Check(NamedTuple):
    """One figure and whether it is good enough.

    Attributes:
        group: the group that it belongs to.
        name: the scenario and the figure.
        value: the figure.
        unit: its unit.
        wanted: what is good enough, in words.
        good: whether it is.
        bound: what bounds the scenario.
    """

    group: str
    name: str
    value: float
    unit: str
    wanted: str
    good: bool
    bound: str


def validation(made: Simulation) -> Iterator[Check]:
    """Compare predicted with measured rates on this machine's cores.

    The speed of a virtual machine changes within minutes: costs are measured anew in each round, between the two runs.
    """
    rates: dict[float, list[tuple[Figures, Figures]]] = {ms: [] for ms in CHECKED}
    for _ in range(ROUNDS):
        for ms, found in rates.items():
            scenario = Scenario(ms, threads=available_cores(), cores=available_cores())
            measured, _ = made.really(scenario)
            made.prepare(scenario.format)
            found.append((made.simulate(scenario)[0], measured))
    for ms, found in rates.items():
        predicted, measured = sorted(found, key=lambda pair: pair[0].rate / pair[1].rate)[ROUNDS // 2]
        ratio = predicted.rate / measured.rate
        name = f"{ms} ms: predicted {text.figure(predicted.rate)}, measured {text.figure(measured.rate)} images/s"
        yield Check(
            "validation", name, ratio, "times", f"1 within {WRONG:.0%}", abs(ratio - 1) <= WRONG, measured.bound
        )


def devices(made: Simulation) -> Iterator[Check]:
    """Simulate one, two and eight devices on 16 cores, each with few and with many threads."""
    for threads in THREADS:
        one = _simulate(made, Scenario(WANTED, threads=threads))
        yield _rate("one device", threads, one, one.rate >= RATE)
        yield _parent(threads, one)
        two = _simulate(made, Scenario(WANTED, threads=threads, devices=2))
        yield _times("two devices", threads, two, one, TWICE)
        slow = _simulate(made, Scenario(WANTED, threads=threads, slow_down=4))
        eight = _simulate(made, Scenario(WANTED, threads=threads, devices=8, slow_down=4))
        yield _times("eight devices, all times x4", threads, eight, slow, EIGHTFOLD)
        yield _parent(threads, eight, "eight devices, ")


def placements(made: Simulation) -> Iterator[Check]:
    """Simulate two RTX 3090 in both placements."""
    for placement in ("replicate", "split"):
        found = _simulate(made, Scenario(RTX_3090, devices=2, placement=placement))
        name = f"two RTX 3090, {placement}, by simulation; the paper's {PAPER_SECONDS} s"
        yield Check(
            "placements",
            name,
            1 / found.rate,
            "s per image",
            f"at most {PAPER_SECONDS}",
            1 / found.rate <= PAPER_SECONDS,
            found.bound,
        )


def idle(made: Simulation) -> Iterator[Check]:
    """Run with real stages on this machine, at 60 images per second."""
    found, _ = made.really(Scenario(1e3 / 60, threads=available_cores()))
    share = next(iter(found.idle.values()))
    name = f"real stages at {text.figure(found.rate)} images/s on {available_cores()} cores: idle"
    yield Check("idle", name, 100 * share, "%", f"at most {100 * IDLE:g}", share <= IDLE, found.bound)
    yield Check(
        "idle", "parent's CPU, real stages", 1e3 * found.parent, "ms per image", AT_MOST, found.parent <= PARENT, ""
    )


def _simulate(made: Simulation, scenario: Scenario) -> Figures:
    terminal.note(f"simulating {scenario.title}")
    return made.simulate(scenario)[0]


def _rate(name: str, threads: int, found: Figures, good: bool) -> Check:
    return Check(
        "devices", f"{name}, {threads} threads: rate", found.rate, "images/s", f"at least {RATE}", good, found.bound
    )


def _times(name: str, threads: int, found: Figures, one: Figures, least: float) -> Check:
    times = found.rate / one.rate
    return Check(
        "devices",
        f"{name}, {threads} threads: against one",
        times,
        "times",
        f"at least {least}",
        times >= least,
        found.bound,
    )


def _parent(threads: int, found: Figures, name: str = "") -> Check:
    title = f"{name}{threads} threads: parent's CPU"
    return Check("devices", title, 1e3 * found.parent, "ms per image", AT_MOST, found.parent <= PARENT, "")


CHECKS: dict[str, Callable[[Simulation], Iterator[Check]]] = dict(
    zip(GROUPS, (validation, devices, placements, idle), strict=True)
)


@click.command()
@click.option("--only", type=click.Choice(GROUPS), multiple=True, help="Runs only these scenarios.  [default: all]")
@click.option("--costs", type=click.Path(path_type=Path), help="Takes what steps cost from an earlier result.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), default=".", help="Works in this folder and uses its disk."
)
@click.option("--save", is_flag=True, help="Writes bench/results/simulate_all-COMMIT.json, too.")
def main(only: tuple[str, ...], costs: Path | None, folder: Path, save: bool) -> None:
    """Simulate what the runner must carry, and say which of it it does; nothing else may run on the machine."""
    if busy := result.busy():
        terminal.note(busy)
    checks: list[Check] = []
    with simulate.simulation(folder.absolute(), simulate_report.read_costs(costs) if costs else None) as made:
        made.prepare("png")
        for name in only or GROUPS:
            for check in CHECKS[name](made):
                checks.append(check)
                mark, bound = (
                    "good" if check.good else "NOT GOOD ENOUGH",
                    f"; bound: {check.bound}" if check.bound else "",
                )
                terminal.say(
                    f"{mark}: {check.name}: {text.figure(check.value)} {check.unit}, wanted {check.wanted}{bound}"
                )
        found = result.envelope(
            "simulate_all",
            [Row(check.name, check.value, check.unit, "", check.group) for check in checks]
            + simulate_report.rows_of_costs(made.costs),
            title="What the runner carries, by simulation",
            rounds=1,
            notes=[busy] if busy else [],
            good={check.name: check.good for check in checks},
        )
    if save:
        terminal.note(f"saved: {save_result(found)}")


if __name__ == "__main__":
    main()
