"""A sample of a user's data set for quantisation: half of its images give the scales, the others judge the masks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgfast.datasets import open_dataset
from fgfast.errors import SampleError, UsageError
from fgfast.io.decode import decode, read_bytes
from fgfast.models.sam import transform
from fgfast.models.serving.batches import resized, visible
from fgfast.pipeline.prompt import choose_prompt
from fgfast.records import Detections, Float32, Sample, Size, UInt8

log = logging.getLogger("fgfast")

LEAST_IMAGES = 8
"""Fewer images say nothing about a data set."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptedImage:
    """One image as SAM takes it.

    Attributes:
        key: its path inside the data set.
        pixels: (side, side, 3) uint8 RGB, resized, at the top left; the rest is black.
        size: of the resized image, pixels.
        stored: of the stored image, pixels.
        box: (4,) float32 x0 y0 x1 y1 in pixels of the resized image.
    """

    key: str
    pixels: UInt8
    size: Size
    stored: Size
    box: Float32


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
    """The images of a calibration.

    Attributes:
        calibrating: they give the scales.
        held_out: they judge the masks, and give no scale.
        digest: SHA-256 of the keys and files of all of them, in order.
    """

    calibrating: tuple[PromptedImage, ...]
    held_out: tuple[PromptedImage, ...]
    digest: str


def draw(dataset: str, images: int, side: int) -> CalibrationSample:
    """Take images evenly over a data set, alternately for either half.

    Args:
        dataset: its name, which is searched for as `fgfast convert` does, or its folder.
        images: as many, or all that there are.
        side: of SAM's square input, pixels.

    Raises:
        UsageError: fewer than LEAST_IMAGES can be used.
        The errors of open_dataset.
    """
    opened = open_dataset(dataset)
    everything = opened.samples
    places = np.unique(np.linspace(0, len(everything) - 1, images).astype(int)) if everything else ()
    found, digest = [], hashlib.sha256()
    for sample in (everything[n] for n in places):
        try:
            data = read_bytes(sample.path)
            found.append(_prompted(sample, decode(data, sample.key, opened.turn_exif).pixels, side))
        except SampleError as error:
            log.warning("%s is left out of the calibration: %s", sample.key, error)
            continue
        digest.update(f"{sample.key}\0{len(data)}\0".encode())
        digest.update(data)
    if len(found) < LEAST_IMAGES:
        raise UsageError(
            f"{dataset} has {len(found)} images that can be used, of {len(places)} that were tried, and a calibration "
            f"needs {LEAST_IMAGES}: give another data set, or use --precision fp16"
        )
    return CalibrationSample(tuple(found[::2]), tuple(found[1::2]), digest.hexdigest())


def _prompted(sample: Sample, pixels: UInt8, side: int) -> PromptedImage:
    """Resize an image; its box is the one that `fgfast convert --detector annotations` prompts with."""
    stored = Size(*pixels.shape[:2])
    boxes = sample.boxes
    detections = Detections(boxes, np.ones(len(boxes), np.float32), ("annotated box",) * len(boxes))
    box = choose_prompt(detections, sample, stored)[0].box
    size = visible(transform.resized_size(*stored, side), stored, "SAM")
    square = np.zeros((side, side, 3), np.uint8)
    resized(pixels, size, square[: size.height, : size.width])
    return PromptedImage(sample.key, square, size, stored, transform.scale_boxes(box[None], *stored, side)[0])


def encoder_inputs(images: Sequence[PromptedImage], batch: int) -> Iterator[dict[str, Tensor]]:
    """Yield the inputs of `sam_image_encoder` for all images; the last one fills up the last batch."""
    for start in range(0, len(images), batch):
        some = list(images[start : start + batch])
        some += some[-1:] * (batch - len(some))
        yield {
            "pixels": torch.from_numpy(np.stack([image.pixels for image in some])),
            "sizes": torch.tensor([image.size for image in some], dtype=torch.int64),
        }
