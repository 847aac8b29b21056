"""Draws a bird, the one image of the demo that the README may show, because it belongs to nobody else."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fgfast.bench.images import noise_image

Point = tuple[float, float]

BIRD_BOX = (140.0, 62.0, 520.0, 330.0)
"""The box around the bird: x0 y0 x1 y1 in pixels."""
# The width and height of the drawing in pixels.
_SIZE = (600, 400)
# The amplitude of the drawing's noise falls with this power of the frequency.
_GRAIN = 1.3
# The bird is drawn at this multiple of its size and scaled down, which smooths its edges.
_FINE = 3


def drawn_bird() -> Image.Image:
    """Draw a blue bird on a branch before blurred leaves, as RGB."""
    generator = np.random.default_rng(7)
    width, height = (side * _FINE for side in _SIZE)
    leaves = (
        Image.fromarray(noise_image(generator, height // 4, width // 4, _GRAIN)).convert("L").resize((width, height))
    )
    scene = Image.merge("RGB", [leaves.point(lambda v, k=k: int(30 + v * k)) for k in (0.45, 0.7, 0.3)])
    draw = ImageDraw.Draw(scene)
    for _ in range(60):
        x, y, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(30, 130)
        green = int(generator.uniform(90, 190))
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=(green * 2 // 3, green, green // 3))
    scene = scene.filter(ImageFilter.GaussianBlur(10 * _FINE))
    draw = ImageDraw.Draw(scene)
    _stroke(draw, [(-20, 352), (200, 338), (420, 346), (640, 318)], 17, (84, 60, 44))
    _bird(draw)
    texture = Image.fromarray(noise_image(generator, height, width, _GRAIN)).point(lambda v: int(118 + v * 0.16))
    textured = ImageChops.multiply(scene, texture).point(lambda v: min(255, int(v * 1.85)))
    return textured.resize(_SIZE, Image.Resampling.LANCZOS)


def _scaled(points: list[Point]) -> list[Point]:
    return [(x * _FINE, y * _FINE) for x, y in points]


def _stroke(draw: ImageDraw.ImageDraw, points: list[Point], width: float, colour: tuple[int, ...]) -> None:
    draw.line(_scaled(points), fill=colour, width=int(width * _FINE), joint="curve")


def _egg(x: float, y: float, a: float, b: float, turn: float) -> list[Point]:
    """The points of an ellipse around (x, y) with half axes a and b, turned by `turn` degrees."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    angles = [2 * math.pi * n / 120 for n in range(120)]
    return [
        (x + a * math.cos(t) * c - b * math.sin(t) * s, y + a * math.cos(t) * s + b * math.sin(t) * c) for t in angles
    ]


def _bird(draw: ImageDraw.ImageDraw) -> None:
    def fill(points: list[Point], colour: tuple[int, ...]) -> None:
        draw.polygon(_scaled(points), fill=colour)

    for x in (318, 348):
        _stroke(draw, [(x, 290), (x + 4, 336)], 6, (58, 46, 44))
    fill([(250, 220), (148, 300), (142, 322), (176, 326), (290, 262)], (30, 62, 128))  # tail
    fill(_egg(330, 218, 112, 76, -24), (46, 98, 186))  # body
    fill(_egg(366, 236, 72, 56, -38), (232, 140, 76))  # breast
    fill(_egg(440, 122, 56, 54, 0), (52, 108, 200))  # head
    fill([(484, 104), (519, 124), (486, 142)], (52, 46, 44))  # beak
    fill(_egg(292, 214, 92, 42, -30), (28, 60, 134))  # wing
    for n in range(4):
        _stroke(draw, [(226 + 12 * n, 262 - 2 * n), (318 + 8 * n, 182 + 9 * n)], 3, (70, 120, 206))
    fill(_egg(458, 112, 11, 11, 0), (18, 18, 22))  # eye
    fill(_egg(462, 108, 3.4, 3.4, 0), (244, 244, 240))


def main() -> None:
    """Read the command line and write the drawing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="The image file that the drawing is written to.")
    drawn_bird().save(parser.parse_args().file)


if __name__ == "__main__":
    main()
