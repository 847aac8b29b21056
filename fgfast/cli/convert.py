"""`fgfast convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.datasets import fetch
from fgfast.cli.frame import EXIT_SOME_FAILED, choices, dataset_names, verbose_option
from fgfast.config import (
    BACKENDS,
    CROPS,
    DECODERS,
    DETECTORS,
    FORMATS,
    MASK_FORMATS,
    PLACEMENTS,
    PRECISIONS,
    SEGMENTERS,
)

# fgfast.runner.DEADLINE, without importing it for --help; a test holds them equal.
DEADLINE = 300.0

if TYPE_CHECKING:
    from fgfast.pipeline.plan import Plan


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    shell_complete=dataset_names,
    help="cub, cars, aircraft, waterbirds, pets, dogs, flowers, folder, or the path of a folder.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies; else it is looked for.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: NAME_fg]")
@click.option("--labels", help="Which labelling (aircraft: variant, family, manufacturer).")
@click.option("--split", "splits", multiple=True, help="Only these splits, separated by commas.")
@click.option("--classes", multiple=True, help="Only these classes, separated by commas.")
@click.option("--limit", type=click.IntRange(1), help="Only so many images, spread evenly over the data set.")
@click.option(
    "--detector",
    default="auto",
    show_default=True,
    help=f"Where boxes come from: {', '.join(DETECTORS)}.",
    shell_complete=choices(DETECTORS),
)
@click.option(
    "--segmenter",
    default="auto",
    show_default=True,
    help=f"Box to mask: {', '.join(SEGMENTERS)}.",
    shell_complete=choices(SEGMENTERS),
)
@click.option("--vocabulary", help="What a model looks for: words between commas, a file, or lvis.")
@click.option(
    "--model-weights", default="cached", show_default=True, help="cached, random:SEED (for trying out), or a file."
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help=f"Of the models: {', '.join(PRECISIONS)}.",
    shell_complete=choices(PRECISIONS),
)
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="Where models run: auto (every GPU, else the CPU), or names between commas: cuda:0,cuda:1. A worker each.",
)
@click.option(
    "--placement",
    default="auto",
    show_default=True,
    help=f"Of both models on several devices: {', '.join(PLACEMENTS)}.",
    shell_complete=choices(PLACEMENTS),
)
@click.option("--batch", type=click.IntRange(1), help="Most images per batch of a model.  [default: by device]")
@click.option("--threads", type=click.IntRange(1), help="Of a model on a CPU.  [default: one for each core]")
@click.option(
    "--decoder",
    default="auto",
    show_default=True,
    help=f"Of image files: {', '.join(DECODERS)}.",
    shell_complete=choices(DECODERS),
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help=f"What computes the models: {', '.join(BACKENDS)}.",
    shell_complete=choices(BACKENDS),
)
@click.option(
    "--background",
    default="black",
    show_default=True,
    help="black, white, mean (ImageNet's), R,G,B, transparent, blur, or an image file.",
)
@click.option(
    "--format",
    "format_",
    default="same",
    show_default=True,
    help=f"{', '.join(FORMATS)}.",
    shell_complete=choices(FORMATS),
)
@click.option("--keep-names", is_flag=True, help="Keep file names although the format changes.")
@click.option("--quality", default=95, show_default=True, help="JPEG and WebP quality, 1 to 100.")
@click.option("--crop", default="none", show_default=True, help=f"{', '.join(CROPS)}.", shell_complete=choices(CROPS))
@click.option("--pad", default=0.0, show_default=True, help="Margin when cropping, in box sides.")
@click.option(
    "--masks",
    default="png",
    show_default=True,
    help=f"{', '.join(MASK_FORMATS)}.",
    shell_complete=choices(MASK_FORMATS),
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads for decoding, cutting and writing, over all devices.  [default: one for each core]",
)
@click.option(
    "--deadline",
    default=DEADLINE,
    show_default=True,
    type=click.FloatRange(min=1.0),
    help="Seconds after which a worker process that gives no answer for an image is ended.",
)
@click.option("--in-process", is_flag=True, help="No worker processes: for debuggers.")
@click.option("--resume", is_flag=True, help="Insist on going on with an earlier run.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier run's results and begin anew.")
@click.option("--download", is_flag=True, help="Fetch the data set first where it is not found.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def convert(**options: Any) -> None:
    """Make the foreground-only twin of a data set.

    The twin keeps names, sizes and layout, so that the data set's usual loader reads it. Started again, a run goes on
    where it stopped. Exit codes: 0 all done, 3 some images failed, 2 wrong usage, 1 another error, 130 or 143
    stopped.
    """
    from fgfast.cli import console
    from fgfast.io.output import Output
    from fgfast.pipeline import run as pipeline

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if options["download"] and not options["dry_run"]:
        options["root"] = fetch(options["dataset"], options["root"])
    plan = _plan(options)
    mode: Any = "resume" if options["resume"] else "overwrite" if options["overwrite"] else "auto"
    if options["dry_run"]:
        Output(plan.out, plan.dataset.folder).preflight(mode, plan.fingerprint)
        click.echo(console.plan_json(plan) if options["as_json"] else console.describe_plan(plan))
        return
    if not options["as_json"]:
        console.note(console.describe_plan(plan))
    with console.Interruption() as interruption, console.display(options["as_json"]) as progress:
        report = pipeline.run(
            plan,
            mode=mode,
            workers=options["workers"],
            stop=interruption.stop,
            progress=progress,
            in_process=options["in_process"],
            deadline=options["deadline"],
            say=None if options["as_json"] else lambda sentence: console.note(f"  {sentence}"),
        )
    click.echo(console.report_json(report) if options["as_json"] else console.summary(report))
    if report.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if report.counts["failed"] else 0)


def _plan(options: dict[str, Any]) -> Plan:
    from fgfast.config import Background, Selection, Settings
    from fgfast.pipeline.plan import make_plan

    settings = Settings(
        detector=options["detector"],
        segmenter=options["segmenter"],
        vocabulary=options["vocabulary"],
        model_weights=options["model_weights"],
        precision=options["precision"],
        devices=options["devices"],
        placement=options["placement"],
        batch=options["batch"],
        threads=options["threads"],
        decoder=options["decoder"],
        backend=options["backend"],
        background=Background.parse(options["background"]),
        format=options["format_"],
        keep_names=options["keep_names"],
        quality=options["quality"],
        crop=options["crop"],
        pad=options["pad"],
        masks=options["masks"],
    )
    selection = Selection(options["splits"], options["classes"], options["limit"])
    return make_plan(
        options["dataset"],
        options["out"],
        root=options["root"],
        labels=options["labels"],
        settings=settings,
        selection=selection,
        measure=not options["dry_run"],
    )
