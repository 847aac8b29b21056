"""Checks of each op's arguments. fgfast.ops checks them once; the implementations do not check them again.

Each function raises TypeError or ValueError, naming the argument, its value and the allowed ones. These are the op's
own rules, the same with both implementations. The bindings in engine/ check everything that the memory depends on, and
do not rely on this file (engine/bindings/arguments.h): `fgfast._native` may be called by others.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.reference import Bf16, FloatOrBf16, Window
from fgfast.records import Bool, Float32, UInt8

MAX_SIDE = 2**31 - 1
"""Largest coordinate of a window and side of a mask; the native ops use 32-bit integers."""
MAX_THREADS = 2**31 - 1
MAX_LOGITS_SIDE = 2**24
"""Longest side in pixels for `mask_post`: its positions are float32, which represents all integers up to here."""
MAX_RESIZED_SIDE = 2**20
"""Longest side in pixels that the native `resize`, `area_average` and `area_coverage` take."""
MAX_CONTRAST_SIDE, MAX_CONTRAST_PIXELS = 2**14, 2**20
"""Of the native `colour_contrast`: its distances have 32 bits, and its products of two sums 63. `outline_edges` has the
same bounds."""
MAX_WINDOW_TOKENS = 64
"""Of the native `window_attention`, which keeps the scores of a query in registers."""
MAX_PARTS_PIXELS = 2**30
"""Of a mask for the native `mask_parts`, which numbers and counts pixels in 32 bits."""


def check_area(name: str, array: NDArray[np.generic], size: tuple[int, int]) -> None:
    """Check the arguments of `area_average`, whose image is "pixels", and of `area_coverage`, whose mask is "bits"."""
    if name == "bits":
        check_bits(array)  # type: ignore[arg-type]
    else:
        _image(array)  # type: ignore[arg-type]
    lengths = _pair("size", size)
    for side, whole, length in zip(("height", "width"), array.shape, lengths, strict=False):
        _range(f"{side} of {name}", whole, 1, MAX_RESIZED_SIDE)
        _range(f"{side} of size", length, 1, whole)


def check_contrast(lab: UInt8, bits: Bool) -> None:
    """Check the arguments of `colour_contrast`."""
    _lab(lab, bits)


def check_outline(lab: UInt8, bits: Bool, outline: Bool) -> None:
    """Check the arguments of `outline_edges`."""
    _lab(lab, bits)
    _array("outline", outline, np.bool_, 2)
    if outline.shape != bits.shape:
        raise ValueError(f"outline must have the shape of bits {bits.shape}, not {outline.shape}")
    if np.count_nonzero(outline & ~bits):
        raise ValueError("outline must be part of bits, but has pixels where they are False")


def check_parts(bits: Bool) -> None:
    """Check the mask that `mask_parts` takes."""
    check_bits(bits)
    _range("number of pixels of bits", bits.size, 0, MAX_PARTS_PIXELS)


def _lab(lab: UInt8, bits: Bool) -> None:
    _array("lab", lab, np.uint8, 3)
    check_bits(bits)
    if lab.shape != (*bits.shape, 3):
        raise ValueError(f"lab must have shape (H, W, 3) and bits (H, W), not {lab.shape} and {bits.shape}")
    for side, length in zip(("height", "width"), bits.shape, strict=True):
        _range(f"{side} of bits", length, 1, MAX_CONTRAST_SIDE)
    _range("number of pixels of bits", bits.size, 1, MAX_CONTRAST_PIXELS)


def check_composite(pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None, alpha: bool) -> Window:
    """Check the arguments of `composite`; return the window as ints, the whole image where it is None."""
    _image(pixels)
    check_bits(bits)
    if bits.shape != pixels.shape[:2]:
        raise ValueError(f"bits must have the image's shape {pixels.shape[:2]}, not {bits.shape}")
    x0, y0, x1, y1 = window = _window(window, pixels)
    if not alpha:
        _array("background", background, np.uint8, None)
        wanted = (y1 - y0, x1 - x0, 3)
        if background is not None and background.shape not in ((3,), wanted):
            raise ValueError(f"background must have shape (3,) or {wanted}, the window's, not {background.shape}")
    return window


def check_bits(bits: Bool) -> None:
    """Check the mask that `rle_encode` takes."""
    _array("bits", bits, np.bool_, 2)


def check_counts(counts: bytes, height: int, width: int) -> None:
    """Check the types and sizes that `rle_decode` takes; the content of the string is checked where it is parsed."""
    if not isinstance(counts, bytes):
        raise TypeError(f"counts must be bytes, not {type(counts).__name__}")
    for name, value in (("height", height), ("width", width)):
        _range(name, value, 0, MAX_SIDE)


def check_attention(
    q: FloatOrBf16,
    k: FloatOrBf16,
    v: FloatOrBf16,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[FloatOrBf16, FloatOrBf16],
    threads: int,
) -> None:
    """Check the arguments of `attention`."""
    dtype = np.uint16 if getattr(q, "dtype", None) == np.uint16 else np.float32
    for name, array in (("q", q), ("k", k), ("v", v)):
        _array(name, array, dtype, 4)
        if array.shape != q.shape:
            raise ValueError(f"{name} must have q's shape {q.shape}, not {array.shape}")
    _array("token_at", token_at, np.int64, 2)
    _, tokens, heads, size = q.shape
    side = math.isqrt(token_at.shape[1])
    if side == 0 or side * side != token_at.shape[1]:
        raise ValueError(f"token_at must have shape (W, S * S), not {token_at.shape}")
    wanted: dict[str, Any] = {
        "rel_pos": (rel_pos, np.float32, (2 * side - 1, size)),
        "padding": (padding, dtype, (heads, size)),
    }
    for name, (arrays, its_dtype, shape) in wanted.items():
        if len(arrays) != 2:
            raise ValueError(f"{name} must be two arrays, not {len(arrays)}")
        for array in arrays:
            _array(name, array, its_dtype, None)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    if token_at.size and not 0 <= token_at.min() <= token_at.max() <= tokens:
        raise ValueError(f"token_at must be 0 to {tokens}, not {token_at.min()} to {token_at.max()}")
    if tokens > token_at.size or (np.bincount(token_at.ravel(), minlength=tokens + 1)[:tokens] != 1).any():
        raise ValueError("token_at must hold every token exactly once")
    _range("threads", threads, 1, MAX_THREADS)


def check_window_attention(qkv: Bf16, bias: Float32, mask: Float32 | None, threads: int) -> None:
    """Check the arguments of `window_attention`."""
    _array("qkv", qkv, np.uint16, 5)
    windows, tokens, three, heads, _ = qkv.shape
    if three != 3 or not 1 <= tokens <= MAX_WINDOW_TOKENS:
        raise ValueError(f"qkv must have shape (N, T, 3, H, D), T from 1 to {MAX_WINDOW_TOKENS}, not {qkv.shape}")
    wanted = {"bias": (bias, (heads, tokens, tokens))}
    if mask is not None:
        wanted["mask"] = mask, (windows, tokens, tokens)
    for name, (array, shape) in wanted.items():
        _array(name, array, np.float32, 3)
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    _range("threads", threads, 1, MAX_THREADS)


def check_mask_post(logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int) -> None:
    """Check the arguments of `mask_post`."""
    _array("logits", logits, np.float32, 4)
    if logits.shape[2] != logits.shape[3] or logits.shape[2] < 1:
        raise ValueError(f"logits must have shape (N, M, s, s), not {logits.shape}")
    _range("side", side, 1, MAX_LOGITS_SIDE)
    for name, lengths, most in (("size", size, MAX_LOGITS_SIDE), ("resized", resized, side)):
        for length in _pair(name, lengths):
            _range(f"{name} {tuple(lengths)}", length, 1, most)
    _range("threads", threads, 1, MAX_THREADS)


def check_nms(boxes: Float32, scores: Float32, threshold: float, limit: int, classes: NDArray[np.int64] | None) -> None:
    """Check the arguments of `nms`."""
    _array("boxes", boxes, np.float32, 2)
    if boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), not {boxes.shape}")
    columns = [("scores", scores, np.float32)] + ([] if classes is None else [("classes", classes, np.int64)])
    for name, column, dtype in columns:
        _array(name, column, dtype, 1)
        if len(column) != len(boxes):
            raise ValueError(f"{name} must have shape {boxes.shape[:1]}, one per box, not {column.shape}")
    if not isinstance(threshold, (int, float)):
        raise TypeError(f"threshold must be a number, not {type(threshold).__name__}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be 0 to 1, not {threshold}")
    _range("limit", limit, 0, 2**63 - 1)


def check_resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None, threads: int) -> None:
    """Check the arguments of `resize`."""
    _image(pixels)
    _pair("size", size)
    for name, length in (("height", pixels.shape[0]), ("width", pixels.shape[1]), *zip(("h", "w"), size, strict=True)):
        _range(f"{name} of {'pixels' if len(name) > 1 else 'size'}", length, 1, MAX_RESIZED_SIDE)
    _range("threads", threads, 1, MAX_THREADS)
    if out is None:
        return
    _array("out", out, np.uint8, 3)
    if out.shape != (*size, 3):
        raise ValueError(f"out must have shape {(*size, 3)}, not {out.shape}")
    rows, pixel, byte = out.strides  # that of an axis of length 1 says nothing
    if byte != 1 or (size[1] > 1 and pixel != 3) or (size[0] > 1 and rows < 3 * size[1]):
        raise ValueError(f"out must have contiguous rows, strides (.., 3, 1), not {out.strides}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    if np.may_share_memory(out, pixels):
        raise ValueError("out must not share memory with pixels")


def _window(window: Window | None, pixels: UInt8) -> Window:
    if window is None:
        return 0, 0, pixels.shape[1], pixels.shape[0]
    try:
        x0, y0, x1, y1 = (operator.index(value) for value in window)
    except (TypeError, ValueError) as error:
        raise TypeError(f"window must be four integers x0 y0 x1 y1, not {window!r}") from error
    if not (-MAX_SIDE <= x0 <= x1 <= MAX_SIDE and -MAX_SIDE <= y0 <= y1 <= MAX_SIDE):
        raise ValueError(f"window must have x0 <= x1 and y0 <= y1, all within ±{MAX_SIDE}, not {(x0, y0, x1, y1)}")
    return x0, y0, x1, y1


def _pair(name: str, lengths: Any) -> tuple[Any, ...]:
    """Return the two lengths, whatever they are."""
    if not isinstance(lengths, (tuple, list)):
        raise TypeError(f"{name} must be (height, width), not {type(lengths).__name__}")
    if len(lengths) != 2:
        raise ValueError(f"{name} must be (height, width), not {lengths!r}")
    return tuple(lengths)


def _image(pixels: UInt8) -> None:
    _array("pixels", pixels, np.uint8, 3)
    if pixels.shape[2] != 3:
        raise ValueError(f"pixels must have shape (H, W, 3), not {pixels.shape}")


def _array(name: str, array: Any, dtype: type[np.generic], dimensions: int | None) -> None:
    """Raise unless `array` is a NumPy array of this dtype and number of dimensions."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype).name}, not {array.dtype.name}")
    if dimensions is not None and array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, not shape {array.shape}")


def _range(name: str, value: Any, least: int, most: int) -> None:
    """Raise unless `value` is an int from `least` to `most`."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
