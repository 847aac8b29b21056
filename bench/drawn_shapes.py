"""Draws what a classifier can learn before it sees a bird: four shapes in four colours on any texture, 16 classes.

python bench/drawn_shapes.py FILE     # a sheet of them, as PNG
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from drawn_birds import SIDE, Colour, ground

from fgfast.io.encode import encode_png
from fgfast.records import UInt8
from fgfast.studies.pairs import ArrayPairs
from fgfast.writing import Target, write_file

COLOURS: tuple[Colour, ...] = ((205, 60, 50), (235, 235, 225), (240, 200, 60), (70, 110, 200))
SHAPES = ("disc", "oval", "square", "triangle")
CLASSES = tuple(f"{colour}_{shape}" for colour in ("red", "white", "yellow", "blue") for shape in SHAPES)
COUNT = 1536


def _put(image: UInt8, shape: str, colour: Colour, size: float, rng: np.random.Generator) -> None:
    x, y = rng.integers(14, 50, 2).tolist()
    turn = rng.uniform(0, 360)
    if shape in ("disc", "oval"):
        axes = (int(size), int(size)) if shape == "disc" else (int(1.6 * size), int(0.6 * size))
        cv2.ellipse(image, (x, y), axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        return
    if shape == "square":
        corners = cv2.boxPoints(((x, y), (1.8 * size, 1.8 * size), turn))
    else:
        angles = math.radians(turn) + np.arange(3) * 2 * math.pi / 3
        corners = np.stack([x + 1.4 * size * np.cos(angles), y + 1.4 * size * np.sin(angles)], 1)
    cv2.fillPoly(image, [np.asarray(corners, np.int32)], colour, cv2.LINE_AA)


def draw(count: int, seed: int) -> ArrayPairs:
    """Draw images of a shape beside two grey ones, on a texture, a plain colour or black; masks are whole images."""
    rng = np.random.default_rng(seed)
    images = []
    for n in range(count):
        if rng.random() < 0.75:
            image = np.ascontiguousarray(ground(int(rng.integers(8)), rng))
        else:
            colour = rng.integers(0, 256, 3) if rng.random() < 0.7 else np.zeros(3)
            image = np.full((SIDE, SIDE, 3), colour, np.uint8)
        for _ in range(2):
            grey = int(rng.uniform(60, 150))
            _put(image, SHAPES[rng.integers(4)], (grey, int(0.9 * grey), int(0.75 * grey)), rng.uniform(5, 10), rng)
        _put(image, SHAPES[n % 4], COLOURS[n % 16 // 4], rng.uniform(4, 9), rng)
        images.append(image)
    masks = [np.ones((SIDE, SIDE), bool)] * count
    keys = [f"{n:05d}" for n in range(count)]
    return ArrayPairs.of(keys, CLASSES, np.arange(count) % 16, ["train"] * count, images, masks)


def pretrain(file: Path, options: dict[str, Any], epochs: int = 8, count: int = COUNT) -> float:
    """Train a small ResNet on shapes, write its weights, and return its accuracy on other shapes."""
    import torch

    from fgfast.studies import checkpoint
    from fgfast.studies.arms import Shown
    from fgfast.studies.cell import Strategy
    from fgfast.studies.figures import accuracy
    from fgfast.studies.loading import Loader, Samples
    from fgfast.studies.loop import Training
    from fgfast.studies.models import build
    from fgfast.studies.predict import predict
    from fgfast.studies.recipes import recipe
    from fgfast.studies.transforms import Prepare

    how, threads = recipe("drawn", epochs=epochs), torch.get_num_threads()
    torch.manual_seed(7)
    torch.set_num_threads(1)  # as many threads as there are give other last bits, and other weights
    try:
        model = build("resnet10t", len(CLASSES), image_size=SIDE, **options)
        train, test = draw(count, 77), draw(320, 78)
        loaders = [
            Loader(Samples(Shown(pairs), "x", np.arange(len(pairs.keys)), prepare, Strategy(), 7), how.batch, is_train)
            for pairs, is_train in ((train, True), (test, False))
            for prepare in (Prepare(model.cfg, how, is_train),)
        ]
        training = Training(model, how, Strategy(), 7, len(loaders[0]), "cpu")
        for epoch in range(how.epochs):
            for _ in training.epoch(epoch, loaders[0].batches(epoch)):
                pass
        checkpoint.write_tensors(Target.file(file), model.timm.state_dict(), {})
        return accuracy(predict(model, loaders[1].batches(), Strategy(), "cpu"))
    finally:
        torch.set_num_threads(threads)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", default=77, show_default=True, type=click.IntRange(0), help="Seeds everything.")
def main(file: Path, seed: int) -> None:
    """Draw a sheet of four images of each class into FILE, a PNG."""
    found = draw(4 * len(CLASSES), seed)
    images = [found.pair(n).pixels for n in range(len(found.keys))]
    rows = [np.concatenate(images[start : start + len(CLASSES)], 1) for start in range(0, len(images), len(CLASSES))]
    write_file(Target.file(file), encode_png(np.concatenate(rows)))


if __name__ == "__main__":
    main()
