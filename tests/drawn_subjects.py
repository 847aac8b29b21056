"""A drawn subject of which everything is known: its colours, and the exact alpha of its soft edge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fgfast.records import Float32

MAGENTA = np.array([255, 0, 255], np.float32)
_SIDE, _FINE = (300, 400), 4


@dataclass(frozen=True, eq=False)
class Drawn:
    """A subject.

    Attributes:
        premultiplied: (H, W, 3) float32, its colours times alpha, 0 to 255.
        alpha: (H, W) float32, how much of each pixel it covers.
    """

    premultiplied: Float32
    alpha: Float32

    def on(self, background: Float32) -> Float32:
        """Lay it on a background, (3,) or (H, W, 3): (H, W, 3) float32, exact."""
        return self.premultiplied + (1 - self.alpha[:, :, None]) * background


@lru_cache
def drawn(blur: float, seed: int = 3) -> Drawn:
    """A bird of textured colours, drawn at four times the size; the lens blurs it by `blur` pixels (sigma)."""
    height, width = (side * _FINE for side in _SIDE)
    colours = np.zeros((height, width, 3), np.float32)
    cover = np.zeros((height, width), np.uint8)

    def ellipse(x: float, y: float, a: float, b: float, turn: float, colour: tuple[int, int, int]) -> None:
        place = [round(v * _FINE) for v in (x, y, a, b)]
        for image, value in ((colours, colour), (cover, 1)):
            cv2.ellipse(image, tuple(place[:2]), tuple(place[2:]), turn, 0, 360, value, -1)

    ellipse(120, 210, 70, 12, -30, (30, 62, 128))
    ellipse(200, 165, 85, 56, -24, (46, 98, 186))
    ellipse(230, 180, 52, 40, -38, (232, 140, 76))
    ellipse(285, 95, 42, 40, 0, (52, 108, 200))
    ellipse(330, 100, 22, 7, 8, (52, 46, 44))
    ellipse(175, 160, 66, 30, -30, (28, 60, 134))
    grain = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 3 * _FINE)
    colours = np.clip(colours + (grain * (12 / grain.std()))[:, :, None], 0, 255)
    alpha = cover.astype(np.float32)
    front = colours * alpha[:, :, None]
    if blur:
        alpha, front = (cv2.GaussianBlur(image, (0, 0), blur * _FINE) for image in (alpha, front))
    size = (_SIDE[1], _SIDE[0])
    return Drawn(*(cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (front, alpha)))
