"""Slots (the buffers of one batch on a device), the stream that computes them, and a device's failures."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fgfast.backends.cuda_errors import is_fatal, is_short
from fgfast.errors import DeviceFailedError, DeviceMemoryError, FgfastError, GraphError
from fgfast.graphs import Port

# Characters of a library's message that are passed on; some come with a page of advice.
_LONGEST = 300


class ComputeStream:
    """The stream on which a model's batches are computed, one after another; on the CPU, the calling thread.

    On a GPU all slots share this one stream; uploads and downloads are on the slot's own stream and overlap with the
    computation of other batches. Events put the three in order. So no two batches are in a session at a time, which
    matters because a CUDA graph uses the same addresses at every replay. And PyTorch's allocator, which keeps freed
    memory for the stream it was allocated on, holds the working memory of one batch instead of one per slot.

    Args:
        device: "cpu" or "cuda:N".

    Attributes:
        stream: the CUDA stream; None on the CPU.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Queue the work inside on the stream; failures are converted as in `translated`."""
        with translated(self.device), torch.cuda.stream(self.stream):
            yield

    def synchronize(self) -> None:
        """Return when everything queued on the stream is done."""
        if self.stream is not None:
            with translated(self.device):
                self.stream.synchronize()


class Slot:
    """The buffers of one batch, allocated once and reused.

    A batch is filled into `host`, `upload`ed, computed on its model's stream, `download`ed, waited for, and read from
    `results`. Only `wait` blocks. Between `upload` and the end of `wait` the slot belongs to the device.

    Args:
        ports: inputs of sessions, whose first size is that of the batch.
        sizes: value of each free size of the ports.
        compute: the stream that computes the batch.

    Attributes:
        capacity: rows.
        host: input -> (capacity, ...), to be filled; pinned where the device is a GPU.
        results: output -> (N, ...) on the host, of the last batch; valid after `wait` until the next `upload`.
        stream: of the copies; None on the CPU.
        event: recorded when the results have arrived; None on the CPU.

    Raises:
        DeviceMemoryError: there is not enough memory.
    """

    def __init__(self, ports: Sequence[Port], sizes: Mapping[str, int], compute: ComputeStream) -> None:
        shapes = {port.name: port.shape_for(sizes) for port in ports}
        dtypes = {port.name: getattr(torch, port.dtype) for port in ports}
        capacities = {shape[0] for shape in shapes.values()}
        if len(capacities) != 1:
            raise GraphError(f"the buffers of a slot must have the same number of rows, not {shapes}")
        (self.capacity,) = capacities
        self.compute, gpu = compute, compute.stream is not None
        self.results: dict[str, Tensor] = {}
        self._landing: dict[str, Tensor] = {}
        self._computed: tuple[Tensor, ...] = ()
        # Pinned memory belongs to a device's context; without `device` the context of cuda:0 would be created.
        with translated(compute.device), torch.cuda.device(compute.device if gpu else -1):
            self.host = {n: torch.zeros(s, dtype=dtypes[n], pin_memory=gpu) for n, s in shapes.items()}
            self.stream = torch.cuda.Stream(compute.device) if gpu else None
            # Blocking: the waiting thread sleeps and leaves its core to the threads that fill other slots.
            self.event = torch.cuda.Event(blocking=True) if gpu else None
            self._there = self._on_device() if gpu else self.host

    def _on_device(self) -> dict[str, Tensor]:
        with torch.cuda.stream(self.stream):
            there = {name: torch.empty_like(buffer, device=self.compute.device) for name, buffer in self.host.items()}
        for buffer in there.values():
            # Allocated for the slot's stream, read on the other: keeps the memory should the slot be freed meanwhile.
            buffer.record_stream(self.compute.stream)
        return there

    def upload(self, rows: int) -> dict[str, Tensor]:
        """Queue the first `rows` rows of all inputs to be copied to the device; the compute stream waits for them.

        Returns:
            Input -> (rows, ...) on the device, contiguous; on the CPU, `host` itself.
        """
        if not 1 <= rows <= self.capacity:
            raise ValueError(f"a slot of {self.capacity} rows cannot upload {rows}")
        if self.stream is not None:
            assert self.compute.stream is not None
            with torch.cuda.stream(self.stream):
                for name, buffer in self.host.items():
                    self._there[name][:rows].copy_(buffer[:rows], non_blocking=True)
            self.compute.stream.wait_stream(self.stream)
        return {name: buffer[:rows] for name, buffer in self._there.items()}

    def download(self, outputs: Mapping[str, Tensor]) -> None:
        """Queue the outputs to be copied into `results`; on the CPU they become `results` without a copy."""
        # Held until `wait`: the allocator would otherwise give their memory to the next batch on the compute stream
        # while this stream reads it. Cheaper than record_stream, after which PyTorch keeps polling events.
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
        """Copy an output into its pinned buffer, which is allocated for a full batch on first use."""
        buffer = self._landing.get(name)
        fits = buffer is not None and buffer.shape[1:] == tensor.shape[1:] and len(buffer) >= len(tensor)
        if buffer is None or not fits or buffer.dtype != tensor.dtype:
            shape = (max(self.capacity, len(tensor)), *tensor.shape[1:])
            buffer = self._landing[name] = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
        return buffer[: len(tensor)].copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        """Block until `results` have arrived.

        Raises:
            DeviceFailedError: the device failed while it computed them.
        """
        if self.event is not None:
            # The waiting thread's current device may be another one, for which no context must be created.
            with translated(self.compute.device), torch.cuda.device(self.compute.device):
                self.event.synchronize()
        self._computed = ()


@contextmanager
def translated(device: str | torch.device) -> Iterator[None]:
    """Convert the libraries' errors of a device that is out of memory or broken; other exceptions pass unchanged.

    After a lack of memory everything allocated on the way is freed, so that a smaller batch can use it.

    Raises:
        DeviceMemoryError: a smaller batch may fit.
        DeviceFailedError: the process must end.
    """
    try:
        yield
    except Exception as error:
        kind = failure_of(error)
        if kind is None:
            raise
        message = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        if kind is DeviceFailedError:
            raise DeviceFailedError(f"{device} failed: {message}; start again in a new process") from error
        _release_frames(error)
    else:
        return
    # Outside the except clause, where nothing refers to the exception and its frames any more.
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    raise DeviceMemoryError(
        f"{device} does not have enough memory for the batch: {message}; take a smaller batch, or free memory"
    ) from None


def failure_of(error: Exception) -> type[DeviceMemoryError] | type[DeviceFailedError] | None:
    """Return the error class for a library's exception about the device (see cuda_errors); None for any other."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return DeviceMemoryError
    foreign = type(error).__module__.startswith("onnxruntime")  # its exceptions share no base class
    ours = isinstance(error, FgfastError)  # TensorRT's messages come as GraphError
    if not (foreign or isinstance(error, GraphError if ours else RuntimeError)):
        return None
    accelerator = isinstance(error, getattr(torch, "AcceleratorError", ()))  # from PyTorch 2.8 on
    number, message = getattr(error, "error_code", None) if accelerator else None, str(error)
    if is_short(message, number):
        return DeviceMemoryError
    return DeviceFailedError if (accelerator and number is None) or is_fatal(message, number) else None


def _release_frames(error: BaseException | None) -> None:
    """Clear the frames of an exception and its causes, whose tensors would otherwise live as long as it does."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
