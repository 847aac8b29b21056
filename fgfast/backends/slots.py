"""Slots: the buffers of one batch on its way through a device, the stream that computes it, and a device's failures."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fgfast.errors import DeviceFailedError, DeviceMemoryError, FgfastError, GraphError
from fgfast.graphs import Port

# What says that memory is short: PyTorch on CUDA and on the CPU (on Windows as "not enough"), ONNX Runtime's arena, the
# libraries' status codes, TensorRT, C++.
_SHORT = re.compile(
    r"out of memory|can't allocate memory|not enough memory|failed to allocate memory"
    r"|ALLOC_FAILED|OutOfMemory|bad_alloc",
    re.IGNORECASE,
)
# What says that the device does not work any more: PyTorch and ONNX Runtime ("CUDA failure 700: ..."), TensorRT ("Cuda
# Runtime (...)"), the libraries.
_BROKEN = re.compile(
    r"CUDA (error|failure|driver error)|Cuda (Runtime|Driver) \(|device-side assert|\bcu(DNN|BLAS|SOLVER)|CUDNN|CUBLAS",
)
# cudaErrorMemoryAllocation (CUDA runtime API, cudaError_t).
_MEMORY_ALLOCATION = 2
# Characters of a device's own words that are passed on; some come with a page of advice.
_LONGEST = 300


class ComputeStream:
    """The stream on which a model's batches are computed, one after another; on the CPU, the calling thread.

    On a GPU it is one stream, whatever slot a batch lies in; its upload and its download are on the slot's own stream
    and go on beside other batches' computing. Events put the three in order. So no two batches are in a session at a
    time, which matters because a CUDA graph works on the same addresses at every replay. And PyTorch's allocator, which
    keeps what was freed for the stream that it was made on, holds the working memory of one batch and not of each slot.

    Args:
        device: "cpu" or "cuda:N".

    Attributes:
        stream: to compute on; None on the CPU.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Work inside is queued on the stream; what fails is told apart as by `translated`."""
        with translated(self.device), torch.cuda.stream(self.stream):
            yield

    def synchronize(self) -> None:
        """Return when everything queued on the stream is done."""
        if self.stream is not None:
            with translated(self.device):
                self.stream.synchronize()


class Slot:
    """The buffers of one batch, allocated once and used again and again.

    A batch is filled into `host`, `upload`ed, computed on its model's stream, `download`ed, waited for, and read from
    `results`.
    Nothing but `wait` waits. Between `upload` and the end of `wait` the slot belongs to the device.

    Args:
        ports: inputs of sessions, whose first size is that of the batch.
        sizes: the ports' free sizes.
        compute: the stream that computes it.

    Attributes:
        capacity: rows.
        host: input -> (capacity, ...), to be filled; pinned where the device is a GPU.
        results: output -> (N, ...) on the host, of the last batch; good after `wait` and until the next `upload`.
        stream: of the copies; None on the CPU.
        event: comes when the results are there; None on the CPU.

    Raises:
        DeviceMemoryError: there is not enough memory.
    """

    def __init__(self, ports: Sequence[Port], sizes: Mapping[str, int], compute: ComputeStream) -> None:
        shapes = {port.name: [sizes[d] if isinstance(d, str) else d for d in port.shape] for port in ports}
        dtypes = {port.name: getattr(torch, port.dtype) for port in ports}
        capacities = {shape[0] for shape in shapes.values()}
        if len(capacities) != 1:
            raise GraphError(f"the buffers of a slot must have the same number of rows, not {shapes}")
        (self.capacity,) = capacities
        self.compute, gpu = compute, compute.stream is not None
        self.results: dict[str, Tensor] = {}
        self._landing: dict[str, Tensor] = {}
        self._computed: tuple[Tensor, ...] = ()
        # Pinned memory belongs to a device's context; without `device` that of cuda:0 would be made for it.
        with translated(compute.device), torch.cuda.device(compute.device if gpu else -1):
            self.host = {n: torch.zeros(s, dtype=dtypes[n], pin_memory=gpu) for n, s in shapes.items()}
            self.stream = torch.cuda.Stream(compute.device) if gpu else None
            # Blocking: whoever waits sleeps, and leaves its core to those who fill other slots.
            self.event = torch.cuda.Event(blocking=True) if gpu else None
            self._there = self._on_device() if gpu else self.host

    def _on_device(self) -> dict[str, Tensor]:
        with torch.cuda.stream(self.stream):
            there = {name: torch.empty_like(buffer, device=self.compute.device) for name, buffer in self.host.items()}
        for buffer in there.values():
            # Made for the slot's stream, read on the other: should the slot go away meanwhile, its memory stays.
            buffer.record_stream(self.compute.stream)
        return there

    def upload(self, rows: int) -> dict[str, Tensor]:
        """The first `rows` rows of all inputs, where the stream that computes will find them; on the CPU `host` itself.

        Returns:
            Input -> (rows, ...) on the device, contiguous.
        """
        if not 1 <= rows <= self.capacity:
            raise ValueError(f"a slot of {self.capacity} rows cannot give {rows}")
        if self.stream is not None:
            assert self.compute.stream is not None
            with torch.cuda.stream(self.stream):
                for name, buffer in self.host.items():
                    self._there[name][:rows].copy_(buffer[:rows], non_blocking=True)
            self.compute.stream.wait_stream(self.stream)
        return {name: buffer[:rows] for name, buffer in self._there.items()}

    def download(self, outputs: Mapping[str, Tensor]) -> None:
        """Queue what was computed to be copied into `results`; on the CPU it is that itself."""
        # Held until `wait`: made for the stream that computes, they would else be given to its next batch while they
        # are read on ours. Cheaper than record_stream, after which PyTorch asks for the events again and again.
        self._computed = tuple(outputs.values())
        if self.stream is None:
            self.results = dict(outputs)
            return
        assert self.compute.stream is not None and self.event is not None
        self.stream.wait_stream(self.compute.stream)
        with torch.cuda.stream(self.stream):
            self.results = {name: self._land(name, tensor) for name, tensor in outputs.items()}
        self.event.record(self.stream)

    def _land(self, name: str, tensor: Tensor) -> Tensor:
        """Copy an output into its pinned buffer, made for a full batch when it is first needed."""
        buffer = self._landing.get(name)
        fits = buffer is not None and buffer.shape[1:] == tensor.shape[1:] and len(buffer) >= len(tensor)
        if buffer is None or not fits or buffer.dtype != tensor.dtype:
            shape = (max(self.capacity, len(tensor)), *tensor.shape[1:])
            buffer = self._landing[name] = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
        return buffer[: len(tensor)].copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        """Until `results` are there.

        Raises:
            DeviceFailedError: the device failed while it computed them.
        """
        if self.event is not None:
            # Whoever waits has a current device of its own, which must not get a context for this.
            with translated(self.compute.device), torch.cuda.device(self.compute.device):
                self.event.synchronize()
        self._computed = ()


@contextmanager
def translated(device: str | torch.device) -> Iterator[None]:
    """What libraries say when a device is short of memory, or broken, as exceptions of ours; anything else as it is.

    After a lack of memory what was allocated on the way is given back, so that a smaller batch finds it.

    Raises:
        DeviceMemoryError: a smaller batch may fit.
        DeviceFailedError: the process must end.
    """
    told = None
    try:
        yield
    except Exception as error:
        kind = failure_of(error)
        if kind is None:
            raise
        words = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if kind is DeviceFailedError:
            raise DeviceFailedError(f"{device} failed: {words}; start again in a new process") from error
        told = f"{device} has not enough memory for the batch: {words}; take a smaller batch, or free memory"
        _let_go(error)
    if told is None:
        return
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    raise DeviceMemoryError(told) from None


def failure_of(error: Exception) -> type[DeviceMemoryError] | type[DeviceFailedError] | None:
    """What an exception of a library says about the device; None where it says nothing."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return DeviceMemoryError
    foreign = type(error).__module__.startswith("onnxruntime")  # whose exceptions share no base class
    ours = isinstance(error, FgfastError)  # TensorRT's messages come as GraphError
    if not (foreign or isinstance(error, GraphError if ours else RuntimeError)):
        return None
    if getattr(error, "error_code", None) == _MEMORY_ALLOCATION or _SHORT.search(str(error)):
        return DeviceMemoryError
    accelerator = getattr(torch, "AcceleratorError", ())  # from PyTorch 2.8 on
    return DeviceFailedError if isinstance(error, accelerator) or _BROKEN.search(str(error)) else None


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames hold that an exception went through: tensors, which would not be freed before it is."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
