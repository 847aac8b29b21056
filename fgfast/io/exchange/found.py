"""What a file of another tool says about one image: its masks, or why there are none that can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgfast import ops
from fgfast.records import Bool, Size

# An image side is at most this in COCO, CVAT and here: the product of two fits in 64 bits many times.
_MOST_SIDE = 1 << 24


# What an exported file says about each image beside the mask: its key, and the state that was exported, see `state_of`.
KEY, STATE = "fgfast_key", "fgfast_state"
# What images without a class are called, in formats in which each mask has a label.
NO_CLASS = "subject"


@dataclass(frozen=True, slots=True)
class Mask:
    """One of the masks that a file holds of an image.

    Attributes:
        label: its class in the file.
        rle: the mask as a COCO run-length string (compressed, column-major), not checked; None where it cannot be used.
        reason: why it cannot be used; empty where it can.
        drawn: whether it was drawn from polygons.
    """

    label: str
    rle: bytes | None
    reason: str = ""
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a file says about an image.

    Attributes:
        name: the image's name in the file.
        size: its size there, in pixels; None where the file does not say.
        masks: its masks.
        reason: why none of them can be used; empty where they can.
        state: what was exported, see `state_of`; empty where the file does not say.
    """

    name: str
    size: Size | None
    masks: tuple[Mask, ...] = ()
    reason: str = ""
    state: str = ""


def state_of(decision: int, rle: bytes | None) -> str:
    """Return the state of an image: number of the last decision on it (0: none), and a digest of its mask.

    The digest tells the masks of two runs apart, whose decisions have the same numbers.
    """
    return f"{decision}/{hashlib.sha256(rle or b'').hexdigest()[:16]}"


def text_of(value: object) -> str:
    """Return a value of a file where it is text, else the empty string."""
    return value if isinstance(value, str) else ""


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
    checked = checked_runs(runs, size.height * size.width)
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
    _check_within(frame, size, left, top)
    checked = checked_runs(runs, frame.height * frame.width)
    return rle_within(np.repeat(np.arange(len(checked)) % 2 == 1, checked).reshape(frame), size, left, top)


def rle_within(bits: Bool, size: Size, left: int, top: int) -> bytes:
    """Return the run-length string of a mask that lies within the image, of a size that the caller has compared.

    Raises:
        ValueError: it is not within the image.
    """
    height, width = bits.shape
    _check_within(Size(height, width), size, left, top)
    whole = np.zeros(size, np.bool_)
    whole[top : top + height, left : left + width] = bits
    return ops.rle_encode(whole)


def _check_within(frame: Size, size: Size, left: int, top: int) -> None:
    if left < 0 or top < 0 or left + frame.width > size.width or top + frame.height > size.height:
        raise ValueError("its mask reaches out of the image")


def checked_runs(runs: Sequence[object], pixels: int) -> list[int]:
    """Return runs as numbers.

    Raises:
        ValueError: they are no whole numbers from 0, or do not cover the pixels.
    """
    checked = [run for run in runs if type(run) is int and 0 <= run <= pixels]
    if len(checked) != len(runs) or sum(checked) != pixels:
        raise ValueError(f"its run lengths do not cover its {pixels:,} pixels")
    return checked
