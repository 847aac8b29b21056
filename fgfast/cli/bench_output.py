"""Options that the commands of `fgfast bench` share, and how they report their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]


def add_options(*given: Option[F]) -> Option[F]:
    """Add several options to a command; its help lists them in this order."""

    def decorated(command: F) -> F:
        for option in reversed(given):
            command = option(command)
        return command

    return decorated


def path_option(*names: str, help: str) -> Option[Any]:
    """Return an option that takes a path."""
    return click.option(*names, type=click.Path(path_type=Path), help=help)


def count_option(name: str, default: int | None = None, least: int = 1, *, help: str) -> Option[Any]:
    """Return an option that takes a whole number of at least `least`."""
    return click.option(name, type=click.IntRange(least), default=default, show_default=default is not None, help=help)


OUTPUTS = (
    click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON."),
    path_option("--compare", "old", help="Compares with an earlier result (--json, --save); lists what got worse."),
    click.option(
        "--save", is_flag=True, help="Also writes bench/results/NAME-COMMIT.json; outside a clone, into this folder."
    ),
)
DIR = path_option("--dir", "folder", help="Works in this folder and measures its disk.  [default: the current folder]")


def folder_of(folder: Path | None) -> Path:
    """Return the absolute path of a folder that was given, or of the current one."""
    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    return (folder or Path()).absolute()


def report(
    name: str,
    measure: Callable[[], dict[str, Any]],
    as_json: bool,
    old: Path | None,
    save: bool,
    plot: Path | None = None,
    trace: Path | None = None,
    timed: bool = True,
) -> None:
    """Measure, then print, save, compare or draw the result. Unusable options are refused before that.

    A result that is not `timed` was computed, and a busy machine does not matter to it.
    """
    from fgfast import figure_files
    from fgfast.bench import compare, result, text
    from fgfast.bench import plot as drawing
    from fgfast.bench import trace as traces
    from fgfast.terminal import note, say, say_json

    before = compare.read(old, name) if old else None
    for file in filter(None, (plot, trace)):
        folder_of(file.absolute().parent)
    if plot:
        figure_files.check(plot)
    busy = result.busy() if timed else ""
    if busy:
        note(busy)
    try:
        found = measure()
    except AssertionError as error:
        raise click.ClickException(f"nothing is reported, because the results are wrong: {error}") from error
    found["notes"] += [busy] if busy else []
    comparison = compare.compare(before, found) if before else None
    if trace:
        traces.write(trace, found["plots"]["events"], found["title"])
        note(f"trace: {trace}; open it in https://ui.perfetto.dev or chrome://tracing")
    if plot:
        drawing.write(plot, found)
        note(f"figure: {plot}")
    if save:
        note(f"saved: {result.save(found)}")
    if as_json:
        say_json(result.text_of(found | ({"comparison": comparison.plain()} if comparison else {})))
        return
    say(text.table(found))
    if comparison:
        say("\n" + text.comparison(comparison))
