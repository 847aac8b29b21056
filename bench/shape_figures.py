"""Draws the images of docs/expand/contours.md and docs/expand/mesh.md: a drawn bird, expanded by both kinds.

python bench/shape_figures.py docs/assets
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
from demo import _BIRD_SIZE, _FINE, _bird, _save, drawn_bird
from PIL import Image, ImageDraw

from fgfast.expand.kind import Subject
from fgfast.expand.kinds import contours, mesh
from fgfast.ops import contours as outlines
from fgfast.ops import fourier, raster, relief
from fgfast.ops.inside import window
from fgfast.records import Bool, Sample, UInt8
from fgfast.terminal import say

# Harmonics whose outlines are shown.
_ORDERS = (2, 5, 10, 40)
# Cameras, in degrees, and their distance, which is that of `mesh`.
_AZIMUTHS, _ELEVATION, _DISTANCE = (0, 45, 90, 315), 15, 1.9
# The cell of a sheet, and the gap between cells, in pixels.
_CELL, _GAP = (300, 200), 8


def bird() -> tuple[UInt8, Bool]:
    """Return the drawn bird's image, (H, W, 3) uint8, and its mask."""
    width, height = (side * _FINE for side in _BIRD_SIZE)
    magenta = Image.new("RGB", (width, height), (255, 0, 255))
    _bird(ImageDraw.Draw(magenta))
    covered = (np.asarray(magenta) != (255, 0, 255)).any(axis=2).astype(np.uint8) * 255
    bits = np.asarray(Image.fromarray(covered).resize(_BIRD_SIZE, Image.Resampling.BOX)) >= 128
    return np.asarray(drawn_bird()), bits


def sheet(cells: list[list[Image.Image]]) -> Image.Image:
    """Return rows of images, each fitted into a cell of its own."""
    (wide, high), columns = _CELL, max(map(len, cells))
    size = (columns * (wide + _GAP) + _GAP, len(cells) * (high + _GAP) + _GAP)
    canvas = Image.new("RGB", size, (236, 236, 236))
    for y, row in enumerate(cells):
        for x, image in enumerate(row):
            fitted = image.convert("RGBA")
            fitted.thumbnail(_CELL, Image.Resampling.LANCZOS)
            cell = Image.new("RGBA", _CELL, "white")
            cell.alpha_composite(fitted, ((wide - fitted.width) // 2, (high - fitted.height) // 2))
            canvas.paste(cell.convert("RGB"), (_GAP + x * (wide + _GAP), _GAP + y * (high + _GAP)))
    return canvas


def rebuilt(bits: Bool, order: int) -> Image.Image:
    """Return the mask in grey, and over it the outline of its descriptors up to an order."""
    (part,) = outlines.parts(bits)
    found = fourier.descriptors(fourier.middles(part.outer), order)
    canvas = Image.fromarray(np.where(bits, 205, 255).astype(np.uint8)).convert("RGB")
    points = [tuple(point) for point in fourier.rebuilt(found).tolist()]
    ImageDraw.Draw(canvas).line([*points, points[0]], fill=(190, 40, 30), width=4, joint="curve")
    say(f"order {order}: IoU {fourier.rebuilt_iou(part.outer, found):.4f}")
    return canvas


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write expand-contours.png and expand-mesh.png into a folder."""
    pixels, bits = bird()
    subject = Subject(Sample("bird.png", folder), pixels, bits, {}, (0, "", "bird.png"))
    made = [contours.Step(contours.Options(edges=edges))(subject) for edges in contours.EDGES]
    first = [Image.fromarray(pixels), *(Image.fromarray(product.images["edges"]) for product in made)]
    black = Image.fromarray(np.where(bits, 0, 255).astype(np.uint8))
    _save(sheet([[*first, black], [rebuilt(bits, order) for order in _ORDERS]]), folder / "expand-contours.png")
    inputs = [mesh.Step(mesh.Options(inputs=name))(subject) for name in mesh.INPUTS]
    row = [Image.fromarray(pixels), *(Image.fromarray(product.images["inputs"]) for product in inputs)]
    _save(sheet([row, [_view(pixels, bits, azimuth) for azimuth in _AZIMUTHS]]), folder / "expand-mesh.png")


def _view(pixels: UInt8, bits: Bool, azimuth: float) -> Image.Image:
    """Return the relief from one side, seen from somewhat above."""
    rows, columns = window(bits)
    inside = bits[rows, columns]
    grid = relief.grid_of(inside, mesh.Options().cells)
    surface = relief.solid(grid, relief.ball_heights(grid))
    pose = raster.orbit(math.radians(azimuth), math.radians(_ELEVATION), _DISTANCE)
    return Image.fromarray(mesh.view(surface, mesh.texture_of(pixels[rows, columns], inside), pose, 256))


if __name__ == "__main__":
    main()
