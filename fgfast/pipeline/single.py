"""The first stage of an image without a data set: it is taken from the caller, with its box if there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast.errors import DownloadError, ImageBrokenError, UsageError
from fgfast.io.decode import as_image, decode
from fgfast.ops.geometry import clip_box
from fgfast.pipeline.stages import set_prompt
from fgfast.pipeline.work import Work
from fgfast.records import Detections, Float32, Image, Sample
from fgfast.transfer import is_address, is_url, read_url

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    Given = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray[Any, Any] | PillowImage
    """A path, an http or https address, the bytes of an image file, an array, or a Pillow image."""

# Bytes from which a file at an address is refused: an image of the largest number of pixels is smaller as a PNG.
MOST_BYTES = 1 << 28


@dataclass(slots=True)
class GivenWork(Work):
    """One image in flight that the caller gave.

    Attributes:
        given: the image as it was given.
        given_box: its box, as it was given; None lets the detector find one.
    """

    given: Any = None
    given_box: Sequence[float] | None = None


def given_work(position: int, given: Any, box: Sequence[float] | None) -> GivenWork:
    """Return the work of an image that is given, without reading it."""
    return GivenWork(position, Sample("image", Path("image")), "image", given=given, given_box=box)


@dataclass(frozen=True, slots=True)
class TakeImage:
    """Given image and box -> Image, and Prompt where there is a box.

    Attributes:
        turn_exif: see `fgfast.io.decode.decode`.
        needs_box: whether a box must be given, because nothing detects.
    """

    turn_exif: bool
    needs_box: bool = False
    name: str = "decode"

    def __call__(self, work: GivenWork) -> None:
        if self.needs_box and work.given_box is None:
            raise UsageError("detector annotations takes the given boxes, and this image has none: give its box")
        box = None if work.given_box is None else _as_box(work.given_box)
        work.image, work.given = _read(work.given, self.turn_exif), None
        if box is None:
            return
        x0, y0, x1, y1 = clip_box(box, work.image.size)
        if min(x1 - x0, y1 - y0) < 1:
            height, width = work.image.size
            raise UsageError(
                f"box {work.given_box!r} has no pixel inside the image of {width}x{height} pixels; give it in pixels"
            )
        work.detections = Detections(box[None], np.ones(1, np.float32), ("annotated box",))
        set_prompt(work)


def _as_box(box: Sequence[float]) -> Float32:
    try:
        array = np.asarray(box, np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    if array.shape != (4,) or not np.isfinite(array).all() or array[2] <= array[0] or array[3] <= array[1]:
        raise UsageError(f"box must be four numbers x0 y0 x1 y1 with x0 < x1 and y0 < y1, not {box!r}")
    return array


def _read(image: Any, turn_exif: bool) -> Image:
    if is_url(image):
        return decode(_fetched(image), image, turn_exif)
    if is_address(image):
        raise ImageBrokenError("unreadable", f"{image} cannot be read: only http and https addresses are; download it")
    return as_image(image, turn_exif)


def _fetched(url: str) -> bytes:
    """Fetch an image; an address that fails is an image that fails."""
    try:
        return read_url(url, MOST_BYTES)
    except DownloadError as error:
        raise ImageBrokenError("unreadable", str(error)) from error
