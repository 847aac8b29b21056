"""`fgfast models`."""

from __future__ import annotations

import click

from fgfast.cli.frame import Commands
from fgfast.methods import METHODS
from fgfast.terminal import line, say, say_json, say_path


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fgfast.models.files.weights import names

    return [name for name in names() if name.startswith(incomplete)]


name_argument = click.argument("names", nargs=-1, required=True, shell_complete=_names, metavar="NAME...")


@click.group(cls=Commands)
def models() -> None:
    """List, fetch and verify the weights of the models."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Prints the list as JSON.")
def list_(as_json: bool) -> None:
    """List the models, their licences, and which of them are on this machine."""
    import dataclasses
    import json

    from fgfast.models.files import weights

    found = weights.status()
    licences = {method.weights: method.licence for method in METHODS if method.weights}
    if as_json:
        rows = [
            {**dataclasses.asdict(f), "path": str(f.path) if f.path else None, "licence": licences.get(f.name)}
            for f in found
        ]
        say_json(json.dumps(rows, indent=2))
        return
    for f in found:
        size = f"{f.size / 1e6:,.0f} MB" if f.size else "size unknown"
        state = "not cached" if f.path is None else "verified" if f.verified else "cached, not verified"
        state += "" if f.path is None or f.digest == "published" else ", not pinned"
        say(f"{f.name:<20} {f.title:<28} {size:>12}  {licences.get(f.name, ''):<11} {state}")
    folder = line(str(weights.folder()))
    say(f"\nStored in {folder} (FGFAST_CACHE); models of the Hugging Face hub in its cache (HF_HOME)")
    say("The paper's pipeline: fgfast models pull detic sam_vit_l")


@models.command()
@name_argument
def pull(names: tuple[str, ...]) -> None:
    """Fetch weights from their official addresses, verify and convert them."""
    from fgfast.cli.console import transfer
    from fgfast.models.files import weights

    for name in names:
        weights.model(name)
    for name in names:
        with transfer() as progress:
            path = weights.pull(name, progress)
        say_path(path)


@models.command()
@name_argument
def verify(names: tuple[str, ...]) -> None:
    """Hash the files of models again and compare the digests."""
    from fgfast.models.files import weights

    for name in names:
        found = weights.verify(name)
        digest = "published digest" if found.digest == "published" else "not pinned: the digest first seen here"
        say(f"{found.name}: {'verified' if found.verified else 'not verified'} ({digest})")


@models.command("path")
@click.argument("name", shell_complete=_names)
def path_(name: str) -> None:
    """Print the path of a model's file."""
    from fgfast.models.files import weights

    say_path(weights.path(name))
