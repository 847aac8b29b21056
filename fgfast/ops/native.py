"""The ops in C++, from fgfast._native.

`fgfast.ops` has checked the arguments; the bindings in engine/ check everything that memory safety requires, and refuse
what these functions copy: arrays with gaps, and arrays that are not aligned.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fgfast import _native
from fgfast.ops.geometry import down_first
from fgfast.ops.reference import Bf16, FloatOrBf16, Window
from fgfast.ops.reference_masks import Masks, summarise
from fgfast.records import Bool, Float32, UInt8

Array = TypeVar("Array", bound=NDArray[np.generic])


def area_average(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_average."""
    out = np.empty((*size, 3), np.uint8)
    _native.area_average(_plain(pixels), out)
    return out


def area_coverage(bits: Bool, size: tuple[int, int]) -> UInt8:
    """Compute fgfast.ops.area_coverage."""
    out = np.empty(size, np.uint8)
    _native.area_coverage(_plain(bits), out)
    return out


def attends(size: int, bf16: bool = False) -> bool:
    """Return whether this build and processor have `attention` for heads of `size`: AVX-512, and multiples of 16."""
    return _native.attends_bf16(size) if bf16 else _native.attends(size)


def bf16_attends_by() -> str:
    """Return what multiplies bfloat16 in `attention`."""
    return _native.bf16_attends_by()


def attention(
    q: FloatOrBf16,
    k: FloatOrBf16,
    v: FloatOrBf16,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[FloatOrBf16, FloatOrBf16],
    threads: int = 1,
) -> FloatOrBf16:
    """Compute fgfast.ops.attention for heads that `attends`."""
    given: Any = tuple(map(_plain, (q, k, v, *rel_pos, token_at, *padding)))
    side, out = math.isqrt(token_at.shape[1]), np.empty(q.shape, q.dtype)
    attend: Any = _native.attend_bf16 if q.dtype == np.uint16 else _native.attend
    attend(*given, side, threads, out)
    return out


def window_attention(qkv: Bf16, bias: Float32, mask: Float32 | None = None, threads: int = 1) -> Bf16:
    """Compute fgfast.ops.window_attention for heads that `attends`."""
    out = np.empty((*qkv.shape[:2], *qkv.shape[3:]), np.uint16)
    _native.attend_windows(_plain(qkv), _plain(bias), None if mask is None else _plain(mask), threads, out)
    return out


def colour_contrast(lab: UInt8, bits: Bool) -> NDArray[np.float64]:
    """Compute fgfast.ops.colour_contrast."""
    out = np.empty(4, np.float64)
    _native.colour_contrast(_plain(lab), _plain(bits), out)
    return out


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """Compute fgfast.ops.composite."""
    x0, y0, x1, y1 = window or (0, 0, pixels.shape[1], pixels.shape[0])
    pixels, bits = _plain(pixels), _plain(bits)
    out = np.empty((y1 - y0, x1 - x0, 4 if alpha else 3), np.uint8)
    if alpha or background is None:
        _native.composite_alpha(pixels, bits, x0, y0, out)
        return out
    if background.ndim == 1:
        background = np.broadcast_to(background, (1, x1 - x0, 3))
    _native.composite(pixels, bits, _plain(background), x0, y0, out)
    return out


def rle_encode(bits: Bool) -> bytes:
    """Compute fgfast.ops.rle_encode."""
    return _native.rle_encode(_plain(bits))


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """Compute fgfast.ops.rle_decode."""
    return _native.rle_decode(counts, height, width)


def mask_parts(bits: Bool) -> tuple[NDArray[np.int64], int]:
    """Compute fgfast.ops.mask_parts."""
    return _native.mask_parts(_plain(bits))


def mask_post(logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1) -> Masks:
    """Compute fgfast.ops.mask_post."""
    count, masks, low, _ = logits.shape
    bits = np.empty((count * masks, *size), np.bool_)
    facts = np.empty((count * masks, 7), np.int64)
    flat = _plain(logits).reshape(-1, low, low)
    _native.mask_post(flat, side, *resized, bits, facts, threads)
    return summarise(bits, facts, (count, masks))


def nms(
    boxes: Float32, scores: Float32, threshold: float, limit: int, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Compute fgfast.ops.nms."""
    groups = None if classes is None else _plain(classes)
    return _native.nms(_plain(boxes), _plain(scores), groups, threshold, limit)


def outline_edges(lab: UInt8, bits: Bool, outline: Bool) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Compute fgfast.ops.outline_edges."""
    out = np.empty((2, int(np.count_nonzero(outline))), np.int64)
    near = _native.outline_edges(_plain(lab), _plain(bits), _plain(outline), out)
    return out[0], out[1], near


def resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """Compute fgfast.ops.resize."""
    out = np.empty((*size, 3), np.uint8) if out is None else out
    _native.resize(_plain(pixels), out, down_first(pixels.shape[:2], size), threads)
    return out


def _plain(array: Array) -> Array:
    """Return the array, or a copy, as the bindings want it: row by row without gaps, and aligned."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy()
