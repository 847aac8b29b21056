"""`fgfast convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.datasets import fetch
from fgfast.cli.frame import EXIT_SOME_FAILED, dataset_names, verbose_option
from fgfast.cli.like import drop_overridden, files_taken, take_defaults
from fgfast.cli.settings import settings_of, settings_options
from fgfast.terminal import message, note, say, say_json

# fgfast.runner.DEADLINE, without its slow import for --help; a test keeps them equal.
DEADLINE = 300.0

if TYPE_CHECKING:
    from fgfast.io.output import Mode
    from fgfast.pipeline.plan import Plan


@click.command()
@click.argument("name", required=False, metavar="[DATASET]", shell_complete=dataset_names)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=dataset_names,
    help="Names the data set: cub, cars, aircraft, waterbirds, pets, dogs, flowers, folder, or the path of a folder.",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=take_defaults,
    metavar="RUN",
    help="Repeats an earlier run, given as its run.json or its output folder; other options override what it says.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Names the data set's folder or its parent, instead of a search."
)
@click.option("--out", type=click.Path(path_type=Path), show_default="NAME_fg", help="Names the output folder.")
@click.option("--labels", help="Selects a list of labels (aircraft: variant, family, manufacturer).")
@click.option("--split", "splits", multiple=True, help="Selects splits, separated by commas.")
@click.option("--classes", multiple=True, help="Selects classes, separated by commas.")
@click.option(
    "--limit", type=click.IntRange(1), help="Selects at most this many images, spread evenly over the data set."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="FILE",
    type=click.Path(resolve_path=True),
    help="Leaves out the images that a file lists: keys, one per line, or an earlier run's flagged.csv or failed.csv.",
)
@settings_options()
@click.option(
    "--cpu-threads",
    type=click.IntRange(1),
    show_default="one per core, at most 8 per worker process",
    help="Sets the number of threads that decode, cut and write, for all worker processes together.",
)
@click.option(
    "--deadline",
    default=DEADLINE,
    show_default=True,
    type=click.FloatRange(min=1.0),
    help="Ends a worker process that takes more than this many seconds for an image.",
)
@click.option("--in-process", is_flag=True, help="Does all work in this process, for debugging.")
@click.option("--resume", is_flag=True, help="Fails if there is no earlier run to resume.")
@click.option(
    "--verify", is_flag=True, help="Hashes all files of an earlier run, instead of comparing sizes and times."
)
@click.option("--overwrite", is_flag=True, help="Deletes an earlier run's results and starts again.")
@click.option("--download", is_flag=True, help="Downloads the data set first if it is not found.")
@click.option("--dry-run", is_flag=True, help="Prints the plan, and changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
@verbose_option
@click.pass_context
def convert(ctx: click.Context, /, **options: Any) -> None:
    """Make the foreground-only twin of a data set, which is named as the argument or by --dataset.

    The twin keeps names, sizes and layout, so that the data set's usual loader reads it. The same command resumes a
    run that was stopped. Exit codes: 0 all done, 3 some images failed, 2 wrong usage, 1 another error, 129, 130
    or 143 stopped.
    """
    from fgfast.cli import console
    from fgfast.cli.interruption import Interruption
    from fgfast.pipeline import run as pipeline

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other")
    options["dataset"] = _dataset(ctx, options)
    if options["like"]:
        drop_overridden(ctx, options)
        if not options["as_json"] and (line := files_taken(ctx, options)):
            note(line)
    if options["download"] and not options["dry_run"]:
        options["root"] = fetch(options["dataset"], options["root"])
    plan = _plan(options)
    mode: Any = "resume" if options["resume"] else "overwrite" if options["overwrite"] else "auto"
    if options["dry_run"]:
        _dry_run(plan, mode, options["as_json"])
        return
    if not options["as_json"]:
        note(console.describe_plan(plan))
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        note(f"  {message(text)}")

    with Interruption() as interruption, console.progress(options["as_json"]) as progress:
        report = pipeline.run(
            plan,
            mode=mode,
            cpu_threads=options["cpu_threads"],
            stop=interruption.stop,
            progress=progress,
            in_process=options["in_process"],
            verify=options["verify"],
            deadline=options["deadline"],
            on_message=None if options["as_json"] else tell,
        )
    say_json(console.report_json(report)) if options["as_json"] else say(console.summary(report, told=told))
    if report.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if report.counts["failed"] else 0)


def _dry_run(plan: Plan, mode: Mode, as_json: bool) -> None:
    """Print the plan; then raise what the run would raise before it begins."""
    from fgfast.cli import console
    from fgfast.errors import UsageError
    from fgfast.io.output import Output

    output, refused = Output(plan.out, plan.dataset.folder), None
    try:
        output.preflight(mode, plan.fingerprint)
    except UsageError as error:
        refused = error
    expected = console.Expected.of(plan, output, "overwrite" if refused else mode)
    if as_json:
        say_json(console.plan_json(plan, expected, refused))
    else:
        say(f"{console.describe_plan(plan)}\n  {expected.describe()}")
    if refused:
        raise refused


def _dataset(ctx: click.Context, options: dict[str, Any]) -> str:
    """The data set, by argument or option."""
    given = ctx.get_parameter_source("dataset") is click.core.ParameterSource.COMMANDLINE
    if options["name"] and given:
        raise click.UsageError(f"two data sets: {options['name']} and --dataset {options['dataset']}; give one")
    if not options["name"] and not options["dataset"]:
        names = next(param for param in ctx.command.params if param.name == "dataset")
        raise click.MissingParameter("Name it, as in: fgfast convert cub", ctx, names)
    name: str = options["name"] or options["dataset"]
    return name


def _plan(options: dict[str, Any]) -> Plan:
    from fgfast.config import Selection
    from fgfast.pipeline.plan import make_plan

    selection = Selection(options["splits"], options["classes"], options["limit"], options["exclude"])
    return make_plan(
        options["dataset"],
        options["out"],
        root=options["root"],
        labels=options["labels"],
        settings=settings_of(options),
        selection=selection,
        measure=not options["dry_run"],
    )
