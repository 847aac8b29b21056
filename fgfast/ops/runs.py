"""Boxes and areas of many masks from their run-length strings, without decoding a pixel.

The cost of a mask depends on its runs, one or two per column of the subject, not on the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.reference import FIRST_CHARACTER, LAST_CHARACTER, MAX_DIGITS
from fgfast.records import Size

Ints = NDArray[np.int64]

# A digit has five bits; a sixth bit is set if more digits follow; the highest bit of the last digit is the sign
# (cocodataset/cocoapi, common/maskApi.c).
_BITS, _MORE, _LOW, _SIGN = 5, 32, 31, 16
# Strings are stored as rows of equal length, at most this many bytes together, so that one fragmented mask among many
# does not exhaust the memory. The arrays then also stay in the processor's cache.
_MOST_PADDED = 1 << 16


def boxes_and_areas(counts: Sequence[bytes], sizes: Sequence[Size]) -> tuple[Ints, Ints]:
    """Return tight boxes and areas of N masks, equal to those of the decoded masks.

    Args:
        counts: N COCO run-length strings.
        sizes: of each mask, in pixels.

    Returns:
        Boxes (N, 4) int64, x0 y0 x1 y1 with right and bottom exclusive, zeros where a mask is empty; areas (N,) int64
        in pixels.

    Raises:
        ValueError: a string is damaged, or its mask has another size.
    """
    if not counts:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    if len(counts) > 1 and max(map(len, counts)) * len(counts) > _MOST_PADDED:
        middle = len(counts) // 2
        halves = [boxes_and_areas(counts[part], sizes[part]) for part in (slice(middle), slice(middle, None))]
        return np.concatenate([boxes for boxes, _ in halves]), np.concatenate([areas for _, areas in halves])
    runs = _runs(counts)
    sides = np.array(sizes, np.int64)
    ends = np.cumsum(runs, axis=1)
    # Every run and every sum of runs on its own: no sum of 64 bits can go round and end at the right total.
    pixels = sides.prod(axis=1)[:, None]
    outside = ((runs < 0) | (runs > pixels) | (ends > pixels)).any(axis=1)
    if wrong := np.flatnonzero(outside | (ends[:, -1:] != pixels)[:, 0]).tolist():
        height, width = sizes[wrong[0]]
        raise ValueError(f"RLE: the runs of mask {wrong[0]} do not cover its {width} x {height} pixels")
    return _boxes(ends[:, :-1:2], runs[:, 1::2], sides[:, 0]), runs[:, 1::2].sum(axis=1, dtype=np.int64)


def _boxes(starts: Ints, lengths: Ints, heights: Ints) -> Ints:
    """Return boxes (N, 4) around the runs of ones, (N, K) each; those of length 0 are ignored."""
    here = lengths > 0
    height = heights[:, None]
    # In float64, whose division is faster; exact for masks of less than 2**52 pixels.
    columns = np.floor(starts / height).astype(starts.dtype)
    tops = starts - columns * height
    bottom = (tops + lengths).max(axis=1)
    top = np.where(here, tops, height).min(axis=1)
    wraps = bottom > heights  # such a run has a column's last row and the next one's first
    row, first, last = np.arange(len(starts)), here.argmax(axis=1), here.shape[1] - 1 - here[:, ::-1].argmax(axis=1)
    left, right = columns[row, first], (starts[row, last] + lengths[row, last] - 1) // heights
    boxes = np.stack([left, np.where(wraps, 0, top), right + 1, np.where(wraps, heights, bottom)], axis=1)
    boxes[~np.any(here, axis=1)] = 0
    return boxes.astype(np.int64)


def _runs(counts: Sequence[bytes]) -> Ints:
    """Return the runs of N strings, (N, K): alternating 0s and 1s, padded with empty runs; K is odd, at least 3.

    Signs and sums are not checked.
    """
    values, heads = _numbers(counts)
    how_many = np.diff(heads, append=len(values))
    wide = max(int(how_many.max()), 3) | 1
    filled = np.zeros(len(counts) * wide, values.dtype)
    filled[np.arange(len(values)) + np.repeat(np.arange(len(counts)) * wide - heads, how_many)] = values
    runs = filled.reshape(len(counts), wide)
    # From the fourth run on, a string contains the difference from the run two before.
    for first in (1, 2):
        np.cumsum(runs[:, first::2], axis=1, out=runs[:, first::2])
    runs[np.arange(wide) >= how_many[:, None]] = 0
    return runs


def _numbers(counts: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Return the numbers of all strings, one string after the other, and the start of each string's numbers."""
    lengths = np.array([len(text) for text in counts])
    digits = np.frombuffer(b"".join(counts), np.uint8)
    if not lengths.all() or digits.min() < FIRST_CHARACTER or digits.max() > LAST_CHARACTER:
        raise ValueError("RLE: an empty string, or a character that is no digit")
    digits = digits - np.uint8(FIRST_CHARACTER)
    stops = np.cumsum(lengths) - 1
    if (digits[stops] & _MORE).any():
        raise ValueError("RLE: a string ends in the middle of a number")
    last = np.flatnonzero(digits < _MORE)
    more = np.diff(last, prepend=-1) - 1
    if more.max() >= MAX_DIGITS:
        raise ValueError(f"RLE: a number of more than {MAX_DIGITS} digits")
    signed = ((digits & _LOW) ^ _SIGN).view(np.int8) - np.int8(_SIGN)
    values = signed[last].astype(np.int64)
    long, digit = np.flatnonzero(more), 0
    values[long] <<= _BITS * more[long]
    while long.size:
        values[long] += (digits[last[long] - more[long] + digit] & _LOW).astype(np.int64) << (_BITS * digit)
        digit += 1
        long = long[more[long] > digit]
    return values, np.append(0, np.searchsorted(last, stops[:-1]) + 1)
