"""The operations on a GPU: thin faces over fgfast._native for arrays that already lie there.

They take whatever speaks DLPack (PyTorch, CuPy), row-major and all on one device, and write into arrays that the caller
has made. Nothing is copied, nothing waits: the work goes into `stream`, a cudaStream_t as a number (0: the default
one), and what it reads and writes must live until it has been done there. The native module checks shapes, dtypes and
devices. Results are those of fgfast.ops.reference, to the bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

# An array on a GPU, of any library. Not Protocol: what nanobind asks of it is its own affair.
DeviceArray = Any


def available() -> bool:
    """Whether fgfast._native is there and was built with CUDA (FGFAST_CUDA in CMakeLists.txt); asks for no GPU."""
    if not find_spec("fgfast._native"):
        return False
    from fgfast import _native

    return _native.has_cuda()


def mask_post(
    logits: DeviceArray, resized: tuple[int, int], side: int, bits: DeviceArray, facts: DeviceArray, stream: int = 0
) -> None:
    """As fgfast.ops.reference.mask_post.

    Args:
        logits: (N, s, s) float32 over the square.
        resized: (h, w) of the resized image, in pixels.
        side: of the square, in pixels.
        bits: (N, H, W) bool, written: the masks.
        facts: (N, 7) int64, written: the tight box x0 y0 x1 y1 in pixels, or zeros; pixels above 0, above +1, above -1.
        stream: a cudaStream_t.

    Raises:
        ValueError: sizes or devices do not fit, or the module was built without CUDA.
        TypeError: an argument is not such an array.
        RuntimeError: CUDA's own error.
    """
    from fgfast import _native

    _native.mask_post(logits, side, *resized, bits, facts, 1, stream)


def nms(
    boxes: DeviceArray,
    order: DeviceArray,
    classes: DeviceArray,
    threshold: float,
    workspace: DeviceArray,
    kept: DeviceArray,
    kept_count: DeviceArray,
    stream: int = 0,
) -> None:
    """As fgfast.ops.reference.nms, given the order.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit; N at most 393216.
        order: (N,) int64, each box once, best first.
        classes: (N,) int64; all the same: boxes are of one class.
        threshold: IoU above which a kept box suppresses another of its class.
        workspace: (N, (N + 63) // 64) int64, of any content.
        kept: (K,) int64, written: the kept boxes, best first; K is the limit, at most N.
        kept_count: (1,) int64, written: how many they are.
        stream: a cudaStream_t.

    Raises:
        As mask_post.
    """
    from fgfast import _native

    _native.nms_ordered(boxes, order, classes, threshold, workspace, kept, kept_count, stream)


def composite(
    pixels: DeviceArray,
    bits: DeviceArray,
    background: DeviceArray | None,
    corner: tuple[int, int],
    out: DeviceArray,
    stream: int = 0,
) -> None:
    """As fgfast.ops.reference.composite.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        background: (1, w, 3) uint8, one row for all, or (h, w, 3); None: RGBA.
        corner: x0 y0 of the window, in pixels of the image; its size is that of `out`.
        out: (h, w, 3) uint8, or (h, w, 4) without background, written.
        stream: a cudaStream_t.

    Raises:
        As mask_post.
    """
    from fgfast import _native

    if background is None:
        _native.composite_alpha(pixels, bits, *corner, out, stream)
    else:
        _native.composite(pixels, bits, background, *corner, out, stream)
