"""Images for the page: decoded by fgfast, drawn, and encoded again, so that no stranger's file is passed on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

import numpy as np

from fgfast.io.draft import cut_out, draft, shrunk
from fgfast.io.encode import encode, encode_png
from fgfast.records import Bool, Size, UInt8

SMALLEST_SIDE, LARGEST_SIDE = 64, 8192
"""Longer sides that the page may ask for, in pixels."""
KINDS = ("source", "result", "outline")

# JPEG's quality of small images, which are looked at in a gallery, and of large ones, on which masks are drawn.
_SMALL, _SMALL_QUALITY, _LARGE_QUALITY = 640, 82, 92
# Of the mask's outline: a dark line under a light one is seen on any colour. Widths are for 320 pixels.
_DARK, _LIGHT = (16, 16, 16), (255, 255, 255)
_LINES = ((_DARK, 3.0), (_LIGHT, 1.2))
_USUAL_SIDE = 320
# Fixed-point bits of coordinates that OpenCV draws with.
_SHIFT = 4
_BACKDROP = 128


class Encoded(NamedTuple):
    """An encoded image and its media type."""

    data: bytes
    kind: str


def source(data: bytes, name: str, turn_exif: bool, side: int) -> Encoded:
    """The stored image, at most `side` pixels long.

    Raises:
        SampleError: it cannot be decoded.
    """
    return _jpeg(draft(data, name, turn_exif, side)[0])


def result(data: bytes, name: str, side: int) -> Encoded:
    """The written image, at most `side` pixels long; a PNG where it has alpha.

    Raises:
        SampleError: it cannot be decoded.
    """
    pixels = cut_out(data, name)
    if pixels.shape[2] == 3:
        return _jpeg(shrunk(pixels, side))
    return Encoded(encode_png(shrunk(_over_alpha(pixels), side)), "image/png")


def _over_alpha(pixels: UInt8) -> UInt8:
    """Make colours under full transparency black, so that shrinking does not mix the background in again."""
    return np.where(pixels[:, :, 3:] > 0, pixels, np.uint8(0))


def outline(pixels: UInt8, bits: Bool | None, side: int) -> Encoded:
    """An image with its mask's outline.

    Args:
        pixels: (h, w, 3) uint8, the stored image at any size.
        bits: (H, W) bool, the mask at the stored image's size; None for no outline.
        side: longer side of the answer, in pixels, at most.
    """
    small = np.ascontiguousarray(shrunk(pixels, side))
    if bits is not None and bits.any():
        small = small if small.flags.writeable and small is not pixels else small.copy()
        draw_outline(small, bits)
    return _jpeg(small)


def draw_outline(pixels: UInt8, bits: Bool) -> None:
    """Draw the outline of a mask, (H, W) bool, onto an image of any size, (h, w, 3) uint8, in place."""
    import cv2

    height, width = pixels.shape[:2]
    # The outline of a mask is found at up to four times the image's size: it is straight where the subject's is.
    scale = min(4, max(1, round(bits.shape[1] / width)))
    fine = (width * scale, height * scale)
    shares = cv2.resize(bits.view(np.uint8) * np.uint8(255), fine, interpolation=cv2.INTER_AREA)
    inside = (shares >= 128).view(np.uint8)
    if not inside.any():  # smaller than a pixel
        inside = (shares == shares.max()).view(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    moved = [np.rint(((c + 0.5) / scale - 0.5) * (1 << _SHIFT)).astype(np.int32) for c in contours]
    thick = max(1.0, max(height, width) / _USUAL_SIDE)
    for colour, width_of_line in _LINES:
        line = max(1, round(width_of_line * thick**0.5))
        cv2.polylines(pixels, moved, isClosed=True, color=colour, thickness=line, lineType=cv2.LINE_AA, shift=_SHIFT)


def without_source(size: Size, twin: UInt8 | None, offset: tuple[int, int], side: int) -> UInt8:
    """Return what can be shown where the stored image is gone: the written image in its place, on grey.

    Args:
        size: of the stored image, in pixels.
        twin: (h, w, 3) or (h, w, 4) uint8, the written image; None where that is gone, too.
        offset: (x, y) of its top-left pixel in the stored image.
        side: longer side of the answer, at most.

    Returns:
        (h, w, 3) uint8.
    """
    import cv2

    scale = min(1.0, side / max(size))
    height, width = (max(1, round(length * scale)) for length in size)
    canvas = np.full((height, width, 3), _BACKDROP, np.uint8)
    if twin is None:
        return canvas
    small = (max(1, round(twin.shape[1] * scale)), max(1, round(twin.shape[0] * scale)))
    placed = np.asarray(cv2.resize(twin, small, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = (round(length * scale) for length in offset)
    rows, columns = slice(max(0, y), min(height, y + small[1])), slice(max(0, x), min(width, x + small[0]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return canvas
    part = placed[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    here = canvas[rows, columns]
    canvas[rows, columns] = np.where(part[:, :, 3:] > 127, part[:, :, :3], here) if part.shape[2] == 4 else part
    return canvas


def _jpeg(pixels: UInt8) -> Encoded:
    quality = _SMALL_QUALITY if max(pixels.shape[:2]) <= _SMALL else _LARGE_QUALITY
    return Encoded(encode(np.ascontiguousarray(pixels), ".jpg", quality), "image/jpeg")


class Kept:
    """The encoded images that were asked for last.

    Args:
        most: bytes of all of them.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._lock = Lock()
        self._images: OrderedDict[object, Encoded] = OrderedDict()

    def get(self, name: object, make: Callable[[], Encoded]) -> Encoded:
        """Return the image of a name, made where it is not kept."""
        with self._lock:
            if (found := self._images.get(name)) is not None:
                self._images.move_to_end(name)
                return found
        made = make()
        with self._lock:
            if name not in self._images and len(made.data) <= self._most // 8:
                self._images[name] = made
                self._size += len(made.data)
            while self._size > self._most:
                _, oldest = self._images.popitem(last=False)
                self._size -= len(oldest.data)
        return made
