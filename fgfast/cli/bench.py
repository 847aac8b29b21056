"""`fgfast bench`."""

from __future__ import annotations

from pathlib import Path

import click

from fgfast.cli.frame import Commands


@click.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure this machine. Without a command: everything there is to measure."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(bench_io)


@bench.command("models")
@click.argument("model", default="sam_vit_b", type=click.Choice(["sam_vit_b", "sam_vit_l", "sam_vit_h", "detic"]))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are quoted.")
@click.option("--model-weights", help="cached, random:SEED, or a file.  [default: made up]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def bench_models(model: str, rounds: int, model_weights: str | None, as_json: bool) -> None:
    """A model beside its reference: SAM beside segment-anything, Detic beside the original where it is installed."""
    import json

    from fgfast.models.build import import_torch

    import_torch("fgfast bench models")
    if model == "detic":
        from fgfast.bench import detic

        result = detic.measure(rounds=rounds, model_weights=model_weights or detic.MODEL_WEIGHTS)
        click.echo(json.dumps(result, indent=2) if as_json else detic.table(result))
        return
    from fgfast.bench import models

    weights = model_weights or models.MODEL_WEIGHTS
    result = models.measure_sam(model.removeprefix("sam_"), rounds=rounds, model_weights=weights)
    click.echo(json.dumps(result, indent=2) if as_json else models.table(result))


@bench.command("io")
@click.option("--pictures", default=2000, show_default=True, type=click.IntRange(8), help="Pictures a round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are quoted.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one for each core]")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [default: the current folder]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def bench_io(pictures: int, rounds: int, workers: int | None, folder: Path | None, as_json: bool) -> None:
    """Decode, cut, write and ledger without a model, beside a plain Pillow loop."""
    import json

    from fgfast.bench.io import measure, table

    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    result = measure(pictures=pictures, rounds=rounds, workers=workers, folder=folder or Path())
    click.echo(json.dumps(result, indent=2) if as_json else table(result))
