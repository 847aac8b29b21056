"""`fgfast datasets`."""

from __future__ import annotations

from pathlib import Path

import click

from fgfast.cli.frame import dataset_names
from fgfast.terminal import line, say, say_json, say_path


def fetch(name: str, root: Path | None) -> Path | None:
    """Return the root of the data set, which is downloaded unless it is found."""
    from fgfast import datasets
    from fgfast.cli.console import transfer
    from fgfast.datasets.download import download
    from fgfast.errors import DatasetNotFoundError

    try:
        return datasets.find(name, None if root is None else [root])
    except DatasetNotFoundError:
        with transfer() as progress:
            return download(name, root or datasets.search_folders()[0], progress)


@click.command()
@click.option(
    "--download",
    metavar="NAME",
    shell_complete=dataset_names,
    help="Downloads this data set from its official address.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    show_default="FGFAST_DATA, ./data, current folder",
    help="Searches, or downloads to, this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Prints the list as JSON.")
def datasets(download: str | None, root: Path | None, as_json: bool) -> None:
    """List the known data sets and where each was found."""
    import json

    from fgfast.datasets import search_folders, survey

    if download:
        if found_at := fetch(download, root):
            say_path(found_at)
        return
    found = survey(None if root is None else [root])
    if as_json:
        rows = [
            {"name": f.name, "title": f.title, "path": str(f.path) if f.path else None, "images": f.images}
            for f in found
        ]
        say_json(json.dumps(rows, indent=2))
        return
    for f in found:
        count = f"{f.images:,} images" if f.images is not None else ""
        where = f"{f.path.absolute()}  {count}".rstrip() if f.path else "not found"
        where = where if f.name != "folder" else "any folder of images: --root DIR"
        say(line(f"{f.name:<11} {f.title:<22} {where}"))
    searched = search_folders() if root is None else (root,)
    say("\nSearched: " + line(", ".join(str(folder.absolute()) for folder in searched)))
    say("Search elsewhere with FGFAST_DATA=DIR or --root DIR; download with: fgfast datasets --download NAME")
