"""A bird, drawn: the one image of the demo that may stand in the README, for it is nobody else's."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from fgfast.bench.io import noise_image

Point = tuple[float, float]

# Width and height of the drawing, and the bird's box in it: x0 y0 x1 y1 in pixels.
_SIZE = (600, 400)
BIRD_BOX = (140.0, 62.0, 520.0, 330.0)
# How smooth its noise is.
_GRAIN = 1.3
# Drawn at this multiple and scaled down, for smooth edges.
_FINE = 3


def drawn_bird() -> Image.Image:
    """A blue bird on a branch before blurred leaves, RGB."""
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
    """An ellipse round (x, y) with half axes a and b, turned by `turn` degrees."""
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
