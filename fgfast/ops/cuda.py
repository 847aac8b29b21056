"""The ops on a GPU, for arrays that already lie there: thin wrappers of fgfast._native.

They take arrays of any library with DLPack (PyTorch, CuPy), row-major and all on one device, and write into arrays that
the caller has made. Nothing is copied and nothing waits: the work is queued on `stream`, a cudaStream_t as a number
(0 is the default stream), and the arrays must live until it is done. The native module checks shapes, dtypes and
devices. Results are those of fgfast.ops, to the bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

# An array on a GPU, of any library; nanobind decides what it accepts.
DeviceArray = Any


def available() -> bool:
    """Whether fgfast._native is installed and was built with CUDA (FGFAST_CUDA in CMakeLists.txt), GPU or not."""
    if not find_spec("fgfast._native"):
        return False
    from fgfast import _native

    return _native.has_cuda()


def mask_post(
    logits: DeviceArray, resized: tuple[int, int], side: int, bits: DeviceArray, facts: DeviceArray, stream: int = 0
) -> None:
    """Turn logits into masks and facts, as fgfast.ops.mask_post does.

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
        RuntimeError: CUDA reports an error.
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
    """Suppress boxes as fgfast.ops.nms does, in an order that is given.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit; N at most 393216.
        order: (N,) int64, each box once, best first.
        classes: (N,) int64; boxes of different classes do not suppress each other.
        threshold: IoU above which a kept box suppresses another of its class.
        workspace: (N, (N + 63) // 64) int64, of any content.
        kept: (K,) int64, written: the kept boxes, best first; K is the limit, at most N.
        kept_count: (1,) int64, written: the number of kept boxes.
        stream: a cudaStream_t.

    Raises:
        The errors of mask_post.
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
    """Put the subject on a background, as fgfast.ops.composite does.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        bits: (H, W) bool; True is subject.
        background: (1, w, 3) uint8, one row for all rows, or (h, w, 3); None makes RGBA.
        corner: x0 y0 of the window, in pixels of the image; its size is that of `out`.
        out: (h, w, 3) uint8, or (h, w, 4) without background, written.
        stream: a cudaStream_t.

    Raises:
        The errors of mask_post.
    """
    from fgfast import _native

    if background is None:
        _native.composite_alpha(pixels, bits, *corner, out, stream)
    else:
        _native.composite(pixels, bits, background, *corner, out, stream)
