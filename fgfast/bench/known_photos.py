"""Photographs whose subject is known, for planted errors: with true masks, with CUB's keypoints, or drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgfast.bench.planting import SIDE, Photo
from fgfast.datasets.csv_files import read_csv
from fgfast.records import Bool, Float32, UInt8

_SUBJECT, _IGNORED = 255, 128  # levels of the true masks
# Birds before the sea with all keypoints in the mask, and much of the sea: found by looking at all 31 masks.
_SEA_LET_IN = (
    "Black_Footed_Albatross_0023_796059.jpg",
    "Laysan_Albatross_0002_1027.jpg",
    "Sooty_Albatross_0063_1101.jpg",
)


def known_photos(root: Path) -> list[Photo]:
    """Return the photographs below a folder, one entry per subject, in a fixed order.

    Args:
        root: holds sets (<set>/boxes.csv, images and masks; see bench/quality.py), below it or below root/masks, and
            CUB_200_2011 in its own layout, with boxes and parts.
    """
    found: list[Photo] = []
    for table in sorted([*root.glob("*/boxes.csv"), *root.glob("masks/*/boxes.csv")]):
        found += _with_masks(table)
    if (root / "CUB_200_2011" / "images.txt").is_file():
        found += _cub(root / "CUB_200_2011")
    return found


def _with_masks(table: Path) -> Iterator[Photo]:
    import cv2

    rows = [row for _, row in read_csv(table, ("image", "mask", "box_kind"))]
    for row in rows:
        if "loose" in row["box_kind"]:  # those of the GrabCut photographs; the tight ones are the subjects'
            continue
        pixels = _pixels(table.parent / row["image"])
        levels = cv2.imread(str(table.parent / row["mask"]), cv2.IMREAD_GRAYSCALE)
        box = np.array([float(row[name]) for name in ("x1", "y1", "x2", "y2")], np.float32)
        scale = min(1.0, SIDE / max(pixels.shape[:2]))
        pixels, box = _shrunk(pixels, scale), box * np.float32(scale)
        levels = cv2.resize(levels, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        truth, (x0, y0, x1, y1) = np.zeros(levels.shape, np.bool_), np.round(box).astype(int)
        own = slice(max(y0 - 2, 0), y1 + 2), slice(max(x0 - 2, 0), x1 + 2)
        truth[own] = levels[own] == _SUBJECT
        yield Photo(f"{table.parent.name}/{row['image']}", pixels, box, truth, levels != _IGNORED)


def _cub(root: Path) -> Iterator[Photo]:
    from fgfast.datasets import open_dataset

    for sample in open_dataset("cub", root).samples:
        assert sample.keypoints is not None
        pixels = _pixels(Path(str(sample.path)))
        scale = min(1.0, SIDE / max(pixels.shape[:2]))
        box = sample.boxes[0] * np.float32(scale)
        points = sample.keypoints * np.float32(scale)
        wrong = sample.key.endswith(_SEA_LET_IN)
        yield Photo(f"cub/{sample.key}", _shrunk(pixels, scale), box, None, None, points, wrong)


def _pixels(path: Path) -> UInt8:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError(f"{path} cannot be read as an image")
    return np.ascontiguousarray(pixels[..., ::-1])


def _shrunk(pixels: UInt8, scale: float) -> UInt8:
    import cv2

    if scale >= 1:
        return pixels
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def drawn_photos(count: int, seed: int = 0) -> list[Photo]:
    """Return drawn birds before mottled surroundings, with their masks: where there are no photographs."""
    return [_drawn(n, np.random.default_rng([seed, n])) for n in range(count)]


def _drawn(number: int, random: np.random.Generator) -> Photo:
    import cv2

    height, width = 240, 320
    behind = cv2.resize(random.uniform(40, 160, (8, 10, 3)).astype(np.float32), (width, height))
    length, angle = random.uniform(45, 75), random.uniform(-40, 40)
    x, y = random.uniform(110, 210), random.uniform(90, 150)
    shape = np.zeros((height, width), np.uint8)
    turn = np.deg2rad(angle)
    body = (round(x), round(y)), (round(length), round(length * random.uniform(0.45, 0.7)))
    cv2.ellipse(shape, *body, angle, 0, 360, 1, -1)
    for at, part in ((0.95, 0.3), (-1.2, 0.25)):  # head and tail
        centre = round(x + at * length * np.cos(turn)), round(y + at * length * np.sin(turn))
        cv2.ellipse(shape, centre, (round(length * part * 1.2), round(length * part)), angle, 0, 360, 1, -1)
    truth: Bool = shape > 0
    plumage = random.uniform(60, 255, 3).astype(np.float32)
    shade = cv2.resize(random.uniform(0.7, 1.1, (12, 16, 1)).astype(np.float32), (width, height))[..., None]
    drawn = np.where(truth[..., None], plumage * shade, behind) + random.normal(0, 6, (height, width, 3))
    ys, xs = np.nonzero(truth)
    box: Float32 = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
    return Photo(f"drawn/{number}", np.clip(drawn, 0, 255).astype(np.uint8), box, truth)
