"""Which messages of CUDA's libraries mean that the process must end, and which that memory was short.

Every library words CUDA's errors its own way, but all of them pass on CUDA's name, number or text of the error:

    fgfast._native    "nms on the GPU: cudaErrorIllegalAddress, an illegal memory access ..." (engine, fgfast/cuda.h)
    PyTorch           "CUDA error: an illegal memory access ..." (c10/cuda/CUDAException.cpp), "CUDA driver error: ..."
    Triton            "Triton Error [CUDA]: an illegal memory access ..." (third_party/nvidia/backend/driver.c)
    ONNX Runtime      "CUDA failure 700: an illegal memory access ..." (core/providers/cuda/cuda_call.cc)
    TensorRT          "Error Code 1: Cuda Runtime (an illegal memory access ...)"
    DALI              "CUDA runtime API error cudaErrorIllegalAddress (700): ..." (include/dali/core/cuda_error.h)
    cuDNN, cuBLAS     "CUDNN_STATUS_EXECUTION_FAILED"

After a fault of a kernel "the process must be terminated and relaunched": every later call returns the same error
(CUDA runtime API, cudaError_t: numbers 226, 700, 702, 710, 714 to 719, 721, 810, 911). Others have the same consequence
(memory or NVLink that is broken, a context that is gone, a recording that was broken off), and CUDA gets new ones. So
every error counts as such that is not one of `REQUESTS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType

# cudaErrorMemoryAllocation.
MEMORY = 2
# Errors that refuse one call and change nothing: the call is wrong, or the GPU, the driver or the compiled code is not
# made for it. A new process would meet them again. Number -> name and text (CUDA runtime 13.0).
REQUESTS = MappingProxyType(
    {
        1: ("cudaErrorInvalidValue", "invalid argument"),
        9: ("cudaErrorInvalidConfiguration", "invalid configuration argument"),
        35: ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"),
        36: ("cudaErrorCallRequiresNewerDriver", "API call is not supported in the installed CUDA driver"),
        98: ("cudaErrorInvalidDeviceFunction", "invalid device function"),
        101: ("cudaErrorInvalidDevice", "invalid device ordinal"),
        200: ("cudaErrorInvalidKernelImage", "device kernel image is invalid"),
        209: ("cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"),
        218: ("cudaErrorInvalidPtx", "a PTX JIT compilation failed"),
        221: ("cudaErrorJitCompilerNotFound", "PTX JIT compiler library not found"),
        222: ("cudaErrorUnsupportedPtxVersion", "the provided PTX was compiled with an unsupported toolchain"),
        223: ("cudaErrorJitCompilationDisabled", "PTX JIT compilation was disabled"),
        400: ("cudaErrorInvalidResourceHandle", "invalid resource handle"),
        500: ("cudaErrorSymbolNotFound", "named symbol not found"),
        701: ("cudaErrorLaunchOutOfResources", "too many resources requested for launch"),
        720: ("cudaErrorCooperativeLaunchTooLarge", "too many blocks in cooperative launch"),
        801: ("cudaErrorNotSupported", "operation not supported"),
        803: ("cudaErrorSystemDriverMismatch", "system has unsupported display driver / cuda driver combination"),
        804: ("cudaErrorCompatNotSupportedOnDevice", "forward compatibility was attempted on non supported HW"),
    }
)

# What the libraries put before CUDA's text.
_BEFORE_TEXT = r"(?:CUDA (?:driver )?error|CUDA failure \d+|Triton Error \[CUDA\]): |Cuda (?:Runtime|Driver) \("
# The text ends there: "operation not supported on global/shared address space" is a fault.
_AFTER_TEXT = r"\.?(?=$|[\s),;])(?! on )"


def _any(words: Iterator[str]) -> str:
    return "|".join(re.escape(word) for word in words)


_REQUEST = re.compile(
    rf"(?:{_BEFORE_TEXT})(?:{_any(text for _, text in REQUESTS.values())}){_AFTER_TEXT}"
    rf"|\b(?:{_any(name for name, _ in REQUESTS.values())})\b"
    # The driver's names of some of them (cuda.h).
    r"|\bCUDA_ERROR_(?:INVALID_VALUE|NO_BINARY_FOR_GPU|INVALID_IMAGE|INVALID_PTX|UNSUPPORTED_PTX_VERSION|NOT_SUPPORTED)\b"
    # With what stands before it: "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED".
    r"|(?:\b(?i:cu\w+) (?:error|failure \d+): )?"
    r"\bCU[A-Z]+_STATUS_(?:NOT_SUPPORTED|BAD_PARAM|INVALID_VALUE|ARCH_MISMATCH)\w*"
)
# PyTorch on CUDA and on the CPU (on Windows "not enough"), ONNX Runtime's arena, the libraries' status codes, TensorRT,
# DALI, C++.
_SHORT = re.compile(
    r"out[ _]of[ _]memory|can't allocate|not enough memory|failed to allocate memory|CUDA allocation failed"
    r"|ALLOC_FAILED|OutOfMemory|cudaErrorMemoryAllocation|bad_alloc",
    re.IGNORECASE,
)
# PyTorch adds advice on "device-side assertions" to every error; an error without a name is "unrecognized".
_CUDA = re.compile(
    rf"{_BEFORE_TEXT}|CUDA (?:error|failure|driver error)|\bcudaError[A-Z]|\bCUDA_ERROR_|device-side assert triggered"
    r"|unrecognized error code"
    r"|\bcu(?:DNN|BLAS|SOLVER)|CUDNN|CUBLAS"
)


def is_short(message: str, number: int | None = None) -> bool:
    """Return whether a message says that memory was short.

    Args:
        message: of any library.
        number: CUDA's number of the error, where the exception has it.
    """
    return number == MEMORY or bool(_SHORT.search(message))


def is_fatal(message: str, number: int | None = None) -> bool:
    """Return whether a message speaks of an error of CUDA after which the process must end; see `is_short`."""
    if number is not None:
        return number not in REQUESTS
    return bool(_CUDA.search(_REQUEST.sub("", message)))
