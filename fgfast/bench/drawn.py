"""A drawn subject of which everything is known: its colours, and the exact alpha of its soft edge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fgfast.records import Float32

Colour = tuple[int, int, int]

# Height and width in pixels; the subject is drawn at a multiple of them, and averaged.
_SIZE, _FINE = (300, 400), 4
# Standard deviation, in pixels and in levels, of the grain of its colours.
_GRAIN, _CONTRAST = 3, 12
# Ellipses of a bird, those above last: centre, half axes in pixels, turn in degrees, colour.
_BIRD: tuple[tuple[float, float, float, float, float, Colour], ...] = (
    (120, 210, 70, 12, -30, (30, 62, 128)),
    (200, 165, 85, 56, -24, (46, 98, 186)),
    (230, 180, 52, 40, -38, (232, 140, 76)),
    (285, 95, 42, 40, 0, (52, 108, 200)),
    (330, 100, 22, 7, 8, (52, 46, 44)),
    (175, 160, 66, 30, -30, (28, 60, 134)),
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A subject.

    Attributes:
        premultiplied: (H, W, 3) float32, its colours times alpha, 0 to 255.
        alpha: (H, W) float32, how much of each pixel it covers, 0 to 1.
    """

    premultiplied: Float32
    alpha: Float32

    def on(self, background: Float32) -> Float32:
        """Lay it on a background, (3,) or (H, W, 3): (H, W, 3) float32, exact."""
        laid: Float32 = self.premultiplied + (1 - self.alpha[:, :, None]) * background
        return laid


@lru_cache
def drawn(blur: float, seed: int = 3, order: Colour = (0, 1, 2)) -> Drawn:
    """Draw a bird of textured colours.

    Args:
        blur: by how much a lens blurs it, standard deviation in pixels.
        seed: of its grain.
        order: which of the drawing's channels are red, green and blue: another order is another bird.
    """
    import cv2

    height, width = (side * _FINE for side in _SIZE)
    colours = np.zeros((height, width, 3), np.float32)
    cover = np.zeros((height, width), np.uint8)
    for x, y, a, b, turn, colour in _BIRD:
        centre, axes = (round(x * _FINE), round(y * _FINE)), (round(a * _FINE), round(b * _FINE))
        cv2.ellipse(colours, centre, axes, turn, 0, 360, [colour[n] for n in order], -1)
        cv2.ellipse(cover, centre, axes, turn, 0, 360, 1, -1)
    grain = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), _GRAIN * _FINE)
    colours = np.clip(colours + (grain * (_CONTRAST / grain.std()))[:, :, None], 0, 255)
    alpha = cover.astype(np.float32)
    front = colours * alpha[:, :, None]
    if blur:
        alpha, front = (cv2.GaussianBlur(image, (0, 0), blur * _FINE) for image in (alpha, front))
    front, alpha = (cv2.resize(image, _SIZE[::-1], interpolation=cv2.INTER_AREA) for image in (front, alpha))
    return Drawn(front, alpha)
