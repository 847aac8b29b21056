"""What a file of another tool says about one image: its mask, or why there is none that can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgfast import ops
from fgfast.records import Size

# An image side is at most this in COCO, CVAT and here: the product of two fits in 64 bits many times.
_MOST_SIDE = 1 << 24


@dataclass(frozen=True, slots=True)
class Found:
    """The mask that a file holds of one image.

    Attributes:
        name: the image's name in the file.
        size: its size there, in pixels; None where the file does not say.
        rle: the mask as a COCO run-length string (compressed, column-major), not checked; None where it cannot be used.
        reason: why it cannot be used; empty where it can.
    """

    name: str
    size: Size | None
    rle: bytes | None
    reason: str = ""


def size_of(height: object, width: object) -> Size | None:
    """Return a size of two whole numbers from 1, or None where they are none."""
    sides = (height, width)
    if all(type(side) is int and 0 < side <= _MOST_SIDE for side in sides):
        return Size(*sides)  # type: ignore[arg-type]
    return None


def rle_of_columns(runs: Sequence[object], size: Size) -> bytes:
    """Return the run-length string of runs in column-major order that start with background.

    Memory is taken for the runs alone, which the file has already: the image is as large as its file says, unproven.

    Raises:
        ValueError: the runs are no whole numbers from 0, or do not cover the image.
    """
    checked = _checked(runs, size.height * size.width)
    text = bytearray()
    for place, run in enumerate(checked):
        value = run - checked[place - 2] if place > 2 else run
        more = True
        while more:  # five bits a digit; see fgfast.ops.runs
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text.append((digit | (32 if more else 0)) + 48)
    return bytes(text)


def rle_of_rows(runs: Sequence[object], frame: Size, size: Size, left: int, top: int) -> bytes:
    """Return the run-length string of a mask whose runs, row-major, background first, cover a frame within the image.

    The caller has compared `size` with that of a known image.

    Raises:
        ValueError: the runs do not cover the frame, or it is not within the image.
    """
    if left < 0 or top < 0 or left + frame.width > size.width or top + frame.height > size.height:
        raise ValueError("its mask reaches out of the image")
    checked = _checked(runs, frame.height * frame.width)
    bits = np.repeat(np.arange(len(checked)) % 2 == 1, checked).reshape(frame)
    whole = np.zeros(size, np.bool_)
    whole[top : top + frame.height, left : left + frame.width] = bits
    return ops.rle_encode(whole)


def _checked(runs: Sequence[object], pixels: int) -> list[int]:
    """Return the runs as numbers."""
    checked = [run for run in runs if type(run) is int and 0 <= run <= pixels]
    if len(checked) != len(runs) or sum(checked) != pixels:
        raise ValueError(f"its run lengths do not cover its {pixels:,} pixels")
    return checked
