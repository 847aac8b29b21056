"""Graphs in ONNX Runtime: on the CPU, on a GPU by its CUDA provider, or by its TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from fgfast.backends import onnx_contents
from fgfast.backends.session import described, empty
from fgfast.errors import GraphError, UsageError, runtime_command
from fgfast.graphs import Contract

# Provider of each type of device; "tensorrt" is used only where it is named.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The operators with which graphs compute shapes. ONNX Runtime puts what starts from a shape and ends in one on the CPU
# deliberately (core/framework/fallback_cpu_capability.cc), so that a few numbers are not copied to the GPU and back. On
# tensors the CUDA provider has a kernel for each. `session.disable_cpu_ep_fallback` would refuse them as well.
_SHAPES = frozenset(
    (
        *("Shape", "Size", "Constant", "ConstantOfShape", "Identity", "Cast", "Range", "Expand", "Reshape", "Gather"),
        *("Slice", "Concat", "Squeeze", "Unsqueeze", "Where", "Equal", "Greater", "Less", "Not", "And", "Or", "Add"),
        *("Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Min", "Max", "ReduceProd", "ReduceSum", "ReduceMax"),
    )
)
# Nodes on the CPU that an error names.
_NAMED = 5
# ONNX's element types, because NumPy, whose dtypes the binding takes as well, has no bfloat16.
_ELEMENT = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.bfloat16: 16,
}


class OnnxRuntimeSession:
    """One graph in ONNX Runtime. Inputs and outputs are bound in place, so that nothing is copied through the host.

    Args:
        path: of the ONNX file.
        contract: of the graph.
        device: "cpu" or "cuda:N".
        provider: "cpu", "cuda" or "tensorrt"; None takes the device's.
        threads: number of CPU threads; None takes one per core.

    Raises:
        UsageError: this ONNX Runtime lacks the provider; the message names the package that has it.
        GraphError: the file cannot be loaded, or holds more than ONNX's own operators and weights beside it, or nodes
            that this ONNX Runtime computes on the CPU although the device is a GPU; the message names them.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        path: Path,
        contract: Contract,
        device: str = "cpu",
        provider: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.contract = contract
        self.device = torch.device(device)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of every node on the CPU; `_check_nodes` says which
        if threads:
            options.intra_op_num_threads = threads
        # ONNX Runtime works on this stream, so that a run waits for the caller's work, and the caller for the run,
        # while the host waits for neither.
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if self._stream is not None:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._providers = _providers(self.device, provider or self.device.type, self._stream)
        onnx_contents.check(path)
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise GraphError(f"ONNX Runtime cannot load {path}: {error}") from error
        wanted = self._providers[0][0]
        if self._session.get_providers()[0] != wanted:
            raise UsageError(f"ONNX Runtime has {wanted} but could not start it; run `fgfast doctor` for details")
        if self._stream is not None:
            _check_nodes(self._session, path)

    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once; see Session.run."""
        sizes = self.contract.bind(described(inputs))
        binding = self._session.io_binding()
        outputs = empty(self.contract.outputs, sizes, self.device)
        # `kept` holds the tensors until the call has returned.
        kept = {name: tensor.contiguous() for name, tensor in inputs.items()}
        for bind, tensors in ((binding.bind_input, kept), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                place = self.device.type, self.device.index or 0
                bind(name, *place, _ELEMENT[tensor.dtype], list(tensor.shape), tensor.data_ptr())
        self._queue(binding, stream)
        return outputs

    def _queue(self, binding: Any, stream: torch.cuda.Stream | None) -> None:
        """Run after the work that the caller's stream has queued, and before the work that it will queue."""
        if self._stream is None:
            self._session.run_with_iobinding(binding)
            return
        outer = stream or torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outer)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session.run_with_iobinding(binding, options)
        outer.wait_stream(self._stream)

    def close(self) -> None:
        """Free the memory; see Session.close."""
        self._session = None


def available() -> list[str]:
    """Return the providers that this ONNX Runtime was built with."""
    return onnxruntime.get_available_providers()


def check_provider(kind: str) -> str:
    """Return the provider for "cpu", "cuda", "cuda:N" or "tensorrt".

    Raises:
        UsageError: this ONNX Runtime was built without it.
    """
    wanted = PROVIDERS[kind.partition(":")[0]]
    if wanted not in available():
        raise UsageError(
            f"this ONNX Runtime {onnxruntime.__version__} has no {wanted}, only {', '.join(available())}: "
            f"install onnxruntime-gpu in place of onnxruntime ({runtime_command(gpu=True)})"
        )
    return wanted


def _check_nodes(session: Any, path: Path) -> None:
    """Raise GraphError unless a GPU computes all nodes but those that compute shapes.

    A node without a kernel for the GPU waits for it, copies its inputs to the host and its outputs back.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # since 1.24.1
        raise GraphError(
            f"onnxruntime {onnxruntime.__version__} does not say which nodes of {path.name} it computes on the CPU: "
            f"install a newer onnxruntime-gpu ({runtime_command(gpu=True)})"
        )
    nodes = [
        f"{node.name or 'a node'} ({node.op_type})"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == PROVIDERS["cpu"]
        for node in part.get_nodes()
        if node.op_type not in _SHAPES
    ]
    if nodes:
        more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
        raise GraphError(
            f"onnxruntime {onnxruntime.__version__} has no kernel on the GPU for {', '.join(nodes[:_NAMED])}{more} of "
            f"{path.name}, and would compute them on the CPU in between: use --backend torch, or a newer package"
        )


def _providers(device: torch.device, kind: str, stream: torch.cuda.Stream | None) -> list[tuple[str, dict[str, Any]]]:
    wanted = check_provider(kind)
    if stream is None:
        return [(wanted, {})]
    common = {"device_id": device.index or 0, "user_compute_stream": str(stream.cuda_stream)}
    # TensorFloat-32 would cost three of float32's digits.
    cuda = (PROVIDERS["cuda"], {**common, "use_tf32": 0})
    return [(wanted, common), cuda] if kind == "tensorrt" else [cuda]
