"""`fgfast cut`."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from fgfast.cli.frame import EXIT_SOME_FAILED, verbose_option
from fgfast.cli.settings import settings_of, settings_options
from fgfast.terminal import line, message, note, say

if TYPE_CHECKING:
    from fgfast.io.cutout import Cutout

# The settings that have an effect on single images.
SETTINGS: tuple[str, ...] = (
    "detector",
    "segmenter",
    "vocabulary",
    "model_weights",
    "precision",
    "devices",
    "batch",
    "model_threads",
)
SETTINGS += ("backend", "background", "quality", "crop", "pad")
_STREAM = "-"
_STEM = "{stem}"


def _box(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} must be four numbers x0,y0,x1,y1") from None


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--box", callback=_box, show_default="the detector's", help="Gives the subject's box as x0,y0,x1,y1 in pixels."
)
@click.option(
    "-o",
    "--out",
    show_default="IMAGE_fg.png",
    help="Names the file to write, a folder, a pattern with {stem} such as cut/{stem}.webp, or - (standard output).",
)
@settings_options(SETTINGS)
@verbose_option
def cut(images: tuple[str, ...], box: tuple[float, ...] | None, out: str | None, **options: Any) -> None:
    """Cut the subject out of images: files, http or https addresses, or - for standard input.

    An existing output file is replaced; an image that fails fails alone. Exit codes: 0 done, 3 some images failed,
    2 wrong usage, 1 another error.
    """
    if box is not None and len(images) > 1:
        raise click.UsageError("--box is for one image: cut each image by itself, or let a detector find the boxes")
    if images.count(_STREAM) > 1:
        raise click.UsageError("- (standard input) can be given once")
    for image in images:
        if image != _STREAM and Path(image).is_dir():
            raise click.UsageError(
                f"{image} is a folder: give images, or use fgfast convert --dataset {shlex.quote(image)}"
            )
    targets = _targets(images, out)
    for target in targets:
        _check(target, options)
    failed = _cut(images, targets, box, {n: value for n, value in options.items() if n != "quality"}, _quality(options))
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def _cut(
    images: tuple[str, ...],
    targets: list[str],
    box: tuple[float, ...] | None,
    options: dict[str, Any],
    quality: int | None,
) -> int:
    """Cut the images, write the cut-outs, and return the number of images that failed."""
    from dataclasses import replace

    from fgfast.errors import DeviceMemoryError, SampleError
    from fgfast.io.warned import captured
    from fgfast.pipeline.cutter import Cutter

    settings, failed = settings_of(options), 0
    if box is not None and settings.detector == "auto":
        if settings.vocabulary is not None:
            raise click.UsageError("--vocabulary has no effect where --box gives the box")
        settings = replace(settings, detector="annotations")
    elif box is not None and settings.detector != "annotations":
        raise click.UsageError(f"--detector {settings.detector} has no effect where --box gives the box")
    sources = (_standard_input() if image == _STREAM else image for image in images)
    with captured(), Cutter(settings) as cutter:
        for choice in cutter.choices:
            if not choice.endswith("as requested"):
                note(f"  {message(choice)}")
        cutouts = cutter.cut_many(sources, [box] * len(images), return_errors=True)
        for image, target, found in zip(images, targets, cutouts, strict=True):
            try:
                if isinstance(found, Exception):
                    raise found
                _write(found, target, quality)
            except (SampleError, DeviceMemoryError) as error:
                reason = f" ({error.reason})" if isinstance(error, SampleError) else ""
                note(message(f"error: {'' if image in str(error) else f'{image}: '}{error}{reason}"))
                failed += 1
    return failed


def _standard_input() -> bytes:
    from fgfast.errors import UsageError
    from fgfast.pipeline.single import MOST_BYTES

    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UsageError(f"standard input has more than {MOST_BYTES / 1e6:,.0f} MB: give a file")
    return data


def _write(cutout: Cutout, target: str, quality: int | None) -> None:
    """Write a cut-out and print what it is; beside an image on standard output, that goes to standard error."""
    doubt = f"; check it: {', '.join(cutout.flags)}" if cutout.flags else ""
    if target == _STREAM:
        sys.stdout.buffer.write(cutout.encode())
    else:
        cutout.save(target, quality)
    told = note if target == _STREAM else say
    told(line(f"{target}: {cutout.share:.0%} of the image is subject{doubt}"))


def _targets(images: tuple[str, ...], out: str | None) -> list[str]:
    """The file of each image's cut-out, or "-"."""
    if out == _STREAM or (out is None and images == (_STREAM,)):
        if len(images) > 1:
            raise click.UsageError("standard output takes one cut-out: name a folder or a pattern with {stem}")
        return [_STREAM]
    pattern = _pattern(out, len(images))
    targets = [_target(image, pattern) for image in images]
    given = {Path(image).resolve(): image for image in images if image != _STREAM}
    for target in targets:
        if Path(target).resolve() in given:
            raise click.UsageError(f"{target} is the image itself: choose another name for the cut-out")
    target, count = Counter(targets).most_common(1)[0]
    if count > 1:
        alike = [image for image, name in zip(images, targets, strict=True) if name == target]
        raise click.UsageError(f"{' and '.join(alike)} would both become {target}: cut them one by one, with -o")
    return targets


def _pattern(out: str | None, count: int) -> str | None:
    """--out as a pattern with {stem}, or one file's name; None where it was not given."""
    if out is None:
        return None
    unknown = [f"{{{name}}}" for name in re.findall(r"\{(\w*)\}", out) if f"{{{name}}}" != _STEM]
    if unknown:
        raise click.UsageError(f"{out} has the placeholder {unknown[0]}: there is only {_STEM}, the image's name")
    if _STEM in out:
        return out
    if out.endswith("/") or Path(out).is_dir():
        return str(Path(out) / f"{_STEM}_fg.png")
    if count > 1:
        if Path(out).suffix:
            raise click.UsageError(
                f"{out} is one file, for {count} images: name a folder, or use {{stem}} in its place"
            )
        return str(Path(out) / f"{_STEM}_fg.png")
    if not Path(out).suffix:
        raise click.UsageError(f"{out} has no suffix, which tells the format: add one; for a folder write {out}/")
    return out


def _target(image: str, pattern: str | None) -> str:
    from fgfast.transfer import is_address

    if image == _STREAM:
        stem, beside = "stdin", Path()
    elif is_address(image):
        from urllib.parse import unquote, urlsplit

        name = PurePosixPath(unquote(urlsplit(image).path)).name.replace("\\", "_")
        stem = PurePosixPath(name).stem
        stem, beside = stem if stem.strip(".") else "image", Path()
    else:
        stem, beside = Path(image).stem, Path(image).parent
    return pattern.replace(_STEM, stem) if pattern else str(beside / f"{stem}_fg.png")


def _quality(options: dict[str, Any]) -> int | None:
    """--quality; None where it is the default, which lossless formats accept."""
    from fgfast.config import Settings

    quality: int = options["quality"]
    return None if quality == Settings().quality else quality


def _check(target: str, options: dict[str, Any]) -> None:
    """Raise UsageError unless a cut-out can be written to a target."""
    from fgfast.io.cutout import check_format

    suffix = ".png" if target == _STREAM else Path(target).suffix.lower()
    check_format(suffix, options["background"] == "transparent", _quality(options))
