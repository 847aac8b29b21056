"""The command line: `fgfast convert`, `datasets`, `cut`, `bench`, `completion`. Imports little until a command runs."""

from __future__ import annotations

import difflib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fgfast import __version__
from fgfast.config import CROPS, DETECTORS, FORMATS, MASK_FORMATS, SEGMENTERS
from fgfast.errors import FgfastError

if TYPE_CHECKING:
    from fgfast.plan import Plan

EXIT_SOME_FAILED = 3


class Commands(click.Group):
    """A group that suggests the nearest command for a misspelt one, and turns fgfast's errors into exit codes."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no command named {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FgfastError as error:
            logging.getLogger("fgfast").debug("where it happened", exc_info=error)
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


def _log(ctx: click.Context, param: click.Parameter, verbose: int) -> int:
    """Set up logging; -v may stand before the command or behind it."""
    if verbose or (param.name == "verbose" and ctx.parent is None):
        level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
        text = "%(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level=level, format=text, stream=sys.stderr, force=True)
        logging.captureWarnings(True)
        # Pillow warns of odd metadata in pictures that are fine; what fails has its own outcome.
        for name in ("py.warnings", "PIL"):
            logging.getLogger(name).setLevel(logging.WARNING if verbose else logging.CRITICAL)
    return verbose


verbose_option = click.option(
    "-v", "--verbose", count=True, callback=_log, expose_value=False, help="Say more; twice for still more."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="fgfast")
@verbose_option
def main() -> None:
    """Foreground-only twins of image-classification data sets."""


def _dataset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fgfast.datasets import names

    return [name for name in names() if name.startswith(incomplete)]


@main.command()
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    shell_complete=_dataset_names,
    help="cub, cars, aircraft, waterbirds, pets, dogs, flowers, folder, or the path of a folder.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies; else it is looked for.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder.  [default: NAME_fg]")
@click.option("--labels", help="Which labelling (aircraft: variant, family, manufacturer).")
@click.option("--split", "splits", multiple=True, help="Only these splits, separated by commas.")
@click.option("--classes", multiple=True, help="Only these classes, separated by commas.")
@click.option("--limit", type=click.IntRange(1), help="Only so many pictures, spread evenly over the data set.")
@click.option("--detector", default="auto", show_default=True, help=f"Where boxes come from: {', '.join(DETECTORS)}.")
@click.option("--segmenter", default="grabcut", show_default=True, help=f"Box to mask: {', '.join(SEGMENTERS)}.")
@click.option(
    "--background",
    default="black",
    show_default=True,
    help="black, white, mean (ImageNet's), R,G,B, transparent, blur, or a picture file.",
)
@click.option("--format", "format_", default="same", show_default=True, help=f"{', '.join(FORMATS)}.")
@click.option("--keep-names", is_flag=True, help="Keep file names although the format changes.")
@click.option("--quality", default=95, show_default=True, help="JPEG and WebP quality, 1 to 100.")
@click.option("--crop", default="none", show_default=True, help=f"{', '.join(CROPS)}.")
@click.option("--pad", default=0.0, show_default=True, help="Margin when cropping, in box sides.")
@click.option("--masks", default="png", show_default=True, help=f"{', '.join(MASK_FORMATS)}.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one for each core]")
@click.option("--resume", is_flag=True, help="Insist on going on with an earlier run.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier run's results and begin anew.")
@click.option("--download", is_flag=True, help="Fetch the data set first where it is not found.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def convert(**options: Any) -> None:
    """Make the foreground-only twin of a data set.

    The twin keeps names, sizes and layout, so that the data set's usual loader reads it. Started again, a run goes on
    where it stopped. Exit codes: 0 all done, 3 some pictures failed, 2 wrong usage, 1 another error, 130 or 143
    stopped.
    """
    from fgfast import console, pipeline

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if options["download"] and not options["dry_run"]:
        options["root"] = _download(options["dataset"], options["root"])
    plan = _plan(options)
    if options["dry_run"]:
        click.echo(console.plan_json(plan) if options["as_json"] else console.describe_plan(plan))
        return
    if not options["as_json"]:
        console.note(console.describe_plan(plan))
    mode: Any = "resume" if options["resume"] else "overwrite" if options["overwrite"] else "auto"
    with console.Interruption() as interruption, console.display(options["as_json"]) as progress:
        report = pipeline.run(plan, mode=mode, workers=options["workers"], stop=interruption.stop, progress=progress)
    click.echo(console.report_json(report) if options["as_json"] else console.summary(report))
    if report.stopped and interruption.exit_code:
        sys.exit(interruption.exit_code)
    sys.exit(EXIT_SOME_FAILED if report.counts["failed"] else 0)


def _plan(options: dict[str, Any]) -> Plan:
    from fgfast.config import Background, Selection, Settings
    from fgfast.plan import make_plan

    settings = Settings(
        detector=options["detector"],
        segmenter=options["segmenter"],
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
    )


def _download(name: str, root: Path | None) -> Path | None:
    """Fetch the data set unless it is found; returns the root to open."""
    from fgfast import datasets
    from fgfast.console import Transfer
    from fgfast.datasets.download import download
    from fgfast.errors import DatasetNotFoundError

    try:
        return datasets.find(name, None if root is None else [root])
    except DatasetNotFoundError:
        with Transfer() as transfer:
            return download(name, root or datasets.search_folders()[0], transfer)


@main.command()
@click.option(
    "--download",
    metavar="NAME",
    shell_complete=_dataset_names,
    help="Fetch a data set from its official address.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Where to put it.  [default: first of FGFAST_DATA, ./data]",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def datasets(download: str | None, root: Path | None, as_json: bool) -> None:
    """List the known data sets and what was found of them."""
    import json

    from fgfast.datasets import search_folders, survey

    if download:
        click.echo(_download(download, root))
        return
    found = survey()
    if as_json:
        rows = [
            {
                "name": f.name,
                "title": f.title,
                "path": str(f.path) if f.path else None,
                "pictures": f.pictures,
            }
            for f in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for f in found:
        count = f"{f.pictures:,} pictures" if f.pictures is not None else ""
        where = f"{f.path.absolute()}  {count}".rstrip() if f.path else "not found"
        click.echo(
            f"{f.name:<11} {f.title:<22} {where if f.name != 'folder' else 'any folder of pictures: --root DIR'}"
        )
    click.echo("\nLooked in: " + ", ".join(str(folder.absolute()) for folder in search_folders()))
    click.echo("Look elsewhere with FGFAST_DATA=DIR or --root DIR; fetch with: fgfast datasets --download NAME")


def _box(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} must be four numbers x0,y0,x1,y1") from None


@main.command()
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--box", callback=_box, help="x0,y0,x1,y1 around the subject, in pixels.  [default: the middle]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.  [default: PICTURE_fg.png]")
@click.option("--background", default="black", show_default=True, help="As for convert.")
@click.option("--crop", default="none", show_default=True, help=f"{', '.join(CROPS)}.")
@click.option("--pad", default=0.0, show_default=True, help="Margin when cropping, in box sides.")
def cut(picture: Path, box: tuple[float, ...] | None, out: Path | None, background: str, crop: Any, pad: float) -> None:
    """Cut the subject out of one picture.

    A file of the output's name is replaced. Exit codes: 0 done, 3 the picture cannot be read, 2 wrong usage.
    """
    from fgfast.config import Background, Settings
    from fgfast.errors import SampleError, UnknownNameError
    from fgfast.io.write import SAME_SUFFIXES, encode, write_file
    from fgfast.single import cut_out

    out = out or picture.with_name(f"{picture.stem}_fg.png")
    if out.resolve() == picture.resolve():
        raise click.UsageError(f"{out} is the picture itself: choose another name for the cut-out")
    suffix = out.suffix.lower()
    if suffix not in SAME_SUFFIXES:
        raise UnknownNameError("picture format", suffix, SAME_SUFFIXES)
    kind = Background.parse(background)
    if kind.kind == "transparent" and suffix not in (".png", ".webp"):
        raise click.UsageError(f"{suffix} keeps no transparency: choose a name that ends in .png or .webp")
    settings = Settings(background=kind, crop=crop, pad=pad, format="png" if suffix == ".png" else "webp")
    try:
        cutout = cut_out(picture, box, settings=settings)
    except SampleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_SOME_FAILED)
    write_file(out, encode(cutout.pixels, suffix, 95))
    share = cutout.mask.bits.mean()
    doubt = f"; look at it: {', '.join(cutout.flags)}" if cutout.flags else ""
    click.echo(f"{out}: {share:.0%} of the picture is subject{doubt}")


@main.group(cls=Commands, invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure this machine. Without a command: everything there is to measure."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(bench_io)


@bench.command("io")
@click.option("--pictures", default=1000, show_default=True, type=click.IntRange(8), help="Pictures a round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are quoted.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one for each core]")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [default: the current folder]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def bench_io(pictures: int, rounds: int, workers: int | None, folder: Path | None, as_json: bool) -> None:
    """Decode, cut, write and ledger without a model, beside a plain Pillow loop."""
    import json

    from fgfast.bench.io import measure, table

    result = measure(pictures=pictures, rounds=rounds, workers=workers, folder=folder or Path())
    click.echo(json.dumps(result, indent=2) if as_json else table(result))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script. For bash: eval "$(fgfast completion bash)" in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "fgfast", "_FGFAST_COMPLETE").source())
