"""Draws what `fgfast bench expand` converts and expands: birds in CUB's layout with their exact masks, and Places."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fgfast.bench.images import noise_image
from fgfast.io.encode import encode, encode_grey
from fgfast.records import UInt8
from fgfast.writing import Target, write_file

Points = list[tuple[float, float]]

# The commonest size of CUB-200-2011, height and width.
_SIZE = (375, 500)
_QUALITY = 95
# The number of different images; the rest are copies under other names, of which every kind makes other products.
_DIFFERENT = 24
# Birds are drawn at this multiple of the size and scaled down, which smooths their edges.
_FINE = 2
# One waterbird in four; of CUB's images 22 % show one.
_CLASSES = ("001.Mallard", "002.Blue_Jay", "003.Cardinal", "004.Painted_Bunting")
# Of CUB's images 51 % are for training.
_TRAIN = 2
# The names of CUB's 15 parts, and where they are on the drawn bird before it is turned; its body has half axes of
# 1 and 0.68 around the origin.
_PARTS = {
    "back": (-0.15, -0.55),
    "beak": (1.6, -0.85),
    "belly": (0.05, 0.5),
    "breast": (0.6, 0.25),
    "crown": (1.0, -1.3),
    "forehead": (1.3, -1.1),
    "left eye": (1.15, -0.95),
    "left leg": (0.2, 0.9),
    "left wing": (-0.35, 0.0),
    "nape": (0.7, -0.8),
    "right eye": (1.2, -0.95),
    "right leg": (-0.1, 0.9),
    "right wing": (-0.3, -0.2),
    "tail": (-1.6, 0.75),
    "throat": (1.05, -0.5),
}
# Places' categories that Waterbirds takes, and a colour of each.
_CATEGORIES = {
    "b/bamboo_forest": (96, 140, 70),
    "f/forest/broadleaf": (60, 96, 44),
    "o/ocean": (60, 110, 160),
    "l/lake/natural": (110, 140, 150),
}
# Height and width of Places' images, at most; its large ones have a shorter side of 512.
_PLACE = (512, 683)


class Bird(NamedTuple):
    """A drawn image.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, the share of each pixel that the bird covers, 0..255.
        parts: x y of each of `_PARTS`, in pixels.
    """

    pixels: UInt8
    mask: UInt8
    parts: Points


def draw_bird(number: int, height: int, width: int) -> Bird:
    """Draw a bird on a background of coloured noise; another number gives other shapes, colours and places."""
    generator = np.random.default_rng(number)
    size = 0.19 * min(height, width) * generator.uniform(0.75, 1.2)
    turn, side = math.radians(generator.uniform(-25, 25)), generator.choice((-1, 1))
    x0, y0 = generator.uniform(0.42, 0.58) * width, generator.uniform(0.45, 0.6) * height
    c, s = math.cos(turn), math.sin(turn)

    def placed(points: Points, scale: float = 1) -> Points:
        return [
            ((x0 + side * size * (x * c - y * s)) * scale, (y0 + size * (x * s + y * c)) * scale) for x, y in points
        ]

    mask = Image.new("L", (width * _FINE, height * _FINE))
    colours = Image.new("RGB", mask.size)
    for points in _shapes():
        where = placed(points, _FINE)
        ImageDraw.Draw(mask).polygon(where, fill=255)
        ImageDraw.Draw(colours).polygon(where, fill=tuple(int(v) for v in generator.integers(40, 230, 3)))
    alpha = np.asarray(mask.resize((width, height), Image.Resampling.BOX))
    bird = np.asarray(colours.resize((width, height), Image.Resampling.BOX)) * (
        0.7 + 0.6 * noise_image(generator, height, width)[..., :1].astype(np.float32) / 255
    )
    # The colours were averaged with the black around them, so they already have the weight of the mask.
    background = noise_image(generator, height, width) * (1 - alpha[..., None].astype(np.float32) / 255)
    return Bird(np.clip(bird + background, 0, 255).astype(np.uint8), alpha, placed(list(_PARTS.values())))


def _shapes() -> list[Points]:
    """Return the outlines of tail, legs, body, breast, head, beak, wing and eye."""
    legs = [[(x, 0.5), (x + 0.06, 0.5), (x + 0.1, 1.1), (x + 0.04, 1.1)] for x in (-0.12, 0.16)]
    return [
        [(-0.7, 0.0), (-1.7, 0.6), (-1.75, 0.85), (-1.4, 0.9), (-0.4, 0.4)],
        *legs,
        _egg(0, 0, 1, 0.68),
        _egg(0.45, 0.2, 0.5, 0.45),
        _egg(1.0, -0.85, 0.5, 0.48),
        [(1.4, -1.0), (1.72, -0.84), (1.42, -0.7)],
        _egg(-0.3, -0.05, 0.75, 0.35),
        _egg(1.15, -0.95, 0.1, 0.1),
    ]


def _egg(x: float, y: float, a: float, b: float) -> Points:
    angles = [2 * math.pi * n / 72 for n in range(72)]
    return [(x + a * math.cos(t), y + b * math.sin(t)) for t in angles]


def make_birds(root: Path, count: int) -> float:
    """Write `count` images below a new folder in CUB's layout, with boxes, parts and masks.

    Returns:
        The mean size of the JPEGs in bytes.
    """
    birds = [draw_bird(n, *_SIZE) for n in range(min(count, _DIFFERENT))]
    images = [encode(bird.pixels, ".jpg", _QUALITY) for bird in birds]
    masks = [encode_grey(np.ascontiguousarray(bird.mask)) for bird in birds]
    lists: dict[str, list[str]] = {name: [] for name in ("images", "classes", "split", "boxes", "parts")}
    for n in range(count):
        ident, label, bird = n + 1, _CLASSES[n % len(_CLASSES)], birds[n % len(birds)]
        name = f"{label}/Drawn_{ident:05d}"
        _write(root, f"images/{name}.jpg", images[n % len(birds)])
        _write(root, f"segmentations/{name}.png", masks[n % len(birds)])
        rows, columns = np.nonzero(bird.mask)
        box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        lists["images"].append(f"{ident} {name}.jpg")
        lists["classes"].append(f"{ident} {n % len(_CLASSES) + 1}")
        lists["split"].append(f"{ident} {int(n // len(_CLASSES) % _TRAIN == 0)}")
        lists["boxes"].append(f"{ident} " + " ".join(f"{float(edge):.1f}" for edge in box))
        lists["parts"] += [f"{ident} {part} {x:.1f} {y:.1f} 1" for part, (x, y) in enumerate(bird.parts, 1)]
    files = {
        "images.txt": lists["images"],
        "image_class_labels.txt": lists["classes"],
        "train_test_split.txt": lists["split"],
        "bounding_boxes.txt": lists["boxes"],
        "classes.txt": [f"{n} {name}" for n, name in enumerate(_CLASSES, 1)],
        "parts/part_locs.txt": lists["parts"],
        "parts/parts.txt": [f"{n} {name}" for n, name in enumerate(_PARTS, 1)],
    }
    for name, lines in files.items():
        _write(root, name, "".join(line + "\n" for line in lines).encode())
    return sum(map(len, images)) / len(images)


def make_places(root: Path, count: int) -> None:
    """Write Places' images for Waterbirds of `count` images: as many as there are, on land and on water."""
    generator = np.random.default_rng(1)
    for category, colour in _CATEGORIES.items():
        noise = noise_image(generator, *_PLACE).astype(np.float32)
        content = encode(np.clip(noise * np.divide(colour, 110), 0, 255).astype(np.uint8), ".jpg", _QUALITY)
        for n in range((count + 1) // 2):
            _write(root, f"data_large/{category}/{n + 1:08d}.jpg", content)


def _write(root: Path, name: str, content: bytes) -> None:
    write_file(Target(root, name), content, sync=False)
