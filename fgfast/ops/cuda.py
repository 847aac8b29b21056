"""Ops on a GPU: a thin wrapper of fgfast._native.

It takes arrays of any library with DLPack (PyTorch, CuPy), row-major and all on one device, and writes into arrays of
the caller. Nothing is copied and nothing waits: the work is queued on a stream, and the arrays must live until it is
done. The native module checks shapes, dtypes, strides, devices, and that what is written shares no memory with what is
read. Results equal those of fgfast.ops to the bit.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

# An array of any library on a GPU; nanobind checks it.
DeviceArray = Any


def built() -> bool:
    """Return whether fgfast._native is installed and built with CUDA (FGFAST_CUDA in CMakeLists.txt), GPU or not."""
    if not find_spec("fgfast._native"):
        return False
    from fgfast import _native

    return _native.has_cuda()


def available(device: int) -> bool:
    """Return whether the ops run on a GPU; see `refusal`."""
    return not refusal(device)


def refusal(device: int) -> str:
    """Ask CUDA to load the ops' code for a GPU; nothing is launched, and no CUDA error stays behind.

    Args:
        device: CUDA's number of the GPU.

    Returns:
        The reason why the ops do not run there, such as "cudaErrorNoKernelImageForDevice, no kernel image is available
        for execution on the device" on a GPU that the module was not compiled for; empty where they run.
    """
    if not find_spec("fgfast._native"):
        return "fgfast._native is not installed"
    from fgfast import _native

    return str(_native.cuda_refusal(device))


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
    """Suppress boxes as fgfast.ops.nms does, in a given order.

    Args:
        boxes: (N, 4) float32, x0 y0 x1 y1, any unit; N at most 393216.
        order: (N,) int64, each box once, best first.
        classes: (N,) int64; boxes of different classes do not suppress each other.
        threshold: IoU above which a kept box suppresses another of its class, 0 to 1.
        workspace: (N, (N + 63) // 64) int64, of any content.
        kept: (K,) int64, written: the kept boxes, best first; K is the limit, at most N.
        kept_count: (1,) int64, written: the number of kept boxes; -1 if a GPU finds another number in `order` than
            0 to N - 1: then no box was kept.
        stream: a cudaStream_t as a number; 0 is the default stream.

    Raises:
        ValueError: sizes or devices do not match, arrays share memory, `order` (on the CPU) holds another number than 0
            to N - 1, or the module was built without CUDA.
        TypeError: an argument is not such an array.
        RuntimeError: CUDA reports an error.
    """
    from fgfast import _native

    _native.nms_ordered(boxes, order, classes, threshold, workspace, kept, kept_count, stream)
