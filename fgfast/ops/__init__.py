"""Image operations: this module documents each op, checks its arguments, and calls the implementation.

There are two implementations with equal results (of attention: up to rounding): the native ops in C++
(fgfast.ops.native), and the NumPy reference (fgfast.ops.reference), used where the native ops are not installed.
`implementation()` returns the name of the one in use; FGFAST_OPS=native or FGFAST_OPS=reference forces one.

Every op raises TypeError or ValueError where an argument has another type, dtype, shape or range than described here.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UnknownNameError, UsageError
from fgfast.ops import checks, reference
from fgfast.ops.reference import Bf16, FloatOrBf16, Window
from fgfast.ops.reference_masks import Masks
from fgfast.records import Bool, Float32, UInt8

__all__ = [
    "Bf16",
    "FloatOrBf16",
    "Masks",
    "Window",
    "area_average",
    "area_coverage",
    "attends",
    "attention",
    "bf16_attends_by",
    "colour_contrast",
    "composite",
    "implementation",
    "mask_parts",
    "mask_post",
    "nms",
    "outline_edges",
    "resize",
    "rle_decode",
    "rle_encode",
    "window_attention",
]

ImplementationName = Literal["native", "reference"]
Int64 = NDArray[np.int64]


class _Implementation(Protocol):
    def area_average(self, pixels: UInt8, size: tuple[int, int]) -> UInt8: ...

    def area_coverage(self, bits: Bool, size: tuple[int, int]) -> UInt8: ...

    def colour_contrast(self, lab: UInt8, bits: Bool) -> NDArray[np.float64]: ...

    def composite(
        self, pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
    ) -> UInt8: ...

    def mask_parts(self, bits: Bool) -> tuple[Int64, int]: ...

    def outline_edges(self, lab: UInt8, bits: Bool, outline: Bool) -> tuple[Int64, Int64, int]: ...

    def rle_encode(self, bits: Bool) -> bytes: ...

    def rle_decode(self, counts: bytes, height: int, width: int) -> Bool: ...

    def attention(
        self,
        q: FloatOrBf16,
        k: FloatOrBf16,
        v: FloatOrBf16,
        rel_pos: tuple[Float32, Float32],
        token_at: Int64,
        padding: tuple[FloatOrBf16, FloatOrBf16],
        threads: int = 1,
    ) -> FloatOrBf16: ...

    def window_attention(self, qkv: Bf16, bias: Float32, mask: Float32 | None = None, threads: int = 1) -> Bf16: ...

    def mask_post(
        self, logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1
    ) -> Masks: ...

    def nms(
        self, boxes: Float32, scores: Float32, threshold: float, limit: int, classes: Int64 | None = None
    ) -> Int64: ...

    def resize(self, pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8: ...


def implementation() -> ImplementationName:
    """Return the name of the implementation used by this process; it is printed and stored in run.json."""
    return _resolve()[0]


def area_average(pixels: UInt8, size: tuple[int, int]) -> UInt8:
    """Shrink an image by exact averages over areas.

    Args:
        pixels: (H, W, 3) uint8 RGB, with sides of 1 to 2**20 px.
        size: (h, w) in pixels, 1 to H and 1 to W.

    Returns:
        (h, w, 3) uint8: the average of what each pixel covers, parts of pixels by their area, a half rounded upwards.
    """
    checks.check_area("pixels", pixels, size)
    return _resolve()[1].area_average(pixels, size)


def area_coverage(bits: Bool, size: tuple[int, int]) -> UInt8:
    """Shrink a mask as `area_average` does an image.

    Args:
        bits: (H, W) bool, with sides of 1 to 2**20 px.
        size: (h, w) in pixels, 1 to H and 1 to W.

    Returns:
        (h, w) uint8: how much of what each pixel covers is True, 255 all of it. From 128 on it is half or more.
    """
    checks.check_area("bits", bits, size)
    return _resolve()[1].area_coverage(bits, size)


def colour_contrast(lab: UInt8, bits: Bool) -> NDArray[np.float64]:
    """Compute how alike the colours of a mask's subject and of its surroundings are; in `fgfast.ops.contrast` by name.

    Args:
        lab: (h, w, 3) uint8, OpenCV's Lab of 8 bits, with sides of 1 to 2**14 px and at most 2**20 pixels.
        bits: (h, w) bool; True is subject.

    Returns:
        (4,) float64, each 0 to 1, or NaN without enough pixels: 1 - area under the ROC curve of a classifier that tells
        the subject from a ring around it by colour, fitted on half the squares of a checkerboard and tried on the
        others, and the other way round; the same from everything else; the part of the band outside the outline that
        has rather the subject's colour; the part of the band inside that has rather the colour of what is far. Regions
        and constants are in fgfast/ops/reference_contrast.py.
    """
    checks.check_contrast(lab, bits)
    return _resolve()[1].colour_contrast(lab, bits)


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """Cut the subject out of an image, crop it, and put it on a background.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        background: (3,) uint8 colour or (h, w, 3) uint8 image of the window's size. With alpha it is ignored and may
            be None.
        window: x0 y0 x1 y1 of the result, in whole pixels of the image; outside the image there is only background.
            None takes the whole image.
        alpha: return RGBA instead: alpha is 255 on the subject; elsewhere alpha and colour are 0, so that the
            background is removed, not hidden.

    Returns:
        (h, w, 3) uint8 RGB, or (h, w, 4) uint8 RGBA with alpha.
    """
    window = checks.check_composite(pixels, bits, background, window, alpha)
    return _resolve()[1].composite(pixels, bits, background, window, alpha)


def rle_encode(bits: Bool) -> bytes:
    """Encode a mask as a COCO run-length string, byte for byte as pycocotools does.

    Args:
        bits: (H, W) bool. A mask without pixels is b"0": one run of no zeros.

    Returns:
        The compressed alternating runs of 0s and 1s, 0s first, down the columns.
    """
    checks.check_bits(bits)
    return _resolve()[1].rle_encode(bits)


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """Decode a COCO run-length string.

    Args:
        counts: the compressed runs, from any source.
        height: rows of the mask.
        width: columns of the mask.

    Returns:
        (height, width) bool, C-contiguous.

    Raises:
        ValueError: the string is damaged, or its mask has another size.
    """
    checks.check_counts(counts, height, width)
    return _resolve()[1].rle_decode(counts, height, width)


def attends(size: int, bf16: bool = False) -> bool:
    """Return whether a native `attention` for heads of `size` is installed and supported by this processor.

    Where there is none, PyTorch computes attention faster; the NumPy reference is for comparisons only.

    Args:
        size: of a head.
        bf16: in bfloat16, not float32.
    """
    if implementation() != "native":
        return False
    from fgfast.ops import native

    return native.attends(size, bf16)


def bf16_attends_by() -> str:
    """Return what `attention` in bfloat16 multiplies with on this processor: "AMX", "AVX-512 BF16", or ""."""
    if implementation() != "native":
        return ""
    from fgfast.ops import native

    return native.bf16_attends_by()


def attention(
    q: FloatOrBf16,
    k: FloatOrBf16,
    v: FloatOrBf16,
    rel_pos: tuple[Float32, Float32],
    token_at: Int64,
    padding: tuple[FloatOrBf16, FloatOrBf16],
    threads: int = 1,
) -> FloatOrBf16:
    """Compute SAM's attention within square windows of S x S places, with decomposed relative positions.

    In bfloat16, for which NumPy has no dtype, arrays are uint16: the upper halves of float32. The native op then rounds
    tables and weights to it, too, before they are multiplied; all sums are float32.

    Args:
        q: (B, T, H, D) float32 or bfloat16, queries of B images with T tokens and H heads, unscaled.
        k: (B, T, H, D) of q's dtype, keys.
        v: (B, T, H, D) of q's dtype, values.
        rel_pos: for rows and for columns, (2S - 1, D) float32: row "query's - key's + S - 1" is the factor of the query
            for this distance.
        token_at: (W, S * S) int64, the token at each place of each window, by rows; T means padding, which is a key
            but not a query. Every token has exactly one place.
        padding: key and value at places without a token, (H, D) of q's dtype each.
        threads: maximum number of threads; the reference uses one.

    Returns:
        (B, T, H, D) of q's dtype: softmax(q.k / sqrt(D) + q.rel_pos_h + q.rel_pos_w) v over the places of a window.
    """
    checks.check_attention(q, k, v, rel_pos, token_at, padding, threads)
    name, functions = _resolve()
    if name == "native" and not attends(q.shape[3], q.dtype == np.uint16):
        needed = "AVX-512 BF16" if q.dtype == np.uint16 else "AVX-512"
        raise ValueError(f"attention needs {needed} and heads of a multiple of 16, not {q.shape[3]}: see ops.attends")
    return functions.attention(q, k, v, rel_pos, token_at, padding, threads)


def window_attention(qkv: Bf16, bias: Float32, mask: Float32 | None = None, threads: int = 1) -> Bf16:
    """Compute Swin's attention within windows of at most 64 tokens, in bfloat16 (see `attention`).

    Args:
        qkv: (N, T, 3, H, D) bfloat16, queries, unscaled, keys and values of N windows with T tokens and H heads.
        bias: (H, T, T) float32, of each query and key.
        mask: (N, T, T) float32, added as well, or None.
        threads: maximum number of threads; the reference uses one.

    Returns:
        (N, T, H, D) bfloat16: softmax(q.k / sqrt(D) + bias + mask) v.
    """
    checks.check_window_attention(qkv, bias, mask, threads)
    name, functions = _resolve()
    if name == "native" and not attends(qkv.shape[4], bf16=True):
        raise ValueError(
            f"window_attention needs AVX-512 BF16 and heads of a multiple of 16, not {qkv.shape[4]}: see ops.attends"
        )
    return functions.window_attention(qkv, bias, mask, threads)


def mask_parts(bits: Bool) -> tuple[Int64, int]:
    """Measure the parts of a mask, whose pixels touch at sides or corners, and what they enclose.

    Args:
        bits: (H, W) bool of at most 2**30 pixels; True is subject.

    Returns:
        (P,) int64, the pixels of each part, the largest first; and the number of other pixels from which no path by
        sides leads to the border of the image but through the mask.
    """
    checks.check_parts(bits)
    return _resolve()[1].mask_parts(bits)


def mask_post(logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1) -> Masks:
    """Convert SAM's logits to masks at full size, by SAM's own two bilinear steps, and measure each mask.

    The logits are enlarged to the square, cropped to the resized image, and resized to the stored size; both steps are
    without antialiasing (align_corners=False).

    Args:
        logits: (N, M, s, s) float32 over the square.
        size: (H, W) of the stored image, in pixels.
        resized: (h, w) of the resized image, the square's upper left part, in pixels.
        side: of the square, in pixels.
        threads: maximum number of threads; the reference uses one.
    """
    checks.check_mask_post(logits, size, resized, side, threads)
    return _resolve()[1].mask_post(logits, size, resized, side, threads)


def nms(boxes: Float32, scores: Float32, threshold: float, limit: int, classes: Int64 | None = None) -> Int64:
    """Suppress boxes greedily, best score first, until `limit` boxes are kept.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit.
        scores: (N,) float32; of equal scores the earlier comes first, NaN before all.
        threshold: a box is suppressed by a kept one of its class with an IoU above this, 0 to 1; all in float32, each
            operation rounded, as in PyTorch. The IoU of two empty boxes is NaN, which is above no threshold.
        limit: maximum number of boxes to keep.
        classes: (N,) int64; boxes of different classes do not suppress each other. None: one class.

    Returns:
        (K,) int64, K <= limit, the kept boxes in descending order of score.
    """
    checks.check_nms(boxes, scores, threshold, limit, classes)
    return _resolve()[1].nms(boxes, scores, threshold, limit, classes)


def outline_edges(lab: UInt8, bits: Bool, outline: Bool) -> tuple[Int64, Int64, int]:
    """Rank the edges of an image under a mask's outline among those nearby.

    An edge is the strongest within one pixel, by Sobel's kernel on all channels, in quarters of a grey level. Near is
    the square of 31 px around each pixel of the mask.

    Args:
        lab: (h, w, 3) uint8, the smoothed image in OpenCV's Lab of 8 bits, with sides of 1 to 2**14 px and at most
            2**20 pixels.
        bits: (h, w) bool; True is subject.
        outline: (h, w) bool, part of `bits`.

    Returns:
        For each of the N pixels of the outline, row by row: (N,) int64, how many pixels nearby have a weaker edge;
        (N,) int64, how many have none stronger. And the number of pixels nearby.
    """
    checks.check_outline(lab, bits, outline)
    return _resolve()[1].outline_edges(lab, bits, outline)


def resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """Resize an image like the installed Pillow with BILINEAR, which averages where it shrinks.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        size: (h, w) in pixels, at least 1 and at most 2**20 each.
        out: (h, w, 3) uint8 to write into, possibly a part of a larger image, with adjacent pixels contiguous in memory
            and not overlapping `pixels`. None allocates a new one.
        threads: maximum number of threads; the reference uses one.

    Returns:
        (h, w, 3) uint8: `out`, or the new image.
    """
    checks.check_resize(pixels, size, out, threads)
    return _resolve()[1].resize(pixels, size, out, threads)


@cache
def _resolve() -> tuple[ImplementationName, _Implementation]:
    """Choose the implementation at the first call: the reference if fgfast._native is absent; a broken one raises."""
    wanted = os.environ.get("FGFAST_OPS", "")
    if wanted not in ("", "native", "reference"):
        raise UnknownNameError("implementation of the ops (FGFAST_OPS)", wanted, ("native", "reference"))
    if wanted != "reference" and find_spec("fgfast._native"):
        from fgfast.ops import native

        return "native", native
    if wanted == "native":
        raise UsageError(
            "FGFAST_OPS=native, but fgfast._native is not installed: install a C++17 compiler and reinstall "
            "fgfast, or set FGFAST_OPS=reference"
        )
    return "reference", reference
