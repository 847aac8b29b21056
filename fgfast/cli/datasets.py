"""`fgfast datasets`."""

from __future__ import annotations

from pathlib import Path

import click

from fgfast.cli.frame import dataset_names


def fetch(name: str, root: Path | None) -> Path | None:
    """Fetch the data set unless it is found; returns the root to open."""
    from fgfast import datasets
    from fgfast.cli.console import Transfer
    from fgfast.datasets.download import download
    from fgfast.errors import DatasetNotFoundError

    try:
        return datasets.find(name, None if root is None else [root])
    except DatasetNotFoundError:
        with Transfer() as transfer:
            return download(name, root or datasets.search_folders()[0], transfer)


@click.command()
@click.option(
    "--download",
    metavar="NAME",
    shell_complete=dataset_names,
    help="Fetch a data set from its official address.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Look there, or put it there.  [default: FGFAST_DATA, ./data, here]",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def datasets(download: str | None, root: Path | None, as_json: bool) -> None:
    """List the known data sets and what was found of them."""
    import json

    from fgfast.datasets import search_folders, survey

    if download:
        click.echo(fetch(download, root))
        return
    found = survey(None if root is None else [root])
    if as_json:
        rows = [
            {
                "name": f.name,
                "title": f.title,
                "path": str(f.path) if f.path else None,
                "images": f.images,
            }
            for f in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for f in found:
        count = f"{f.images:,} images" if f.images is not None else ""
        where = f"{f.path.absolute()}  {count}".rstrip() if f.path else "not found"
        click.echo(f"{f.name:<11} {f.title:<22} {where if f.name != 'folder' else 'any folder of images: --root DIR'}")
    looked = search_folders() if root is None else (root,)
    click.echo("\nLooked in: " + ", ".join(str(folder.absolute()) for folder in looked))
    click.echo("Look elsewhere with FGFAST_DATA=DIR or --root DIR; fetch with: fgfast datasets --download NAME")
