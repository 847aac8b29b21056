"""`fgfast expand`: a command per kind, whose options are made from the kind's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.convert import DEADLINE
from fgfast.cli.frame import EXIT_SOME_FAILED, verbose_option
from fgfast.cli.settings import setting_option
from fgfast.terminal import Group, line, message, note, say, say_json

if TYPE_CHECKING:
    from fgfast.expand.plan import ExpandPlan

# The options of every kind.
_COMMON = (
    click.option("--out", type=click.Path(path_type=Path), show_default="RUN_KIND", help="Names the output folder."),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Seeds all that is drawn at random: the same seed gives the same bytes.",
    ),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="Names the folder of the run's data set, where it has moved since.",
    ),
    click.option("--split", "splits", multiple=True, help="Selects splits, separated by commas."),
    click.option("--classes", multiple=True, help="Selects classes, separated by commas."),
    click.option("--limit", type=click.IntRange(1), help="Selects at most this many images, spread evenly."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="FILE",
        type=click.Path(resolve_path=True),
        help="Leaves out the images that a file lists: keys, one per line, or a run's flagged.csv or failed.csv.",
    ),
    click.option(
        "--flagged",
        default="use",
        show_default=True,
        help="Uses images whose masks the run flagged, or skips them. One of: use, skip.",
    ),
    click.option(
        "--format",
        default="same",
        show_default=True,
        help="Writes images in this format. One of: same (as each name says), png, jpeg, webp.",
    ),
    click.option(
        "--quality", default=95, show_default=True, type=click.IntRange(1, 100), help="Sets the quality of JPEG, WebP."
    ),
    click.option(
        "--workers", type=click.IntRange(1), show_default="one per core", help="Sets the number of worker processes."
    ),
    click.option(
        "--deadline",
        default=DEADLINE,
        show_default=True,
        type=click.FloatRange(min=1.0),
        help="Ends a worker process that takes more than this many seconds for an image.",
    ),
    click.option("--in-process", is_flag=True, help="Does all work in this process, for debugging."),
    click.option("--resume", is_flag=True, help="Fails if there is no earlier expansion to resume."),
    click.option("--verify", is_flag=True, help="Hashes all files of an earlier expansion."),
    click.option("--overwrite", is_flag=True, help="Deletes an earlier expansion and starts again."),
    click.option("--dry-run", is_flag=True, help="Prints the plan, and changes nothing."),
    click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON."),
    verbose_option,
)


class Kinds(Group):
    """The kinds as commands; a kind's module is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from fgfast.expand.table import names

        return list(names())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from fgfast.expand.table import names

        return _command(name) if name in names() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and args[0] not in names:
            given = str(ctx.params.get("run"))
            order = f" (the run comes first: fgfast expand RUN {given})" if given in names else ""
            ctx.fail(f"no kind of expansion is named {args[0]!r}{order}; there are {', '.join(names)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from fgfast.expand.table import KINDS

        with formatter.section("Kinds"):
            formatter.write_dl([(kind.name, kind.summary) for kind in KINDS])


@click.group(cls=Kinds, subcommand_metavar="KIND [OPTIONS]")
@click.argument("run", type=click.Path(path_type=Path))
@click.pass_context
def expand(ctx: click.Context, run: Path) -> None:
    """Make a further data set from the masks of a finished run, the output folder of fgfast convert.

    fgfast expand RUN KIND --help shows the options of a kind. The same command resumes an expansion that was stopped;
    masks that people corrected since are made again. Exit codes are those of fgfast convert.
    """


def _command(name: str) -> click.Command:
    """Return the command of a kind."""
    from fgfast.expand.table import kind, resolve

    entry = kind(name)
    options = resolve(entry.options)

    @click.pass_context
    def run(ctx: click.Context, /, **given: Any) -> None:
        assert ctx.parent is not None
        own = options(**{f.name: given.pop(f.name) for f in fields(options)})
        _expand(ctx.parent.params["run"], name, own, given)

    command: Any = run
    for option in reversed(_COMMON):
        command = option(command)
    for f in reversed(fields(options)):
        command = setting_option(f, f.default)(command)
    summary = f"{entry.summary[:1].upper()}{entry.summary[1:]}."
    return click.command(name, help=summary, no_args_is_help=False)(command)


def _expand(run: Path, kind: str, own: Any, given: dict[str, Any]) -> None:
    from fgfast.cli import console
    from fgfast.cli.interruption import Interruption
    from fgfast.config import Selection
    from fgfast.expand.plan import How, make_plan
    from fgfast.expand.run import run as carry_out

    if given["resume"] and given["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other")
    selection = Selection(given["splits"], given["classes"], given["limit"], given["exclude"])
    how = How(given["seed"], given["flagged"], given["format"], given["quality"])
    mode: Any = "resume" if given["resume"] else "overwrite" if given["overwrite"] else "auto"
    as_json = given["as_json"]
    with make_plan(run, kind, given["out"], options=own, how=how, root=given["root"], selection=selection) as plan:
        if given["dry_run"]:
            plan.output().preflight(mode, plan.fingerprint)
            say_json(_plan_json(plan)) if as_json else say("\n".join(_lines(plan)))
            return
        if not as_json:
            note("\n".join(_lines(plan)))
        with Interruption() as interruption, console.progress(as_json) as progress:
            report = carry_out(
                plan,
                mode=mode,
                workers=given["workers"],
                stop=interruption.stop,
                progress=progress,
                in_process=given["in_process"],
                verify=given["verify"],
                deadline=given["deadline"],
                on_message=None if as_json else lambda text: note(f"  {message(text)}"),
            )
    say_json(console.report_json(report)) if as_json else say(console.summary(report, run))
    if report.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if report.counts["failed"] else 0)


def _lines(plan: ExpandPlan) -> Sequence[str]:
    """Return what an expansion will do, in a few lines."""
    selected, everything = len(plan.positions), len(plan.usable.keys)
    return [
        line(text)
        for text in (
            f"{plan.kind.name} of {plan.twin.title}: {selected:,} of {everything:,} images with a mask, from "
            f"{plan.twin.out}",
            *(f"  {reason}" for reason in plan.reasons),
            *(f"  warning: {warning}" for warning in plan.warnings),
            f"  seed {plan.how.seed}, format {plan.how.format}",
            f"  to {plan.out}",
        )
    ]


def _plan_json(plan: ExpandPlan) -> str:
    """Return the plan as JSON."""
    import json

    content = {
        "kind": plan.kind.name,
        "run": str(plan.twin.out),
        "out": str(plan.out),
        "selected": len(plan.positions),
        "usable": len(plan.usable.keys),
        "without_product": len(plan.planned.unused),
        "choices": plan.reasons,
        "warnings": plan.warnings,
        "fingerprint": plan.fingerprint,
    }
    return json.dumps(content, indent=2, default=str)
