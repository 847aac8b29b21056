"""The operations in NumPy: what fgfast._native must equal, images bit for bit; they run where it is absent.

The checks of arguments live here too; fgfast.ops.native calls the same ones, so that both refuse alike. What belongs to
the models stands beside this file: `mask_post` in reference_masks.py, `nms` in reference_boxes.py, `resize` in
reference_resize.py.
"""

from __future__ import annotations

import math
import operator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.checks import check_array, check_range
from fgfast.ops.reference_boxes import nms as nms
from fgfast.ops.reference_masks import mask_post as mask_post
from fgfast.ops.reference_resize import resize as resize
from fgfast.records import Bool, Float32, UInt8

Window: TypeAlias = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the image; right and bottom are outside; may reach out of the image."""

MAX_SIDE = 2**31 - 1
"""Largest coordinate of a window and side of a mask; the native engine takes 32-bit ones."""
MAX_DIGITS = 12
"""Longest number in a run-length string: 60 bits, more than any mask has pixels, and no overflow in 64."""
FIRST_CHARACTER, LAST_CHARACTER = 48, 111
"""Digits of a run-length string are these bytes: 48 + six bits (cocodataset/cocoapi, common/maskApi.c)."""


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """Cut the subject out of an image, crop it, and put it on a background.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        background: (3,) uint8 colour or (h, w, 3) uint8 image of the window's size. With alpha it is
            ignored and may be None.
        window: what to write, in pixels of the image; outside the image there is only background.
            Default: the whole image.
        alpha: write RGBA instead: alpha 255 on the subject; elsewhere alpha and colour are 0, so that the
            background is really gone, not hidden.

    Returns:
        (h, w, 3) uint8 RGB, or (h, w, 4) uint8 RGBA with alpha.
    """
    x0, y0, x1, y1 = check_composite(pixels, bits, background, window, alpha)
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
    """The mask as COCO run-length string, byte for byte what pycocotools writes.

    Args:
        bits: (H, W) bool. A mask without pixels is b"0": one run of no zeros.

    Returns:
        The compressed runs of 0s and 1s in turn, 0s first, down the columns.
    """
    check_bits(bits)
    column_major = bits.T.ravel()
    changes = np.flatnonzero(np.diff(column_major, prepend=False))
    runs = np.diff(changes, prepend=0, append=column_major.size).tolist()
    text = bytearray()
    for index, run in enumerate(runs):
        _append_number(run - runs[index - 2] if index > 2 else run, text)
    return bytes(text)


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """The mask of a COCO run-length string.

    Args:
        counts: the compressed runs, from any source; they are checked before anything is allocated.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        (height, width) bool, C-contiguous.

    Raises:
        ValueError: the string is damaged, or belongs to a mask of another size.
    """
    check_counts(counts, height, width)
    runs = _runs(counts, height, width)
    column_major = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(column_major.reshape(width, height).T)


def attention(
    q: Float32,
    k: Float32,
    v: Float32,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[Float32, Float32],
    threads: int = 1,
) -> Float32:
    """Attention within square windows of S x S places, with decomposed relative positions, as SAM has it.

    Args:
        q: (B, T, H, D) float32, queries of B images with T tokens and H heads, unscaled.
        k: (B, T, H, D) float32, keys.
        v: (B, T, H, D) float32, values.
        rel_pos: for rows and for columns, (2S - 1, D) float32: row "query's - key's + S - 1" is what the query is
            multiplied with for this distance.
        token_at: (W, S * S) int64, the token at each place of each window, by rows; T means padding, which is a key
            but not a query. Every token has exactly one place.
        padding: key and value at places without a token, (H, D) float32 each.
        threads: to work with; the reference has one.

    Returns:
        (B, T, H, D) float32: softmax(q.k / sqrt(D) + q.rel_pos_h + q.rel_pos_w) v over the places of a window.
    """
    side = check_attention(q, k, v, rel_pos, token_at, padding, threads)
    y, x = np.divmod(np.arange(side * side), side)
    biases = rel_pos[0][y[:, None] - y + side - 1] + rel_pos[1][x[:, None] - x + side - 1]
    lines = [(len(q), 1, *row.shape) for row in padding]
    keys, values = (
        np.concatenate([array, np.broadcast_to(row, line)], 1)
        for array, row, line in zip((k, v), padding, lines, strict=True)
    )
    out = np.empty_like(q)
    for tokens in token_at:
        asking = tokens < q.shape[1]
        own = q[:, tokens[asking]]
        scores = np.einsum("bqhd,bkhd->bhqk", own, keys[:, tokens]) / math.sqrt(q.shape[3])
        scores += np.einsum("bqhd,qkd->bhqk", own, biases[asking])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[:, tokens[asking]] = np.einsum("bhqk,bkhd->bqhd", weights, values[:, tokens])
    return out


def _append_number(number: int, text: bytearray) -> None:
    """Append a signed number, five bits a character, low bits first (maskApi.c, rleToString)."""
    more = True
    while more:
        digit = number & 0x1F
        number >>= 5
        more = number != (-1 if digit & 0x10 else 0)
        text.append(FIRST_CHARACTER + (digit | 0x20 if more else digit))


def _read_number(counts: bytes, start: int) -> tuple[int, int]:
    """The signed number at `start` and the position behind it (maskApi.c, rleFrString)."""
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
    """The runs of a string that must cover exactly height x width pixels."""
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


def check_composite(pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None, alpha: bool) -> Window:
    """Raise TypeError or ValueError unless these are arguments of `composite`; return the window as ints."""
    check_array("pixels", pixels, np.uint8, 3)
    if pixels.shape[2] != 3:
        raise ValueError(f"pixels must have shape (H, W, 3), not {pixels.shape}")
    check_bits(bits)
    if bits.shape != pixels.shape[:2]:
        raise ValueError(f"bits must have the image's shape {pixels.shape[:2]}, not {bits.shape}")
    x0, y0, x1, y1 = window = _check_window(window, pixels)
    if not alpha:
        check_array("background", background, np.uint8, None)
        wanted = (y1 - y0, x1 - x0, 3)
        if background is not None and background.shape not in ((3,), wanted):
            raise ValueError(f"background must have shape (3,) or {wanted}, the window's, not {background.shape}")
    return window


def check_bits(bits: Bool) -> None:
    """Raise TypeError or ValueError unless `bits` is an (H, W) bool array."""
    check_array("bits", bits, np.bool_, 2)


def check_counts(counts: bytes, height: int, width: int) -> None:
    """Raise TypeError or ValueError unless these are types and sizes `rle_decode` takes."""
    if not isinstance(counts, bytes):
        raise TypeError(f"counts must be bytes, not {type(counts).__name__}")
    for name, value in (("height", height), ("width", width)):
        check_range(name, value, 0, MAX_SIDE)


def check_attention(
    q: Float32,
    k: Float32,
    v: Float32,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[Float32, Float32],
    threads: int,
) -> int:
    """Raise TypeError or ValueError unless these are arguments of `attention`; return the side S of a window."""
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_array(name, array, np.float32, 4)
        if array.shape != q.shape:
            raise ValueError(f"{name} must have q's shape {q.shape}, not {array.shape}")
    check_array("token_at", token_at, np.int64, 2)
    _, tokens, heads, size = q.shape
    side = math.isqrt(token_at.shape[1])
    if side == 0 or side * side != token_at.shape[1]:
        raise ValueError(f"token_at must have shape (W, S * S), not {token_at.shape}")
    wanted = {"rel_pos": (rel_pos, (2 * side - 1, size)), "padding": (padding, (heads, size))}
    for name, (arrays, shape) in wanted.items():
        for array in arrays:
            check_array(name, array, np.float32, None)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    if token_at.size and not 0 <= token_at.min() <= token_at.max() <= tokens:
        raise ValueError(f"token_at must be 0 to {tokens}, not {token_at.min()} to {token_at.max()}")
    if (np.bincount(token_at.ravel(), minlength=tokens + 1)[:tokens] != 1).any():
        raise ValueError("token_at must hold every token exactly once")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    return side


def _check_window(window: Window | None, pixels: UInt8) -> Window:
    if window is None:
        return 0, 0, pixels.shape[1], pixels.shape[0]
    try:
        x0, y0, x1, y1 = (operator.index(value) for value in window)
    except (TypeError, ValueError) as error:
        raise TypeError(f"window must be four integers x0 y0 x1 y1, not {window!r}") from error
    if not (-MAX_SIDE <= x0 <= x1 <= MAX_SIDE and -MAX_SIDE <= y0 <= y1 <= MAX_SIDE):
        raise ValueError(f"window must have x0 <= x1 and y0 <= y1, all within ±{MAX_SIDE}, not {(x0, y0, x1, y1)}")
    return x0, y0, x1, y1
