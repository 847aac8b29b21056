"""Graphs in PyTorch: eager, compiled, or recorded as a CUDA graph."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgfast import keyed_notes
from fgfast.backends import recording
from fgfast.backends.session import described
from fgfast.backends.torch_flags import cudnn_attention, set_flags
from fgfast.errors import GraphError
from fgfast.graphs import Contract
from fgfast.transfer import cache_folder

log = logging.getLogger("fgfast")

# "eager" runs the module; "compiled" uses torch.compile; "recorded" replays all kernels as a CUDA graph in one call;
# "compiled+recorded" does both. "+cudnn" allows cuDNN's attention, which builds a plan for each new shape. On the CPU
# eager was the fastest: the time is spent in oneDNN and MKL either way.
FORMS = ("eager", "compiled", "recorded", "compiled+recorded", "recorded+cudnn", "compiled+recorded+cudnn")
# Number of shapes whose CUDA graphs are kept; each holds its inputs and outputs, and shares what lies between.
_RECORDINGS = 8

_Run = Callable[..., Any]


def keep_compiled() -> None:
    """Make torch.compile store its files in fgfast's cache folder instead of a temporary one.

    torch runs what it finds there, so the folder has a name that no archive of a stranger can know. A folder that the
    user set in TORCHINDUCTOR_CACHE_DIR is kept; torch itself writes its default into the variable.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    name = keyed_notes.private_name("compiled")
    if name and os.environ.get("TORCHINDUCTOR_CACHE_DIR") in (None, default_cache_dir()):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled" / name)


class TorchSession:
    """One graph in PyTorch. It sets the process's flags (fgfast.backends.torch_flags).

    A graph whose recording failed on this machine before runs without one, which is logged.

    Args:
        graph: takes the contract's inputs in its order, returns its outputs in its order, and is on `device`.
        contract: of the graph.
        device: where the graph's weights are.
        form: one of FORMS.
        pool: of the recordings of all graphs of the model; None where there is this graph alone.

    Raises:
        GraphError: the form does not exist, or it records and the device is not a GPU.
    """

    backend = "torch"

    def __init__(
        self,
        graph: nn.Module,
        contract: Contract,
        device: str | torch.device = "cpu",
        form: str = "eager",
        pool: recording.Pool | None = None,
    ) -> None:
        self.contract, self.device, self.form = contract, torch.device(device), form
        if form not in FORMS:
            raise GraphError(f"PyTorch has no form {form!r} of a graph; there are {', '.join(FORMS)}")
        if "recorded" in form and self.device.type != "cuda":
            raise GraphError(f"a CUDA graph cannot be recorded on {self.device}; use eager or compiled")
        set_flags()
        self._graph = graph
        self._call: _Run = graph
        if "compiled" in form:
            keep_compiled()
            # The contract fixes the shapes, or there are few, and each is compiled separately.
            self._call = _Compiled(graph)
        self._pool = recording.Pool(self.device) if pool is None and "recorded" in form else pool
        self._recordings: dict[tuple[tuple[str, int], ...], _Recording | None] = {}

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once; see Session.run.

        Raises:
            RecordingFailedError: the graph cannot be recorded; see fgfast.backends.recording.
        """
        sizes = self.contract.bind(described(inputs))
        given = [inputs[port.name] for port in self.contract.inputs]
        with torch.cuda.stream(stream), cudnn_attention("cudnn" in self.form):
            recorded = self._recording(tuple(sorted(sizes.items())), given) if "recorded" in self.form else None
            outputs = _as_tuple(self._call(*given)) if recorded is None else recorded.replay(given)
        return {port.name: tensor for port, tensor in zip(self.contract.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Free the memory; see Session.close."""
        self._recordings.clear()
        self._call = _closed

    def _recording(self, sizes: tuple[tuple[str, int], ...], given: list[Tensor]) -> _Recording | None:
        """Return the recording for these sizes, made on first use; it replaces the least recently used one.

        None where it failed in an earlier process.
        """
        if sizes in self._recordings:
            found = self._recordings.pop(sizes)
        else:
            if len(self._recordings) == _RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            found = self._made(self._name(sizes), given)
        self._recordings[sizes] = found
        return found

    def _made(self, what: str, given: list[Tensor]) -> _Recording | None:
        if refusal := recording.refusal(what, given[0].device):
            log.warning("%s runs without a recording: %s", what, refusal)
            return None
        assert self._pool is not None
        return _Recording.make(what, self._call, given, self._pool)

    def _name(self, sizes: tuple[tuple[str, int], ...]) -> str:
        """Return what is recorded, in words that no other graph has."""
        weights = sum(weight.numel() for weight in self._graph.parameters())
        dtypes = "+".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in self._graph.parameters()}))
        inputs = ", ".join(f"{port.name} {port.dtype} {port.shape}" for port in self.contract.inputs)
        free = "".join(f", {name} {size}" for name, size in sizes)
        return f"{self.contract.graph} of {weights:,} weights ({dtypes}) in PyTorch, {self.form} ({inputs}{free})"


@dataclass(frozen=True, slots=True, eq=False)
class _Recording:
    """A CUDA graph and the memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]

    @classmethod
    def make(cls, what: str, call: _Run, given: list[Tensor], pool: recording.Pool) -> _Recording:
        """Record a call on these inputs; the errors are those of `recording.record`."""
        inputs = [tensor.clone() for tensor in given]
        graph, outputs = recording.record(what, lambda: call(*inputs), pool)
        return cls(graph, inputs, _as_tuple(outputs))

    def replay(self, given: list[Tensor]) -> tuple[Tensor, ...]:
        """Replay the graph on these inputs; the outputs are copied out of its memory."""
        for recorded, tensor in zip(self.inputs, given, strict=True):
            recorded.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return tuple(tensor.clone() for tensor in self.outputs)


class _Compiled:
    """A graph that is compiled at its first call, after one eager run that fills the graph's own caches."""

    def __init__(self, graph: nn.Module) -> None:
        self._graph, self._compiled = graph, torch.compile(graph, fullgraph=True, dynamic=False)
        self._seen: set[tuple[torch.Size, ...]] = set()

    def __call__(self, *given: Tensor) -> Any:
        shapes = tuple(tensor.shape for tensor in given)
        if shapes not in self._seen:
            self._graph(*given)
            self._seen.add(shapes)
        return self._compiled(*given)


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _closed(*_: Tensor) -> None:
    raise GraphError("this session was closed")
