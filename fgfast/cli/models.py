"""`fgfast models`."""

from __future__ import annotations

import click

from fgfast.cli.frame import Commands


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fgfast.models.files.weights import names

    return [name for name in names() if name.startswith(incomplete)]


name_argument = click.argument("names", nargs=-1, required=True, shell_complete=_names, metavar="NAME...")


@click.group(cls=Commands)
def models() -> None:
    """Weights of the models: what is here, fetch, verify."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(as_json: bool) -> None:
    """List the models and what is on this machine."""
    import dataclasses
    import json

    from fgfast.models.files import weights

    found = weights.status()
    if as_json:
        rows = [{**dataclasses.asdict(f), "path": str(f.path) if f.path else None} for f in found]
        click.echo(json.dumps(rows, indent=2))
        return
    for f in found:
        size = f"{f.size / 1e6:,.0f} MB" if f.size else "size unknown"
        state = "not here" if f.path is None else "verified" if f.verified else "here, not verified"
        click.echo(f"{f.name:<20} {f.title:<28} {size:>12}  {state}")
    click.echo(f"\nKept in {weights.folder()} (FGFAST_CACHE); the hub's in its own cache (HF_HOME)")
    click.echo("The paper's pipeline: fgfast models pull detic sam_vit_l")


@models.command()
@name_argument
def pull(names: tuple[str, ...]) -> None:
    """Fetch weights from their official addresses, check and convert them."""
    from fgfast.cli.console import Transfer
    from fgfast.models.files import weights

    for name in names:
        weights.model(name)
    for name in names:
        with Transfer() as transfer:
            click.echo(weights.pull(name, transfer))


@models.command()
@name_argument
def verify(names: tuple[str, ...]) -> None:
    """Hash the files of models again and compare."""
    from fgfast.models.files import weights

    for name in names:
        found = weights.verify(name)
        click.echo(f"{found.name}: {'verified' if found.verified else 'not verified'} ({found.digest} digest)")


@models.command()
@click.argument("name", shell_complete=_names)
def path(name: str) -> None:
    """Print where a model's file lies."""
    from fgfast.models.files import weights

    click.echo(weights.path(name))
