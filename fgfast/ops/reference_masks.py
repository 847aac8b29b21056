"""`mask_post` in NumPy: masks of the stored image's size from SAM's low-resolution logits, and facts about each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgfast.ops.geometry import mask_box
from fgfast.records import Bool, Float32

STABILITY_OFFSET = np.float32(1)
"""segment-anything, automatic_mask_generator.py: stability_score_offset, in logits."""

Int64 = NDArray[np.int64]


class Masks(NamedTuple):
    """M masks for each of N boxes, at the size (H, W) of the stored image.

    Attributes:
        bits: (N, M, H, W) bool; True is subject.
        boxes: (N, M, 4) float32, tight, x0 y0 x1 y1 in pixels of the stored image; zeros for an empty mask.
        areas: (N, M) int64, subject pixels.
        stability: (N, M) float32, pixels above +1 as a fraction of those above -1; NaN where there are none.
        borders: (N, M, 4) bool, whether the mask has pixels at the image's left, upper, right, lower border.
    """

    bits: Bool
    boxes: Float32
    areas: Int64
    stability: Float32
    borders: Bool


def mask_post(logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1) -> Masks:
    """Compute fgfast.ops.mask_post, on one thread.

    The intermediate and full-size logits equal, to the bit, those of PyTorch's CPU kernel for contiguous tensors
    (ATen/native/cpu/UpSampleKernel.cpp, upsample_generic_Nd_kernel_impl) in its builds for x86 with AVX2 or AVX-512.
    PyTorch rounds the last bits differently where it uses another kernel: images whose height and width together are at
    most 128; M = 3 on one thread; ATEN_CPU_CAPABILITY=default; ARM; a GPU.
    """
    count, masks, low, _ = logits.shape
    flat = logits.reshape(-1, low, low)
    bits = np.empty((len(flat), *size), np.bool_)
    facts = np.zeros((len(flat), 7), np.int64)
    for row, fact, mask in zip(flat, facts, bits, strict=True):
        square = _resize(row, (side, side))[: resized[0], : resized[1]]
        full = _resize(square, size)
        np.greater(full, 0, out=mask)
        if (tight := mask_box(mask)) is not None:
            fact[:4] = tight
        fact[4:] = [np.count_nonzero(full > offset) for offset in (0, STABILITY_OFFSET, -STABILITY_OFFSET)]
    return summarise(bits, facts, (count, masks))


def summarise(bits: Bool, facts: Int64, shape: tuple[int, int]) -> Masks:
    """Return Masks from the results that both implementations compute.

    Args:
        bits: (N * M, H, W) bool.
        facts: (N * M, 7) int64: the tight box, or zeros; pixels above 0, above +1, above -1.
        shape: (N, M).
    """
    height, width = bits.shape[1:]
    boxes = facts[:, :4]
    areas, above, below = facts[:, 4:].T
    with np.errstate(invalid="ignore"):
        stability: Float32 = above.astype(np.float32) / below.astype(np.float32)
    borders = np.stack([boxes[:, 0] == 0, boxes[:, 1] == 0, boxes[:, 2] == width, boxes[:, 3] == height], 1)
    borders &= areas[:, None] > 0
    return Masks(
        bits.reshape(*shape, height, width),
        boxes.astype(np.float32).reshape(*shape, 4),
        areas.reshape(shape),
        stability.reshape(shape),
        borders.reshape(*shape, 4),
    )


def _resize(logits: Float32, size: tuple[int, int]) -> Float32:
    """Resize (h, w) to `size`: along the rows first, then down the columns."""
    first, second, first_weight, second_weight = _taps(logits.shape[1], size[1])
    rows = _mix(logits[:, first], first_weight, logits[:, second], second_weight)
    first, second, first_weight, second_weight = _taps(logits.shape[0], size[0])
    return _mix(rows[first], first_weight[:, None], rows[second], second_weight[:, None])


def _taps(length: int, out: int) -> tuple[Int64, Int64, Float32, Float32]:
    """Return the two inputs, of `length`, of each of `out` outputs, and their weights."""
    index = np.arange(out)
    if length == out:
        return index, index, np.ones(out, np.float32), np.zeros(out, np.float32)
    scale = np.float32(length) / np.float32(out)
    half = np.float32(0.5)
    position = np.maximum(_fused(scale, index.astype(np.float32) + half, -half), np.float32(0))
    first = np.minimum(position.astype(np.int64), length - 1)
    weight = np.minimum(position - first.astype(np.float32), np.float32(1))
    return first, np.minimum(first + 1, length - 1), np.float32(1) - weight, weight


def _mix(first: Float32, first_weight: Float32, second: Float32, second_weight: Float32) -> Float32:
    """Sum two products as compiled in PyTorch: the second product is rounded, the first is not."""
    return _fused(first, first_weight, second * second_weight)


def _fused(a: Any, b: Any, c: Any) -> Float32:
    """Compute a * b + c of float32, rounded once.

    In float64 the product is exact and the sum is not. Rounding the sum to odd (away from or towards zero, to the
    number whose last bit is 1) preserves the information that the second rounding needs (Boldo and Melquiond 2008).
    """
    product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = (error != 0) & (total.view(np.int64) & 1 == 0)
    odd = np.where(even, np.nextafter(total, np.copysign(np.inf, error)), total)
    result: Float32 = odd.astype(np.float32)
    return result
