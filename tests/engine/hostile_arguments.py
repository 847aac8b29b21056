"""Right arguments for bindings, and what makes them wrong: for hypothesis, without a rule about what any op allows."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

SIDES = st.sampled_from([0, 1, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 70])
SEEDS = st.integers(0, 2**32 - 1)
FLOATS = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1, 0.5, 3e38, -3e38], np.float32)
INTS = np.array([0, 1, -1, 2, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63)], np.int64)
NUMBERS = (
    *(-1, 0, 1, 2, 16, 1000, 2**20, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64),
    *(-(2**31), -(2**63), -(2**63) - 1, 10**30, True, False, 1.0, 0.5, -0.5, 1e300, float("nan"), float("inf"), 1j),
    *(np.int64(3), np.float32(0.5), np.array(2), None, "1", b"1", [1], object()),
)
NO_ARRAYS = (None, 0, 2**64, 0.5, "pixels", b"pixels", bytearray(9), [[0, 1]], (), object(), np.uint8(3), np.uint8)
DTYPES = (np.uint8, np.int8, np.bool_, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64, np.complex64)
OTHER_DTYPES = ("O", "S3", "M8[s]", "i8,f4", ">f4", ">i8", "V7")


class OnGpu:
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


def content(shape: tuple[int, ...], dtype: Any, seed: int, hostile: bool = False) -> Any:
    """An array of its own, which ends where its memory ends."""
    rng = np.random.default_rng(seed)
    if dtype in (np.float32, np.float64):
        made = 4 * rng.standard_normal(shape, dtype)
        return np.where(rng.random(shape) < 0.3, rng.choice(FLOATS, shape), made) if hostile else made
    if dtype == np.bool_:
        bits = rng.random(shape) < rng.choice([0, 0.03, 0.5, 0.97, 1])
        return rng.integers(0, 256, shape, np.uint8).view(np.bool_) if hostile else bits
    made = rng.integers(0, 256 if dtype == np.uint8 else 4, shape, dtype)
    return np.where(rng.random(shape) < 0.3, rng.choice(INTS, shape), made) if hostile and dtype == np.int64 else made


def _misaligned(array: Any, rng: Any) -> Any:
    space = np.zeros(array.nbytes + 8, np.uint8)
    offset = int(rng.integers(1, 8))
    made = space[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def _stretched(array: Any, rng: Any) -> Any:
    axis = int(rng.integers(array.ndim))
    picked = tuple(slice(None, None, 2) if n == axis else slice(None) for n in range(array.ndim))
    return np.repeat(array, 2, axis)[picked]


def _turned(array: Any, rng: Any) -> Any:
    return np.flip(array, int(rng.integers(array.ndim)))


def _spread(array: Any, rng: Any) -> Any:
    """Strides of 0: one element, or one row, that looks like many."""
    return np.broadcast_to(array.ravel()[:1].reshape(()) if array.size else np.zeros((), array.dtype), array.shape)


def _resized(array: Any, rng: Any) -> Any:
    axis, by = int(rng.integers(array.ndim)), int(rng.choice([-1, 1, 7]))
    shape = [max(0, length + by) if n == axis else length for n, length in enumerate(array.shape)]
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def _huge(array: Any, rng: Any) -> Any:
    """No elements, but very many rows of none; or very many that are the same one."""
    axis = int(rng.integers(array.ndim))
    most = int(rng.choice([2**31, 2**40]))
    if array.ndim > 1 and rng.random() < 0.5:
        empty = int(rng.choice([n for n in range(array.ndim) if n != axis]))
        return np.empty([most if n == axis else 0 if n == empty else x for n, x in enumerate(array.shape)], array.dtype)
    shape = [most if n == axis else max(x, 1) for n, x in enumerate(array.shape)]
    return np.broadcast_to(np.zeros((), array.dtype), shape)


def _read_only(array: Any, rng: Any) -> Any:
    made = array.copy()
    made.flags.writeable = False
    return made


def _other_dtype(array: Any, rng: Any) -> Any:
    if rng.random() < 0.5:
        return np.zeros(array.shape, rng.choice(OTHER_DTYPES))
    with np.errstate(all="ignore"):
        return array.astype(DTYPES[rng.integers(len(DTYPES))])


def _other_axes(array: Any, rng: Any) -> Any:
    return array[None] if rng.random() < 0.4 else array[..., None] if rng.random() < 0.5 else array.reshape(-1)


SPOIL: tuple[Callable[[Any, Any], Any], ...] = (
    _misaligned,
    _stretched,
    _turned,
    _spread,
    _resized,
    _resized,
    _huge,
    _read_only,
    _other_dtype,
    _other_axes,
    lambda array, rng: np.asfortranarray(array),
    lambda array, rng: content(array.shape, array.dtype, int(rng.integers(2**32)), hostile=True),
    lambda array, rng: OnGpu(array),
    lambda array, rng: NO_ARRAYS[rng.integers(len(NO_ARRAYS))],
)


def _sharing(given: dict[str, Any], name: str, rng: Any) -> Any:
    """The argument in the memory of another one, or of both: as many bytes, from any byte of it on."""
    array = given[name]
    others = [other for key, other in given.items() if key != name and isinstance(other, np.ndarray)]
    others = [other for other in others if 0 < other.nbytes < 10**6]  # not one element that looks like 2**40
    if not others or not array.nbytes:
        return array
    other = others[rng.integers(len(others))]
    space = np.zeros(array.nbytes + other.nbytes, np.uint8)
    for key, value in given.items():
        if value is other:
            given[key] = space[: other.nbytes].view(other.dtype).reshape(other.shape)
            given[key][...] = other
    item = array.dtype.itemsize
    start = int(rng.integers(0, other.nbytes + 1)) // item * item
    return space[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def spoil(given: dict[str, Any], name: str, seed: int) -> None:
    """Replace an argument by something similar that may be wrong."""
    rng = np.random.default_rng(seed)
    value = given[name]
    if isinstance(value, bytes):
        text = bytearray(value)
        for _ in range(int(rng.integers(1, 4))):
            text.insert(int(rng.integers(len(text) + 1)), int(rng.choice([0, 47, 48, 63, 64, 95, 111, 112, 255])))
        given[name] = rng.choice(np.array([bytes(text), bytes(text[::2]), "12", bytearray(text), None], object))
    elif isinstance(value, np.ndarray) and value.ndim:
        choice = int(rng.integers(len(SPOIL) + 2))
        given[name] = SPOIL[choice](value, rng) if choice < len(SPOIL) else _sharing(given, name, rng)
    else:
        given[name] = NUMBERS[rng.integers(len(NUMBERS))]
