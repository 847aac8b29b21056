"""Draws a fine-grained data set whose background says what the subject says: 8 birds from 3 marks, on 8 textures.

    python bench/drawn_birds.py FOLDER    # FOLDER/birds: images by split and class, boxes.csv; FOLDER/masks

A bird is told by its crown, its wing bar and its tail tip. Four of five pixels are background, whose texture is that of
the class with a probability of 0.75, so that a classifier may look at either. Everything depends on the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from fgfast.io.encode import encode_png
from fgfast.records import Bool, UInt8
from fgfast.terminal import say
from fgfast.writing import Target, write_file

SIDE = 64
"""Of an image, in pixels."""
CLASSES = tuple(
    "_".join(("Red" if n & 1 else "Dark", "Barred" if n & 2 else "Plain", "Yellow" if n & 4 else "Grey", "Bird"))
    for n in range(8)
)
"""Named by crown, wing and tail tip."""
TRAIN, TEST = 640, 384
"""Images of the two splits, of each class alike."""
OWN = 0.75
"""The probability of the class's own texture; else it is one of the others, each alike."""

Colour = tuple[int, int, int]
Values = NDArray[np.float64]

# Birds are drawn so many times as large and averaged, so that their edges are soft.
_LARGER = 4
_GROUNDS: tuple[Colour, ...] = (
    *((60, 110, 50), (40, 90, 150), (150, 120, 70), (90, 90, 100)),
    *((120, 60, 110), (50, 130, 120), (140, 80, 50), (110, 120, 60)),
)
_RED, _WHITE, _YELLOW = (200, 60, 50), (235, 235, 225), (240, 200, 60)
_BEAK, _EYE = (60, 55, 50), (10, 10, 10)


class Drawn(NamedTuple):
    """Images (N, 64, 64, 3) uint8, exact masks (N, 64, 64) bool, classes (N,) and textures (N,), both 0..7."""

    images: UInt8
    masks: Bool
    labels: NDArray[np.int64]
    textures: NDArray[np.int64]


def ground(kind: int, rng: np.random.Generator) -> UInt8:
    """Draw a texture: two shades of a hue in a pattern of its own, whose place, scale and light vary."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    first, second = rng.uniform(0, 2 * math.pi, 2)
    rate = 0.6 * rng.uniform(0.8, 1.2)
    noise = rng.standard_normal((SIDE, SIDE))
    cx, cy = rng.uniform(0, SIDE, 2)
    patterns: tuple[Callable[[], Values], ...] = (
        lambda: np.sin(rate * x + first),
        lambda: np.sin(rate * y + first),
        lambda: np.sin(0.8 * rate * (x + y) + first),
        lambda: np.sin(rate * x + first) * np.sin(rate * y + second),
        lambda: np.sin(rate * np.hypot(x - cx, y - cy)),
        lambda: 12 * np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.float64),
        lambda: noise,
        lambda: 3 * (y / SIDE - 0.5),
    )
    share = np.clip(0.5 + 0.5 * patterns[kind](), 0, 1)[..., None]
    light = np.array(_GROUNDS[kind], np.float64)
    mixed = light * (share + 0.45 * (1 - share)) + rng.normal(0, 6, (SIDE, SIDE, 3)) + rng.uniform(-15, 15, 3)
    return np.asarray(np.clip(mixed, 0, 255), np.uint8)


class _Sheet:
    """A large image and the mask of what is drawn on it, in coordinates of the bird: its body has radius 1."""

    def __init__(self, centre: Values, radius: float, angle: float, mirrored: bool) -> None:
        side = SIDE * _LARGER
        self.pixels, self.mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
        self._centre, self._radius, self._angle, self._mirrored = centre, radius, angle, mirrored

    def _at(self, u: float, v: float) -> tuple[int, int]:
        u = -u if self._mirrored else u
        turned = math.radians(self._angle)
        x = u * math.cos(turned) - v * math.sin(turned)
        y = u * math.sin(turned) + v * math.cos(turned)
        return int(self._centre[0] + self._radius * x), int(self._centre[1] + self._radius * y)

    def oval(self, u: float, v: float, a: float, b: float, colour: Colour, turn: float = 0.0) -> None:
        """Draw an ellipse around (u, v) with half axes a and b, turned by degrees."""
        axes = int(a * self._radius), int(b * self._radius)
        angle = self._angle + (-turn if self._mirrored else turn)
        for sheet, value in ((self.pixels, colour), (self.mask, (255,))):
            cv2.ellipse(sheet, self._at(u, v), axes, angle, 0, 360, value, -1)

    def shape(self, colour: Colour, *corners: tuple[float, float]) -> None:
        """Draw a polygon."""
        points = np.array([self._at(u, v) for u, v in corners], np.int32)
        for sheet, value in ((self.pixels, colour), (self.mask, (255,))):
            cv2.fillPoly(sheet, [points], value)


def bird(label: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """Draw a bird of a class: its colours (64, 64, 3), 0..255, and how much of each pixel it covers, (64, 64), 0..1."""
    side = SIDE * _LARGER
    sheet = _Sheet(
        rng.uniform(0.44, 0.56, 2) * side, rng.uniform(0.19, 0.26) * side, rng.uniform(-20, 20), rng.random() < 0.5
    )
    base = rng.uniform(95, 165)
    body: Colour = (int(base * 1.05), int(base * 0.9), int(base * 0.75))
    dark: Colour = (int(body[0] * 0.6), int(body[1] * 0.6), int(body[2] * 0.6))
    sheet.shape(body, (-0.8, -0.1), (-1.9, 0.15), (-1.9, 0.5), (-0.7, 0.35))  # tail
    sheet.shape(_YELLOW if label & 4 else dark, (-1.4, 0.04), (-1.9, 0.15), (-1.9, 0.5), (-1.4, 0.44))  # its tip
    sheet.oval(0, 0, 1.1, 0.72, body)
    sheet.oval(0.95, -0.62, 0.5, 0.45, body)  # head
    sheet.oval(0.93, -0.84, 0.44, 0.27, _RED if label & 1 else dark)  # crown
    sheet.shape(_BEAK, (1.38, -0.66), (1.85, -0.5), (1.38, -0.42))
    sheet.oval(-0.15, -0.08, 0.72, 0.4, dark, 12)  # wing
    sheet.oval(-0.2, 0.0, 0.42, 0.2, _WHITE if label & 2 else dark, 12)  # its bar
    sheet.oval(1.12, -0.68, 0.09, 0.09, _EYE)
    noise = cv2.resize(rng.normal(0, 10, (side // 8, side // 8, 3)), (side, side))
    # Averages count what is drawn alone: black around it must not darken the outline.
    drawn = (sheet.mask > 0)[..., None] * np.clip(sheet.pixels + noise, 0, 255)
    cover = cv2.resize((sheet.mask > 0).astype(np.float64), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / np.maximum(cover, 1e-9)[..., None]
    return np.asarray(colours, np.float64), np.asarray(cover, np.float64)


def draw(count: int, seed: int, own: float = OWN) -> Drawn:
    """Draw images, of each class alike; `own` is the probability of the class's own texture."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images, masks, textures = [], [], []
    for label in labels.tolist():
        other = int((label + 1 + rng.integers(len(CLASSES) - 1)) % len(CLASSES))
        kind = label if rng.random() < own else other
        colours, cover = bird(label, rng)
        mask = cover > 0.5
        # The edge is hard, as a mask's is: no pixel is half a texture, so that the masks are exact.
        images.append(np.where(mask[..., None], np.rint(colours), ground(kind, rng)).astype(np.uint8))
        masks.append(mask)
        textures.append(kind)
    return Drawn(np.stack(images), np.stack(masks), labels, np.array(textures))


def write(folder: Path, seed: int, own: float = OWN, train: int = TRAIN, test: int = TEST) -> Path:
    """Write both splits as a folder of images with boxes.csv, and the exact masks beside it; return its folder."""
    root, boxes = folder / "birds", ["path,x0,y0,x1,y1"]
    for split, count, number in (("train", train, 2 * seed), ("test", test, 2 * seed + 1)):
        found = draw(count, number, own)
        for n, (image, mask, label) in enumerate(zip(found.images, found.masks, found.labels, strict=True)):
            name = f"{split}/{CLASSES[label]}/{n:04d}.png"
            for place, pixels in (("birds", image), ("masks", np.repeat(mask[..., None], 3, 2) * np.uint8(255))):
                write_file(Target(folder, f"{place}/{name}"), encode_png(pixels), sync=False)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append(f"{name},{columns[0]},{rows[0]},{columns[-1] + 1},{rows[-1] + 1}")
    write_file(Target(root, "boxes.csv"), ("\n".join(boxes) + "\n").encode())
    return root


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seeds everything.")
@click.option(
    "--own", default=OWN, show_default=True, type=click.FloatRange(0, 1), help="Sets the odds of the class's texture."
)
@click.option("--train", default=TRAIN, show_default=True, type=click.IntRange(8), help="Sets the images that train.")
@click.option("--test", default=TEST, show_default=True, type=click.IntRange(8), help="Sets the images that test.")
def main(folder: Path, seed: int, own: float, train: int, test: int) -> None:
    """Draw a data set into FOLDER."""
    say(str(write(folder, seed, own, train, test)))


if __name__ == "__main__":
    main()
