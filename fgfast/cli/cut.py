"""`fgfast cut`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.cli.settings import settings_of, settings_options


def _box(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} must be four numbers x0,y0,x1,y1") from None


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--box",
    callback=_box,
    show_default="the centre of the image",
    help="Gives the subject's box as x0,y0,x1,y1 in pixels.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), show_default="IMAGE_fg.png", help="Names the file to write."
)
@settings_options(("background", "crop", "pad"))
def cut(image: Path, box: tuple[float, ...] | None, out: Path | None, **options: Any) -> None:
    """Cut the subject out of one image.

    An existing output file is replaced. Exit codes: 0 done, 3 the image cannot be read, 2 wrong usage.
    """
    from fgfast.errors import SampleError, UnknownNameError
    from fgfast.io.write import SAME_SUFFIXES, encode, write_file
    from fgfast.pipeline.single import cut_out

    if image.is_dir():
        raise click.UsageError(f"{image} is a folder: give an image, or use fgfast convert --dataset {image}")
    out = out or image.with_name(f"{image.stem}_fg.png")
    if out.resolve() == image.resolve():
        raise click.UsageError(f"{out} is the image itself: choose another name for the cut-out")
    suffix = out.suffix.lower()
    if suffix not in SAME_SUFFIXES:
        raise UnknownNameError("image format", suffix, SAME_SUFFIXES)
    settings = settings_of(options, format="png" if suffix == ".png" else "webp")
    if settings.fill.kind == "transparent" and suffix not in (".png", ".webp"):
        raise click.UsageError(f"{suffix} keeps no transparency: choose a name that ends in .png or .webp")
    try:
        cutout = cut_out(image, box, settings=settings)
    except SampleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_SOME_FAILED)
    write_file(out, encode(cutout.pixels, suffix, 95))
    share = cutout.mask.bits.mean()
    doubt = f"; check it: {', '.join(cutout.flags)}" if cutout.flags else ""
    click.echo(f"{out}: {share:.0%} of the image is subject{doubt}")
