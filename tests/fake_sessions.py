"""Ways of computing a model that test_speed tries, in this process or in one of its own."""

import ctypes
from typing import Any

import torch

from fgfast.errors import UsageError
from fgfast.models.sam import sessions

timed = sessions.timed


def crashes(spec: Any) -> Any:
    ctypes.string_at(0)


def has_no_kernel(spec: Any) -> Any:
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def lacks_memory(spec: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def is_mistyped(spec: Any) -> Any:
    return spec.precison


def is_refused(spec: Any) -> Any:
    raise UsageError("ONNX Runtime has CUDAExecutionProvider but could not start it")
