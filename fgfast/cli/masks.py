"""`fgfast masks`."""

from __future__ import annotations

from pathlib import Path

import click

from fgfast.terminal import line, note, say, say_path

_SUFFIXES = {"coco": ".json", "cvat": ".xml", "pack": ".parquet"}


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
    A pack holds boxes, flags and decisions as well: fgfast convert --masks-from makes the same twin from it.
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
@click.option("--dry-run", is_flag=True, help="Says what would change, and changes nothing.")
def import_masks(out: Path, file: Path, who: str, root: Path | None, dry_run: bool) -> None:
    """Take masks back from another tool, as decisions that can be undone.

    OUT is the output folder of a run, FILE a COCO file with run lengths or a CVAT file with masks. Images are found by
    name and size; what matches none is listed. Masks that are unchanged make no decision.
    """
    from fgfast.pipeline.exchange import bring_back

    result = bring_back(out, file, who, root, dry_run)
    say(f"{len(result.changed):,} masks {'would change' if dry_run else 'changed'}, {result.unchanged:,} unchanged")
    if result.left:
        say(f"{len(result.left):,} not taken:")
        for name, reason in result.left.items():
            say(line(f"  {name}: {reason}"))
