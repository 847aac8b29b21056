"""`fgfast bench simulate` and `fgfast bench floors`: figures of devices that this machine lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgfast.cli.bench_output import DIR, OUTPUTS, add_options, count_option, folder_of, path_option, report
from fgfast.cli.settings import settings_options


def _times(name: str, least: float, help: str, **more: Any) -> Any:
    return click.option(name, type=click.FloatRange(least), help=help, **more)


@click.command("simulate")
@add_options(
    _times("--device-ms", 0.1, "Sets the milliseconds per image that a device takes for both models.", required=True),
    count_option("--devices", 1, help="Simulates this many devices, with a worker each."),
    count_option("--threads", 8, help="Sets the threads of each worker's pool."),
    count_option("--cores", 16, help="Simulates a machine with this many cores."),
    click.option(
        "--placement",
        type=click.Choice(["replicate", "split"]),
        default="replicate",
        show_default=True,
        help="Lets every device do everything, or some detect and the others segment.",
    ),
    _times(
        "--slow-down",
        1,
        "Multiplies every simulated time, so that few cores can carry many devices.",
        default=1.0,
        show_default=True,
    ),
    count_option("--images", help="Converts this many images.  [default: 15 seconds' worth, and as many as it takes]"),
    settings_options(("format",), format="png"),
    click.option("--real-stages", is_flag=True, help="Does all work on the CPU; only the models sleep."),
    click.option("--validate", is_flag=True, help="Simulates this machine's cores, then runs with real stages, too."),
    path_option("--costs", help="Takes what steps cost from an earlier result (--json, --save); else measures it."),
    DIR,
    *OUTPUTS,
)
def bench_simulate(real_stages: bool, validate: bool, costs: Path | None, folder: Path | None, **options: Any) -> None:
    """Simulate the runner on devices and cores that this machine lacks: models sleep, and so does work on the CPU."""
    from fgfast.bench import simulate, simulate_report
    from fgfast.machine import available_cores
    from fgfast.terminal import note

    if real_stages and validate:
        raise click.UsageError("--validate runs with real stages anyway: leave out --real-stages")
    if real_stages and costs:
        raise click.UsageError("--costs has no effect with --real-stages: the work is real")
    output = {name: options.pop(name) for name in ("as_json", "old", "save")}
    if real_stages or validate:
        by_hand = click.core.ParameterSource.COMMANDLINE
        for name in ("cores", "slow_down"):
            if click.get_current_context().get_parameter_source(name) is by_hand:
                raise click.UsageError(f"--{name.replace('_', '-')} has no effect on work that is real")
        options["cores"] = available_cores()
    scenario = simulate.Scenario(**options)
    simulate.check(scenario)
    mode = "real stages" if real_stages else "both" if validate else "simulation"
    known = simulate_report.read_costs(costs) if costs else None
    where = folder_of(folder)
    report(
        simulate_report.NAME,
        lambda: simulate_report.result(
            scenario, simulate.measure(scenario, folder=where, mode=mode, costs=known, on_message=note)
        ),
        **output,
    )


@click.command("floors")
@add_options(*OUTPUTS)
def bench_floors(**output: Any) -> None:
    """Print the least time that the models take on each GPU, computed from data sheets. Nothing is measured."""
    from fgfast.bench import floors

    report("floors", floors.result, **output, timed=False)
