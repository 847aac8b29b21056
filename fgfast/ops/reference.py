"""The ops in NumPy: the oracle for the native ops, and their replacement where those are not installed.

`fgfast.ops` documents each op and has checked its arguments. The models' ops are in separate files: `attention` in
reference_attention.py, `mask_post` in reference_masks.py, `nms` in reference_boxes.py, `resize` in
reference_resize.py. So are those of the numbers of a mask: `area_average` and `area_coverage` in reference_area.py,
`colour_contrast` in reference_contrast.py, `mask_parts` and `outline_edges` in reference_outline.py.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from fgfast.ops.reference_area import area_average as area_average
from fgfast.ops.reference_area import area_coverage as area_coverage
from fgfast.ops.reference_attention import Bf16 as Bf16
from fgfast.ops.reference_attention import FloatOrBf16 as FloatOrBf16
from fgfast.ops.reference_attention import attention as attention
from fgfast.ops.reference_attention import bf16_to_float as bf16_to_float
from fgfast.ops.reference_attention import float_to_bf16 as float_to_bf16
from fgfast.ops.reference_attention import window_attention as window_attention
from fgfast.ops.reference_boxes import nms as nms
from fgfast.ops.reference_contrast import colour_contrast as colour_contrast
from fgfast.ops.reference_masks import mask_post as mask_post
from fgfast.ops.reference_outline import mask_parts as mask_parts
from fgfast.ops.reference_outline import outline_edges as outline_edges
from fgfast.ops.reference_resize import resize as resize
from fgfast.records import Bool, UInt8

Window: TypeAlias = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the image; right and bottom are exclusive; may exceed the image."""

MAX_DIGITS = 12
"""Longest number in a run-length string: 60 bits, more than any mask has pixels, and no overflow in 64."""
FIRST_CHARACTER, LAST_CHARACTER = 48, 111
"""Digits of a run-length string are these bytes: 48 + six bits (cocodataset/cocoapi, common/maskApi.c)."""


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """Compute fgfast.ops.composite."""
    x0, y0, x1, y1 = window or (0, 0, pixels.shape[1], pixels.shape[0])
    out = np.zeros((y1 - y0, x1 - x0, 4 if alpha else 3), np.uint8)
    if background is not None and not alpha:
        out[:] = background
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, pixels.shape[1]), min(y1, pixels.shape[0])
    if left < right and top < bottom:
        inside = out[top - y0 : bottom - y0, left - x0 : right - x0]
        subject = bits[top:bottom, left:right]
        np.copyto(inside[..., :3], pixels[top:bottom, left:right], where=subject[..., None])
        if alpha:
            inside[subject, 3] = 255
    return out


def rle_encode(bits: Bool) -> bytes:
    """Compute fgfast.ops.rle_encode."""
    column_major = bits.T.ravel()
    changes = np.flatnonzero(np.diff(column_major, prepend=False))
    runs = np.diff(changes, prepend=0, append=column_major.size).tolist()
    text = bytearray()
    for index, run in enumerate(runs):
        _append_number(run - runs[index - 2] if index > 2 else run, text)
    return bytes(text)


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """Compute fgfast.ops.rle_decode; the string is checked before anything is allocated."""
    runs = _runs(counts, height, width)
    column_major = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(column_major.reshape(width, height).T)


def _append_number(number: int, text: bytearray) -> None:
    """Append a signed number, five bits per character, low bits first (maskApi.c, rleToString)."""
    more = True
    while more:
        digit = number & 0x1F
        number >>= 5
        more = number != (-1 if digit & 0x10 else 0)
        text.append(FIRST_CHARACTER + (digit | 0x20 if more else digit))


def _read_number(counts: bytes, start: int) -> tuple[int, int]:
    """Return the signed number at `start` and the position after it (maskApi.c, rleFrString)."""
    number, position = 0, start
    while True:
        digits = position - start
        if position == len(counts):
            raise ValueError(f"RLE: the string ends inside a number, at byte {position}")
        if digits == MAX_DIGITS:
            raise ValueError(f"RLE: the number at byte {start} has more than {MAX_DIGITS} digits")
        character = counts[position]
        if not FIRST_CHARACTER <= character <= LAST_CHARACTER:
            allowed = f"{FIRST_CHARACTER} to {LAST_CHARACTER}"
            raise ValueError(f"RLE: byte {position} is {character}; allowed are {allowed}")
        position += 1
        digit = character - FIRST_CHARACTER
        number |= (digit & 0x1F) << 5 * digits
        if not digit & 0x20:
            return number - (1 << 5 * digits + 5 if digit & 0x10 else 0), position


def _runs(counts: bytes, height: int, width: int) -> list[int]:
    """Return the runs of a string, which must cover exactly height x width pixels."""
    pixels = height * width
    size = f"{pixels} pixels of {height} x {width}"
    runs: list[int] = []
    covered = position = 0
    while position < len(counts):
        run, position = _read_number(counts, position)
        if len(runs) > 2:
            run += runs[-2]
        if run < 0:
            raise ValueError(f"RLE: run {len(runs)} is negative: {run}")
        if run > pixels - covered:
            raise ValueError(f"RLE: run {len(runs)} goes beyond the {size}")
        covered += run
        runs.append(run)
    if covered != pixels:
        raise ValueError(f"RLE: the runs cover {covered} of the {size}")
    return runs
