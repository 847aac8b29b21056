"""`fgfast masks`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.terminal import line, note, say, say_path

if TYPE_CHECKING:
    from fgfast.pipeline.exchange import Imported

_SUFFIXES = {"coco": ".json", "cvat": ".xml", "label-studio": ".json", "fiftyone": ".json", "pack": ".parquet"}


@click.group()
def masks() -> None:
    """Hand masks over to other annotation tools, and take them back."""


@masks.command("export")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(list(_SUFFIXES)), required=True, help="Names the format of the file.")
@click.option("--out", "file", type=click.Path(path_type=Path), help="Names the file.  [default: masks-FORMAT here]")
def export_masks(out: Path, to: str, file: Path | None) -> None:
    """Write the masks of a run into one file for another tool.

    OUT is the output folder of a run. The masks have the size of the stored images; no pixel of an image is written.
    Every format keeps every pixel of a mask. A pack holds boxes, flags and decisions as well: fgfast convert
    --masks-from makes the same twin from it.
    """
    from fgfast.pipeline.exchange import export

    file = file or Path(f"masks-{to}{_SUFFIXES[to]}")
    note(f"{export(out, to, file):,} masks")
    say_path(file)


@masks.command("import")
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--who", default="import", show_default=True, help="Says who decided, such as CVAT or a name.")
@click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved.")
@click.option("--exported", type=click.Path(path_type=Path), help="Names the file as it was exported.")
@click.option("--replace", is_flag=True, help="Also takes masks where somebody decided since the export.")
@click.option("--lossy", is_flag=True, help="Also takes polygons of COCO files, and prints the IoU.")
@click.option("--dry-run", is_flag=True, help="Says what would change, and changes nothing.")
def import_masks(
    out: Path, file: Path, who: str, root: Path | None, exported: Path | None, replace: bool, lossy: bool, dry_run: bool
) -> None:
    """Take masks back from another tool, as decisions that can be undone.

    OUT is the output folder of a run, FILE a file of COCO, CVAT, Label Studio or FiftyOne. Images are found by name and
    size; what matches none is listed, and so is a mask that was made from an older one. Masks that are unchanged make
    no decision.
    """
    from fgfast.pipeline.exchange import Taking, bring_back

    result = bring_back(out, file, Taking(who, root, dry_run, exported, replace, lossy))
    say(f"{len(result.changed):,} masks {'would change' if dry_run else 'changed'}, {result.unchanged:,} unchanged")
    _say_more(result)
    if result.left and not (result.changed or result.unchanged or result.kept):
        note(f"nothing in {file} belongs to the run in {out}: is it the file of another data set?")
        sys.exit(EXIT_SOME_FAILED)


def _say_more(result: Imported) -> None:
    _list("as exported, where the run has another mask since; --replace takes them", result.kept)
    _list("united from several masks of their class", result.united)
    if result.lossy:
        ious = result.lossy.values()
        say(f"{len(ious):,} drawn from polygons: IoU with the masks before {sum(ious) / len(ious):.4f} on average")
        for name, value in sorted(result.lossy.items(), key=lambda each: each[1]):
            say(line(f"  {name}: {value:.4f}"))
    _list("not taken", [f"{name}: {reason}" for name, reason in result.left.items()])


def _list(what: str, names: Iterable[str]) -> None:
    names = list(names)
    if names:
        say(f"{len(names):,} {what}:")
        for name in names:
            say(line(f"  {name}"))
