"""Image operations, done by the native engine where it is installed, else by the NumPy reference.

Both give the same bytes. `engine()` says which one works; FGFAST_OPS=native or =reference forces one. Attention is here
as well, for processors where the native engine has it faster than any library: see `attends`.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import UnknownNameError, UsageError
from fgfast.ops.reference import Window
from fgfast.ops.reference_masks import Masks
from fgfast.records import Bool, Float32, UInt8

__all__ = [
    "Masks",
    "Window",
    "attends",
    "attention",
    "composite",
    "engine",
    "mask_post",
    "nms",
    "resize",
    "rle_decode",
    "rle_encode",
]

EngineName = Literal["native", "reference"]


class _Engine(Protocol):
    def composite(
        self,
        pixels: UInt8,
        bits: Bool,
        background: UInt8 | None,
        window: Window | None = None,
        alpha: bool = False,
    ) -> UInt8: ...

    def rle_encode(self, bits: Bool) -> bytes: ...

    def rle_decode(self, counts: bytes, height: int, width: int) -> Bool: ...

    def attention(
        self,
        q: Float32,
        k: Float32,
        v: Float32,
        rel_pos: tuple[Float32, Float32],
        token_at: NDArray[np.int64],
        padding: tuple[Float32, Float32],
        threads: int = 1,
    ) -> Float32: ...

    def mask_post(
        self, logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1
    ) -> Masks: ...

    def nms(
        self,
        boxes: Float32,
        scores: Float32,
        threshold: float,
        limit: int,
        classes: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]: ...

    def resize(self, pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8: ...


def engine() -> EngineName:
    """Which engine does the work in this process. It is printed and stands in run.json."""
    return _resolve()[0]


def composite(
    pixels: UInt8, bits: Bool, background: UInt8 | None, window: Window | None = None, alpha: bool = False
) -> UInt8:
    """Cut the subject out, crop it, put it on a background; see fgfast.ops.reference.composite.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        background: (3,) uint8 colour or (h, w, 3) uint8 image of the window's size; ignored with alpha.
        window: x0 y0 x1 y1 in whole pixels of the image; may reach outside it.
        alpha: RGBA, all zeros where there is no subject.

    Returns:
        (h, w, 3) uint8, or (h, w, 4) with alpha.
    """
    return _resolve()[1].composite(pixels, bits, background, window, alpha)


def rle_encode(bits: Bool) -> bytes:
    """The mask (H, W) bool as COCO run-length string; see fgfast.ops.reference.rle_encode."""
    return _resolve()[1].rle_encode(bits)


def rle_decode(counts: bytes, height: int, width: int) -> Bool:
    """The (height, width) bool mask of a COCO run-length string; see fgfast.ops.reference.rle_decode."""
    return _resolve()[1].rle_decode(counts, height, width)


def attends(size: int) -> bool:
    """Whether `attention` with heads of `size` is done by a native op here, made for this processor.

    Where not, PyTorch is the faster way of computing it, and the NumPy reference only there to compare with.
    """
    if engine() != "native":
        return False
    from fgfast.ops import native

    return native.attends(size)


def attention(
    q: Float32,
    k: Float32,
    v: Float32,
    rel_pos: tuple[Float32, Float32],
    token_at: NDArray[np.int64],
    padding: tuple[Float32, Float32],
    threads: int = 1,
) -> Float32:
    """Attention (B, T, H, D) within square windows, with relative positions; see fgfast.ops.reference.attention."""
    return _resolve()[1].attention(q, k, v, rel_pos, token_at, padding, threads)


def mask_post(logits: Float32, size: tuple[int, int], resized: tuple[int, int], side: int, threads: int = 1) -> Masks:
    """SAM's logits (N, M, s, s) as masks of `size` (H, W), and facts about them; see fgfast.ops.reference.mask_post."""
    return _resolve()[1].mask_post(logits, size, resized, side, threads)


def nms(
    boxes: Float32, scores: Float32, threshold: float, limit: int, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Which of the boxes (N, 4) survive greedy suppression, best first: (K,); see fgfast.ops.reference.nms."""
    return _resolve()[1].nms(boxes, scores, threshold, limit, classes)


def resize(pixels: UInt8, size: tuple[int, int], out: UInt8 | None = None, threads: int = 1) -> UInt8:
    """An image (H, W, 3) resized to (h, w) as by Pillow's BILINEAR; see fgfast.ops.reference.resize."""
    return _resolve()[1].resize(pixels, size, out, threads)


@cache
def _resolve() -> tuple[EngineName, _Engine]:
    """Choose the engine at the first call. An absent module means the reference; a broken one is an error."""
    wanted = os.environ.get("FGFAST_OPS", "")
    if wanted not in ("", "native", "reference"):
        raise UnknownNameError("ops engine (FGFAST_OPS)", wanted, ("native", "reference"))
    if wanted != "reference" and find_spec("fgfast._native"):
        from fgfast.ops import native

        return "native", native
    if wanted == "native":
        raise UsageError(
            "FGFAST_OPS=native, but fgfast._native is not installed: install a C++17 compiler and reinstall "
            "fgfast, or set FGFAST_OPS=reference"
        )
    from fgfast.ops import reference

    return "reference", reference
