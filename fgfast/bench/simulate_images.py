"""The images of a simulated run: their sizes, and so Detic's canvases, are mixed as those of CUB-200-2011 are."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from fgfast.bench.images import Subject, samples, write_images
from fgfast.io.encode import encode
from fgfast.records import Size

CUB: Mapping[tuple[int, int], int] = {
    (375, 500): 5, (333, 500): 3, (357, 500): 2, (350, 350): 2, (314, 500): 1, (312, 500): 1, (340, 500): 1,
    (337, 500): 1, (500, 354): 1, (313, 500): 1, (320, 500): 1, (354, 225): 1, (332, 500): 1, (356, 500): 1,
    (352, 450): 1, (500, 500): 1, (322, 376): 1, (441, 500): 1, (275, 500): 1, (335, 500): 1, (500, 389): 1,
    (336, 500): 1, (500, 346): 1,
}  # fmt: skip
"""(height, width), pixels -> number of images; of 31 images of CUB-200-2011, classes 1 to 3."""

COUNT = sum(CUB.values())
_QUALITY = 95


def make_images(folder: Path) -> None:
    """Write `COUNT` JPEGs in CUB's sizes, in a random order that is always the same, and boxes.csv."""
    sizes = [Size(*size) for size, count in CUB.items() for _ in range(count)]
    random.Random(0).shuffle(sizes)
    found = [_resized(subject, size) for subject, size in zip(cycle(samples()[0]), sizes, strict=False)]
    write_images(folder / "images", [(encode(each.pixels, ".jpg", _QUALITY), each.box) for each in found], COUNT)


def _resized(subject: Subject, size: Size) -> Subject:
    """Return a subject in another size; it may be stretched."""
    stored = Size(*subject.pixels.shape[:2])
    pixels = np.asarray(Image.fromarray(subject.pixels).resize(size[::-1], Image.Resampling.LANCZOS))
    times = np.tile(np.divide(size[::-1], stored[::-1]), 2).astype(np.float32)
    return Subject(pixels, subject.box * times)


def canvas_of(image: Size) -> Size:
    """Return Detic's canvas of an image, the smallest of its graphs of fixed shape that holds it."""
    from fgfast.models.detic.canvas import CANVASES
    from fgfast.models.detic.config import SWIN_B
    from fgfast.models.detic.transform import resized_size

    height, width = resized_size(*image, SWIN_B.shorter_edge, SWIN_B.longest_edge)
    holding = [canvas for canvas in CANVASES if canvas.height >= height and canvas.width >= width]
    return min(holding, key=lambda canvas: canvas.height * canvas.width)


def canvases() -> dict[Size, Size]:
    """Map the size of every image to its canvas."""
    return {Size(*size): canvas_of(Size(*size)) for size in CUB}
