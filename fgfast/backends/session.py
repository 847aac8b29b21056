"""The interface of every backend, and tensors of a contract's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from fgfast.errors import GraphError
from fgfast.graphs import DTYPE_OF, Contract, Port

DTYPES = {precision: getattr(torch, name) for precision, name in DTYPE_OF.items()}
"""PyTorch's dtype of each precision."""


class Session(Protocol):
    """A graph that is ready to run on one device. Only one thread at a time may use it.

    Attributes:
        contract: of the graph.
        backend: "torch", "onnxruntime" or "tensorrt".
        device: where the graph runs, and where its inputs must be and its outputs are.
    """

    contract: Contract
    backend: str
    device: torch.device

    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once.

        Args:
            inputs: by name, contiguous, on the session's device; they are read in place.
            stream: the GPU stream on which the work is queued; None takes the current one. The result is ready when the
                stream has reached it.

        Returns:
            The outputs by name, on the session's device. They belong to the caller: a later run does not change them.

        Raises:
            GraphError: the inputs violate the contract.
        """

    def close(self) -> None:
        """Free the memory; the session cannot be used afterwards."""


def described(inputs: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of each input, as Contract.bind takes them."""
    return {name: (str(x.dtype).removeprefix("torch."), tuple(x.shape)) for name, x in inputs.items()}


def zeros(contract: Contract, sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
    """Return inputs of the contract's shapes, filled with zeros.

    Raises:
        GraphError: a free size is not given.
    """
    missing = set(contract.free) - sizes.keys()
    if missing:
        raise GraphError(f"{contract.graph} has shapes that vary: the sizes {sorted(missing)} must be given")
    return {name: tensor.zero_() for name, tensor in empty(contract.inputs, sizes, device).items()}


def empty(ports: Sequence[Port], sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
    """Return uninitialised tensors of the ports' shapes and dtypes, by name."""
    return {
        port.name: torch.empty(port.shape_for(sizes), dtype=getattr(torch, port.dtype), device=device) for port in ports
    }
