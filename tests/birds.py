"""A data set with enough images that a kill hits the middle of things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from layouts import cub, text
from PIL import Image


def many_birds(parent: Path, count: int) -> Path:
    """A CUB layout with so many images, each another one."""
    root = cub(parent)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    ids = range(1, count + 1)
    names = [f"{('002.Jay', '001.Auk')[n % 2]}/bird_{n:04d}.jpg" for n in ids]
    for n, name in enumerate(names):
        Image.fromarray(np.roll(noise, n, 0)).save(root / "images" / name)
    text(root / "images.txt", *(f"{n} {name}" for n, name in zip(ids, names, strict=True)))
    text(root / "image_class_labels.txt", *(f"{n} {2 - n % 2}" for n in ids))
    text(root / "train_test_split.txt", *(f"{n} {n % 3 and 1}" for n in ids))
    text(root / "bounding_boxes.txt", *(f"{n} 8.0 6.0 40.0 30.0" for n in ids))
    text(root / "parts/part_locs.txt", *(f"{n} 1 10.0 8.0 1" for n in ids))
    text(root / "attributes/image_attribute_labels.txt", *(f"{n} 1 0 3 27.708" for n in ids))
    return root
