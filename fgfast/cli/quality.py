"""`fgfast quality`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.terminal import line, note, say, say_json

if TYPE_CHECKING:
    from fgfast.review.quality import Averages, Quality

# Images whose official mask cannot be used, of those that are named; --json has all of them.
_NAMED = 5


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="Compares with these masks: a folder of masks named like their images, or a COCO file.  "
    "[default: those that the data set brings]",
)
@click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Writes a row per image to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draws the figures into this .png, .svg or .pdf file.")
@click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
def quality(
    out: Path, truth: Path | None, root: Path | None, table: Path | None, plot: Path | None, as_json: bool
) -> None:
    """Compare the masks of a run with official ones.

    OUT is the output folder of a run. IoU and the F score of the outline are printed for the masks that the run made
    and for those that hold after review, and how many of the wrong masks (IoU below 0.7) are among the most doubtful.
    """
    import json
    from dataclasses import asdict

    from fgfast import figure_files
    from fgfast.review import quality_plot
    from fgfast.review.quality import measure

    if plot:
        figure_files.check(plot)
    found = measure(out, truth, root)
    if table:
        _write_table(table, found)
        note(f"wrote {table}")
    if plot:
        quality_plot.write(plot, found, f"{out.absolute().name}, {len(found.judged):,} images")
        note(f"wrote {plot}")
    if as_json:
        facts: dict[str, Any] = {
            "before": asdict(found.before) if found.before else None,
            "after": asdict(found.after) if found.after else None,
            "found_within": found.found(),
            "images": [asdict(one) for one in found.judged],
            "missing": [asdict(one) for one in found.missing],
        }
        say_json(json.dumps(facts, indent=2))
        return
    _say(found)


def _say(found: Quality) -> None:
    say(line(f"{len(found.judged):,} images compared; {found.rule}"))
    if found.missing:
        say(f"{len(found.missing):,} more have no mask that can be used:")
        for one in found.missing[:_NAMED]:
            say(line(f"  {one.detail}"))
        if len(found.missing) > _NAMED:
            say("  ...")
    say(f"\n{'':<22}{'masks':>9}{'IoU':>9}{'worst 10 %':>12}{'outline F':>11}{'wrong':>9}")
    for name, means in (("as the run made them", found.before), ("now, after review", found.after)):
        if means:
            say(f"{name:<22}{_row(means)}")
    decided = sum(1 for one in found.judged if one.verdict)
    rejected = sum(1 for one in found.judged if one.verdict == "reject")
    say(f"\ndecided by a person: {decided:,}, of which rejected: {rejected:,}")
    if within := found.found():
        shares = ", ".join(f"the {share:.0%} most doubtful hold {value:.0%}" for share, value in within.items())
        say(f"of the wrong masks, {shares}")


def _row(means: Averages) -> str:
    return f"{means.masks:>9,}{means.iou:>9.3f}{means.worst:>12.3f}{means.boundary_f:>11.3f}{means.wrong:>9.1%}"


def _write_table(path: Path, found: Quality) -> None:
    """Write a row per image, UTF-8; what is not known is empty."""
    import csv
    import io

    from fgfast.writing import Target, write_file

    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    names = ("iou_before", "outline_f_before", "iou_after", "outline_f_after")
    rows.writerow(("key", "class", "status", "doubt", "decided", *names))
    for one in found.judged:
        doubt = "" if one.doubt is None else f"{one.doubt:.6g}"
        figures = [
            "" if each is None else f"{value:.6g}"
            for each in (one.before, one.after)
            for value in ((each.iou, each.boundary_f) if each else (0.0, 0.0))
        ]
        rows.writerow((one.key, one.label, one.status, doubt, one.verdict, *figures))
    write_file(Target.file(path), text.getvalue().encode("utf-8", "surrogatepass"))
