"""Graphs as engines of TensorRT 10 and 11. The package tensorrt is imported when a session is made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgfast.backends import recording, tensorrt_engine
from fgfast.backends.session import described, empty, zeros
from fgfast.backends.tensorrt_engine import version
from fgfast.errors import GraphError
from fgfast.graphs import Contract

__all__ = ["TensorRtSession", "version"]

log = logging.getLogger("fgfast")

# Addresses must be multiples of this many bytes (NvInferRuntime.h, IExecutionContext::setTensorAddress). torch aligns
# its allocations to 512 bytes, but not slices of them.
_ALIGNMENT = 256
# Names of trt.DataType by those of fgfast.graphs.Port.
_TYPES = {
    "uint8": "UINT8",
    "int64": "INT64",
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "bool": "BOOL",
}


class TensorRtSession:
    """One engine. Inputs and outputs are bound in place, so that nothing is copied through the host.

    All runs are queued on a stream of the session's own, because TensorRT synchronizes the device on the default
    stream and because one execution context has one scratch memory; events order it with the caller's stream. Where
    all shapes are fixed, `prepare` records the run as a CUDA graph, which later runs replay.

    Args:
        path: of the engine; its manifest and the note that it was built here are stored beside it.
        contract: of the graph.
        device: "cuda:N".
        digest: SHA-256 of an engine that was built just now and is not noted yet.

    Raises:
        MissingExtraError: TensorRT is not installed.
        UsageError: the device is not a GPU.
        GraphError: the engine is not trusted, or cannot be loaded.
    """

    backend = "tensorrt"

    def __init__(
        self, path: Path, contract: Contract, device: str | torch.device = "cuda:0", digest: str | None = None
    ) -> None:
        self._trt = tensorrt_engine.load()
        self.contract, self.device = contract, tensorrt_engine.gpu_of(device)
        digest = digest or tensorrt_engine.built_here(path, contract, self.device)
        content = tensorrt_engine.trusted(path, contract, self.device, digest)
        self._what = f"{contract.graph} in TensorRT (engine {digest[:16]})"
        self._messages = tensorrt_engine.messages(self._trt)
        self._messages.errors.clear()
        with torch.cuda.device(self.device):
            # Its engine_host_code_allowed stays False: an engine that brings code for the host is refused.
            self._runtime = self._trt.Runtime(self._messages)
            self._engine = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                raise GraphError(f"TensorRT {version()} cannot load {path}: {self._messages.take()}; export it again")
            self._check_tensors(path)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise GraphError(f"TensorRT cannot run {path.name}: {self._messages.take()}; free memory on {device}")
            self._stream = torch.cuda.Stream(self.device)
        self._sizes: dict[str, int] | None = None
        self._recording: _Recording | None = None

    def _check_tensors(self, path: Path) -> None:
        """Check the engine's tensors against the contract."""
        engine, modes = self._engine, self._trt.TensorIOMode
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        for ports, mode in ((self.contract.inputs, modes.INPUT), (self.contract.outputs, modes.OUTPUT)):
            found = [name for name in names if engine.get_tensor_mode(name) == mode]
            if sorted(found) != sorted(port.name for port in ports):
                raise GraphError(f"{path} has {found} but must have {[p.name for p in ports]}; export it again")
            for port in ports:
                kind = engine.get_tensor_dtype(port.name)
                if kind != getattr(self._trt.DataType, _TYPES[port.dtype]):
                    raise GraphError(f"{path}: {port.name} is {kind} but must be {port.dtype}; export it again")

    def prepare(self, sizes: Mapping[str, int] | None = None) -> None:
        """Run once, which allocates all memory; record the run where shapes are fixed.

        An engine that could not be recorded on this machine before runs without a recording, and the reason is logged.

        Args:
            sizes: value of each free size of the contract; may be omitted where there are none.

        Raises:
            RecordingFailedError: the run cannot be recorded; a new process does not try again. This one must end.
        """
        with torch.cuda.device(self.device):
            inputs = zeros(self.contract, sizes or {}, self.device)
            outputs = self._bind(inputs, self.contract.bind(described(inputs)))
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            self._queue()
            self._stream.synchronize()
        if self.contract.free:
            return
        if why := recording.refusal(self._what, self.device):
            log.warning("%s runs without a CUDA graph: %s", self._what, why)
            return
        pool = recording.Pool(self.device, self._stream)  # the run allocates nothing in it
        graph, _ = recording.record(self._what, self._queue, pool, warm_up=0)
        self._recording = _Recording(graph, inputs, outputs)

    @property
    def recorded(self) -> bool:
        """Whether runs replay a CUDA graph."""
        return self._recording is not None

    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once; see Session.run."""
        if self._context is None:
            raise GraphError("this session was closed")
        sizes = self.contract.bind(described(inputs))
        for name, tensor in inputs.items():
            if tensor.device != self.device:
                raise GraphError(f"{self.contract.graph}: {name} is on {tensor.device} but must be on {self.device}")
        with torch.cuda.device(self.device):
            caller = stream or torch.cuda.current_stream(self.device)
            with torch.cuda.stream(caller):
                # On the caller's stream, which waits for this session's below, so that the memory is not reused early.
                given = {name: _aligned(tensor) for name, tensor in inputs.items()}
                if self._recording:
                    outputs = {name: torch.empty_like(t) for name, t in self._recording.outputs.items()}
                else:
                    outputs = self._bind(given, sizes)
            self._stream.wait_stream(caller)
            if self._recording:
                with torch.cuda.stream(self._stream):
                    self._recording.replay(given, outputs)
            else:
                self._queue()
            caller.wait_stream(self._stream)
        return outputs

    def _bind(self, inputs: Mapping[str, Tensor], sizes: dict[str, int]) -> dict[str, Tensor]:
        """Pass the shapes and addresses of the inputs and of new outputs to TensorRT; return the outputs."""
        outputs = empty(self.contract.outputs, sizes, self.device)
        if sizes != self._sizes:
            self._sizes = None
            self._reshape(inputs, outputs)
            self._sizes = sizes
        for name, tensor in (*inputs.items(), *outputs.items()):
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise GraphError(f"{self.contract.graph}: TensorRT refuses {name}: {self._messages.take()}")
        return outputs

    def _reshape(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        for name, tensor in inputs.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                low, _, high = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, 0))
                raise GraphError(
                    f"{self.contract.graph}: {name} has shape {tuple(tensor.shape)}, but the engine was built for "
                    f"{low} to {high}; run a smaller batch, or build the engine for a larger one"
                )
        for name, tensor in outputs.items():
            found = tuple(self._context.get_tensor_shape(name))
            if found != tuple(tensor.shape):
                raise GraphError(f"{self.contract.graph}: {name} would be {found} but must be {tuple(tensor.shape)}")

    def _queue(self) -> None:
        """Queue one run on the session's stream."""
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise GraphError(f"{self.contract.graph}: TensorRT cannot run: {self._messages.take()}")

    def close(self) -> None:
        """Free the memory; see Session.close."""
        if self._context is not None:
            self._stream.synchronize()
        # A context must be released before its engine, an engine before its runtime.
        self._recording = None
        self._context = None
        self._engine = None
        self._runtime = None


class _Recording:
    """A run recorded as a CUDA graph, and the memory that it reads and writes."""

    def __init__(self, graph: Any, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        self.graph, self.inputs, self.outputs = graph, inputs, outputs

    def replay(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Queue copies in, the run, and copies out on the current stream."""
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.graph.replay()
        for name, tensor in outputs.items():
            tensor.copy_(self.outputs[name], non_blocking=True)


def _aligned(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy where TensorRT could not read it in place."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()
