"""The ops on each device, against their oracles: one body over device, dtype and tolerance.

On a machine without GPU, or without CUDA in the native module, the rows for "cuda" skip; the others call the same entry
points with arrays on the CPU.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from fgfast.ops import cuda, reference

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not find_spec("fgfast._native"), reason="fgfast._native not installed")


def _why_not_cuda() -> str:
    return cuda.refusal(0) if torch.cuda.is_available() else "no GPU, or a PyTorch without CUDA"


on_cuda = pytest.param("cuda", marks=pytest.mark.skipif(bool(_why_not_cuda()), reason=_why_not_cuda()))
# Device, dtype of what is computed with, how far results may be off: not at all, on any device.
DEVICES = pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [("cpu", torch.float32, 0.0), pytest.param("cuda", torch.float32, 0.0, marks=on_cuda.marks)],
)
BYTES = pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [("cpu", torch.uint8, 0.0), pytest.param("cuda", torch.uint8, 0.0, marks=on_cuda.marks)],
)


def native() -> Any:
    return importlib.import_module("fgfast._native")


def stream_of(device: str) -> int:
    return int(torch.cuda.current_stream().cuda_stream) if device == "cuda" else 0


def assert_close(made: Any, wanted: Any, tolerance: float) -> None:
    made = made.cpu().numpy()
    assert made.shape == wanted.shape
    np.testing.assert_allclose(made.astype(np.float64), wanted.astype(np.float64), rtol=0, atol=tolerance)


@DEVICES
@pytest.mark.parametrize("size", [(375, 500), (31, 200), (1, 33), (700, 9)])
def test_mask_post(device: str, dtype: Any, tolerance: float, size: tuple[int, int]) -> None:
    logits = 4 * np.random.default_rng(0).standard_normal((3, 1, 64, 64), np.float32)
    logits[1] = -9
    scale = 256 / max(size)
    resized = int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)
    bits = torch.zeros(3, *size, dtype=torch.bool, device=device)
    facts = torch.full((3, 7), -1, dtype=torch.int64, device=device)
    given = torch.from_numpy(logits[:, 0]).to(device, dtype)
    native().mask_post(given, 256, *resized, bits, facts, 1, stream_of(device))
    wanted = reference.mask_post(logits, size, resized, 256)
    assert_close(bits, wanted.bits[:, 0], tolerance)
    assert_close(facts[:, :4], wanted.boxes[:, 0], tolerance)
    assert_close(facts[:, 4], wanted.areas[:, 0], tolerance)
    stability = (facts[:, 5] / facts[:, 6]).cpu().numpy()
    np.testing.assert_allclose(stability, wanted.stability[:, 0], rtol=0, atol=tolerance)


@DEVICES
@pytest.mark.parametrize("count", [0, 1, 64, 65, 700])
@pytest.mark.parametrize("limit", [0, 20, 700])
def test_nms(device: str, dtype: Any, tolerance: float, count: int, limit: int) -> None:
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 60, (count, 2)) / 2
    boxes = np.concatenate([corners, corners + rng.integers(0, 40, (count, 2)) / 2], 1).astype(np.float32)
    scores, classes = rng.random(count, np.float32), rng.integers(0, 3, count)
    order = torch.from_numpy(scores).sort(descending=True, stable=True).indices
    on_device = [array.to(device) for array in (torch.from_numpy(boxes).to(dtype), order, torch.from_numpy(classes))]
    workspace = torch.full((count, (count + 63) // 64), -1, dtype=torch.int64, device=device)
    kept = torch.zeros(min(limit, count), dtype=torch.int64, device=device)
    kept_count = torch.zeros(1, dtype=torch.int64, device=device)
    cuda.nms(*on_device, 0.5, workspace, kept, kept_count, stream_of(device))
    wanted = reference.nms(boxes, scores, 0.5, limit, classes)
    assert_close(kept[: int(kept_count)], wanted, tolerance)


@BYTES
@pytest.mark.parametrize("window", [(0, 0, 31, 23), (3, 2, 20, 17), (-4, -5, 40, 50), (100, 0, 110, 4), (5, 5, 5, 9)])
@pytest.mark.parametrize("ground", ["colour", "image", "none"])
def test_composite(device: str, dtype: Any, tolerance: float, window: Any, ground: str) -> None:
    rng = np.random.default_rng(0)
    pixels, bits = rng.integers(0, 256, (23, 31, 3), np.uint8), rng.random((23, 31)) < 0.5
    height, width = window[3] - window[1], window[2] - window[0]
    background = rng.integers(0, 256, (1 if ground == "colour" else height, width, 3), np.uint8)
    out = torch.zeros(height, width, 4 if ground == "none" else 3, dtype=dtype, device=device)
    given = [torch.from_numpy(array).to(device) for array in (pixels, bits, background)]
    if ground == "none":
        native().composite_alpha(*given[:2], *window[:2], out, stream_of(device))
    else:
        native().composite(*given, *window[:2], out, stream_of(device))
    whole = np.broadcast_to(background, (height, width, 3))
    assert_close(out, reference.composite(pixels, bits, whole, window, ground == "none"), tolerance)


class Pretended:
    """A NumPy array that says it lies on the first GPU; nothing may read it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # DLManagedTensor begins with the data's address and the device's type; 2 is kDLCUDA (dmlc/dlpack, dlpack.h).
        ctypes.c_int32.from_address(pointer(capsule, b"dltensor") + 8).value = 2
        return capsule


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_said() -> None:
    """A module without CUDA refuses arrays on a GPU; one with CUDA hands on what CUDA says."""
    arrays = [np.zeros((1, 8, 8), np.float32), np.zeros((1, 4, 4), np.bool_), np.zeros((1, 7), np.int64)]
    logits, bits, facts = map(Pretended, arrays)
    error, words = (RuntimeError, "cudaError") if cuda.built() else (ValueError, "built without CUDA")
    with pytest.raises(error, match=words):
        native().mask_post(logits, 8, 8, 8, bits, facts)
    with pytest.raises(ValueError, match="bits must be on the same device as logits"):
        native().mask_post(logits, 8, 8, 8, arrays[1], arrays[2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_ops_are_refused_with_the_reason() -> None:
    assert re.search(r"cudaError\w+, ." if cuda.built() else "built without CUDA", cuda.refusal(0))
    assert not cuda.available(0)
    with pytest.raises(ValueError, match="device must be 0 to 2147483647, not -1"):
        cuda.refusal(-1)


def test_arrays_on_no_known_device_are_refused() -> None:
    nowhere = torch.zeros(1, 8, 8, device="meta")
    with pytest.raises(TypeError, match="logits must be an array of float32 that DLPack"):
        native().mask_post(nowhere, 8, 8, 8, np.zeros((1, 4, 4), np.bool_), np.zeros((1, 7), np.int64))
