"""Measures how much of an old background is left around a subject on a new one, and draws the images of its page.

The subject is drawn, with an exact alpha, on magenta. What is left is what changes in the result when the same subject
lies on green instead; the error is what differs from the subject drawn on the new background. Both are of the worst
channel, over the band where the exact alpha is neither 0 nor 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from fgfast.bench.drawn import Drawn, drawn
from fgfast.bench.images import noise_image
from fgfast.bench.result import Result, Row, envelope, save, text_of
from fgfast.bench.text import table
from fgfast.cli import main as fgfast
from fgfast.ops.matting import blur_fusion, feathered, interior, mixed
from fgfast.records import Bool, Float32, UInt8
from fgfast.terminal import say
from fgfast.writing import Target, replacing, scratch_folder

_MAGENTA, _GREEN = (np.array(colour, np.float32) for colour in ((255, 0, 255), (0, 255, 0)))
_NEW = np.array((30, 200, 60), np.uint8)
# Standard deviations of the blur of the drawn edge in pixels: sharper than any lens, to that of a soft photograph.
_BLURS = (0.0, 0.7, 1.2, 2.0)
# The width of the soft edges made from bits: the kind's own.
_WIDTH = 4.0
# The band in which pixels are part subject, part background.
_BAND = (0.01, 0.99)

Make = Callable[[UInt8, Float32], UInt8]
"""(pixels, alpha) -> the subject on the new background."""


def _laid(estimate: Callable[[UInt8, Float32], tuple[Any, Any]] | None, pixels: UInt8, alpha: Float32) -> UInt8:
    return mixed(pixels if estimate is None else estimate(pixels, alpha)[0], alpha, _NEW)


WAYS: dict[str, Make] = {
    "colours as they are": partial(_laid, None),
    "blur fusion": partial(_laid, blur_fusion),
    "interior": partial(_laid, interior),
}


def measure() -> Result:
    """Measure every way for every blur, with the exact alpha and with those that are made from a mask of bits."""
    rows: list[Row] = []
    for blur in _BLURS:
        scene = drawn(blur)
        bits: Bool = scene.alpha >= 0.5
        grown = feathered(bits, 2) > 0.1  # every pixel that touches the mask is taken for subject, too
        for what, alpha in (
            ("exact alpha", scene.alpha),
            ("hard mask", bits.astype(np.float32)),
            (f"mask feathered by {_WIDTH:g} px", feathered(bits, _WIDTH)),
            (f"mask a pixel too large, feathered by {_WIDTH:g} px", feathered(grown, _WIDTH)),
        ):
            ways = dict(list(WAYS.items())[:1]) if what == "hard mask" else WAYS
            for name, make in ways.items():
                rows += _of(scene, make, alpha, f"{what}: {name}", f"edge blurred by {blur:g} px")
    return envelope(
        "background_edges",
        rows,
        title="What is left of the old background around a subject",
        rounds=1,
        notes=[
            "Levels of 255, the worst channel of each pixel, over the pixels that are part subject, part background."
        ],
    )


def _of(scene: Drawn, make: Make, alpha: Float32, name: str, group: str) -> Iterator[Row]:
    first, second = (make(_stored(scene.on(old)), alpha).astype(float) for old in (_MAGENTA, _GREEN))
    band = (scene.alpha > _BAND[0]) & (scene.alpha < _BAND[1])
    error = np.abs(first - scene.on(_NEW.astype(np.float32)))[band].max(axis=-1)
    left = np.abs(first - second)[band].max(axis=-1)
    for what, values in (("error", error), ("left", left)):
        yield Row(f"{name}: {what}, mean", float(values.mean()), "levels", "lower", group)
        yield Row(f"{name}: {what}, largest", float(values.max()), "levels", "lower", group)


def _stored(pixels: Float32) -> UInt8:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# --- the images of the page ----------------------------------------------------------------------------------------

_RECIPES = ("mixed-same", "mixed-rand", "mixed-next", "only-bg-b", "only-bg-t", "no-fg", "only-fg")
# Class -> channels of its birds, colours of its backgrounds.
_CLASSES = {
    "finch": ((0, 1, 2), (0.45, 0.75, 0.3)),
    "robin": ((2, 0, 1), (0.35, 0.55, 0.85)),
    "siskin": ((1, 2, 0), (0.9, 0.75, 0.5)),
}
_EACH, _CELL, _GAP = 3, 180, 6
# Of the sheet: with more, the noise of its backgrounds makes a large file.
_COLOURS = 128


def images(folder: Path) -> None:
    """Write expand-backgrounds.png, a sheet of all recipes, and expand-backgrounds-edges.png into a folder."""
    with scratch_folder("fgfast-backgrounds-") as scratch:
        keys = _data_set(scratch / "birds", scratch / "masks")
        convert = ["convert", "--dataset", str(scratch / "birds"), "--segmenter", "annotations"]
        convert += ["--mask-dir", str(scratch / "masks")]
        _run([*convert, "--out", str(scratch / "run"), "--in-process"])
        sheet: list[list[Path]] = [[scratch / "birds" / key for key in keys]]
        for recipe in _RECIPES:
            out = scratch / recipe
            _run(["expand", str(scratch / "run"), "backgrounds", "--recipe", recipe, "--out", str(out), "--in-process"])
            sheet.append([out / recipe / key for key in keys])
        cells = [[np.asarray(Image.open(path).convert("RGB")) for path in row] for row in sheet]
    sheet_of_all = _sheet(cells, _CELL, Image.Resampling.LANCZOS).quantize(_COLOURS, dither=Image.Dither.NONE)
    _save(sheet_of_all, folder / "expand-backgrounds.png")
    scene = drawn(1.2)
    pixels, alpha = _stored(scene.on(_MAGENTA)), feathered(scene.alpha >= 0.5, _WIDTH)
    hard = _laid(None, pixels, (scene.alpha >= 0.5).astype(np.float32))
    row = [pixels, hard, *(make(pixels, alpha) for make in WAYS.values()), _stored(scene.on(_NEW.astype(np.float32)))]
    part = np.s_[60:130, 260:345]
    _save(
        _sheet([[image[part] for image in row]], 255, Image.Resampling.NEAREST), folder / "expand-backgrounds-edges.png"
    )


def _data_set(root: Path, masks: Path) -> list[str]:
    """Write drawn birds on drawn backgrounds, and their masks; return a key of each class."""
    generator = np.random.default_rng(0)
    for label, (order, tint) in _CLASSES.items():
        for n in range(_EACH):
            scene = drawn(1.0, n, order)
            height, width = scene.alpha.shape
            noise = noise_image(generator, height, width, 1.2 + 0.3 * n).astype(np.float32)
            grey = noise.mean(axis=2, keepdims=True)
            background = (40 + grey * 0.8) * np.array(tint, np.float32)
            _save(Image.fromarray(_stored(scene.on(background))), root / label / f"{n}.png")
            _save(Image.fromarray((scene.alpha >= 0.5).astype(np.uint8) * 255), masks / label / f"{n}.png")
    return [f"{label}/0.png" for label in _CLASSES]


def _run(command: list[str]) -> None:
    try:
        fgfast(command, "fgfast")
    except SystemExit as end:
        if end.code:
            raise click.ClickException(f"fgfast {' '.join(command)} failed") from end


def _sheet(rows: list[list[UInt8]], cell: int, filter_: Image.Resampling) -> Image.Image:
    """Lay images out in columns, one per row of `rows`; `cell` is their width in pixels."""
    columns = rows if len(rows) > 1 else [[image] for image in rows[0]]
    height = round(cell * columns[0][0].shape[0] / columns[0][0].shape[1])
    size = len(columns) * (cell + _GAP) - _GAP, len(columns[0]) * (height + _GAP) - _GAP
    canvas = Image.new("RGB", size, "white")
    for x, column in enumerate(columns):
        for y, image in enumerate(column):
            canvas.paste(
                Image.fromarray(image).resize((cell, height), filter_), (x * (cell + _GAP), y * (height + _GAP))
            )
    return canvas


def _save(image: Image.Image, path: Path) -> None:
    with replacing(Target.file(path), sync=False) as file:
        image.save(file, "PNG")


@click.command()
@click.option("--images", "folder", type=click.Path(path_type=Path), help="Draw the page's images into this folder.")
@click.option("--save", "saves", is_flag=True, help="Also write the result into bench/results.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def main(folder: Path | None, saves: bool, as_json: bool) -> None:
    """Measure how much of an old background is left around subjects, or draw the images of the page about it."""
    if folder is not None:
        images(folder)
        sys.exit()
    result = measure()
    say(text_of(result) if as_json else table(result))
    if saves:
        say(str(save(result)))


if __name__ == "__main__":
    main()
