"""What CUDA's libraries say, and whether the process must end: their formats, with CUDA's own names and texts."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast.backends.cuda_errors import MEMORY, REQUESTS  # noqa: E402
from fgfast.backends.slots import failure_of  # noqa: E402
from fgfast.errors import DeviceFailedError, DeviceMemoryError, GraphError  # noqa: E402

# Of these the documentation of cudaError_t (CUDA 13.0) says that "the process must be terminated and relaunched".
STICKY = (226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911)
# After these it must, too: memory or links that are broken, a device or context that is gone, an unknown error, a
# recording that was broken off in the middle of a run, and an error that this CUDA does not know.
AS_STICKY = (3, 46, 100, 127, 201, 214, 220, 709, 805, 806, 807, 900, 901, 999, 9999)

# Where cudart comes from: CUDA's toolkit, its wheels, or torchvision's, which brings it along.
_SITE = Path(torch.__file__).parents[1]
CUDART = [
    *Path("/usr/local").glob("cuda*/lib*/libcudart.so*"),
    *_SITE.glob("nvidia/*/lib/libcudart.so*"),
    *_SITE.glob("torchvision.libs/libcudart*"),
]


@pytest.fixture(scope="module")
def cudart() -> ctypes.CDLL:
    for path in CUDART:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        library.cudaGetErrorName.restype = library.cudaGetErrorString.restype = ctypes.c_char_p
        return library
    pytest.skip("there is no libcudart")


def said(cudart: ctypes.CDLL, number: int) -> list[Exception]:
    """Return one error as each library words it; the formats' sources are listed in fgfast.backends.cuda_errors."""
    name, text = (function(number).decode() for function in (cudart.cudaGetErrorName, cudart.cudaGetErrorString))
    advice = (
        "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might "
        "be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to "
        "enable device-side assertions.\n"
    )
    by_name = f"\nSearch for `{name}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html"
    found: list[Exception] = [
        RuntimeError(f"nms on the GPU: {name}, {text}"),
        RuntimeError(f"CUDA error: {text}{advice}"),
        RuntimeError(f"CUDA error: {text}{by_name} for more information.{advice}"),
        RuntimeError(f"CUDA driver error: {text}"),
        RuntimeError(f"Triton Error [CUDA]: {text}"),
        RuntimeError(f"CUDA failure {number}: {text} ; GPU=0 ; hostname=h ; file=x.cc ; line=3 ; expr=f(a);"),
        RuntimeError(f"CUDA runtime API error {name} ({number}):\n{text}"),
        GraphError(f"sam_image_encoder: TensorRT cannot run: Error Code 1: Cuda Runtime ({text})"),
    ]
    if hasattr(torch, "AcceleratorError"):
        found.append(torch.AcceleratorError(f"CUDA error: {text}{advice}"))
        found[-1].error_code = number  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("number", STICKY + AS_STICKY)
def test_the_process_must_end(cudart: ctypes.CDLL, number: int) -> None:
    for error in said(cudart, number):
        assert failure_of(error) is DeviceFailedError, error


def test_memory(cudart: ctypes.CDLL) -> None:
    for error in said(cudart, MEMORY):
        assert failure_of(error) is DeviceMemoryError, error


@pytest.mark.parametrize("number", REQUESTS)
def test_a_refused_call_is_no_failure(cudart: ctypes.CDLL, number: int) -> None:
    """A new process would meet the same: no kernel for this GPU, a wrong argument, a driver that is too old."""
    for error in said(cudart, number):
        assert failure_of(error) is None, error


@pytest.mark.parametrize("number", REQUESTS)
def test_the_table_is_cudas(cudart: ctypes.CDLL, number: int) -> None:
    name, text = REQUESTS[number]
    assert cudart.cudaGetErrorName(number).decode() == name
    assert cudart.cudaGetErrorString(number).decode().rstrip(".") == text


@pytest.mark.parametrize(
    "message",
    [
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
        "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=h",
        "CUDA driver API error CUDA_ERROR_ILLEGAL_ADDRESS (700):\nan illegal memory access was encountered",
        "CUDA error: invalid argument; CUDA error: unspecified launch failure",
    ],
)
def test_other_words_for_a_failure(message: str) -> None:
    assert failure_of(RuntimeError(message)) is DeviceFailedError


@pytest.mark.parametrize(
    "message",
    [
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
        "cuDNN error: CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH",
        "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling the multiplication",
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0 ; hostname=h",
        "CUDA driver API error CUDA_ERROR_NO_BINARY_FOR_GPU (209):\nno kernel image is available for execution",
    ],
)
def test_other_words_for_a_refused_call(message: str) -> None:
    assert failure_of(RuntimeError(message)) is None


@pytest.mark.parametrize(
    "message",
    ["CUDA_ERROR_OUT_OF_MEMORY", "Can't allocate 1073741824 bytes on device 0.", "CUDA allocation failed"],
)
def test_other_words_for_a_lack_of_memory(message: str) -> None:
    assert failure_of(RuntimeError(message)) is DeviceMemoryError
