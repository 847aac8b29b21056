"""The interface of every backend: a graph that is ready to run on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from fgfast.errors import GraphError
from fgfast.graphs import Contract


class Session(Protocol):
    """A graph on a device. A backend makes it; one thread at a time uses it.

    Attributes:
        contract: what goes in and comes out.
        backend: "torch", "onnxruntime" or "tensorrt".
        device: where the graph runs, and where its inputs must be and its outputs are.
    """

    contract: Contract
    backend: str
    device: torch.device

    def prepare(self, sizes: Mapping[str, int] | None = None) -> None:
        """Do now what the first run would do: compile, allocate, record.

        Args:
            sizes: the contract's free sizes; may be left out where there are none.
        """

    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once.

        Args:
            inputs: by name, contiguous, on the session's device; they are read where they lie.
            stream: of the GPU, on which the work is queued; None takes the current one. The result is ready when the
                stream has reached it.

        Returns:
            The outputs by name, on the session's device. They belong to the caller: a later run does not change them.

        Raises:
            GraphError: the inputs break the contract.
        """

    def close(self) -> None:
        """Free the memory; the session cannot be used any more."""


def described(inputs: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype and the shape of each input, in the form that Contract.bind takes."""
    return {name: (str(x.dtype).removeprefix("torch."), tuple(x.shape)) for name, x in inputs.items()}


def zeros(contract: Contract, sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
    """Inputs of the contract's shapes, filled with zeros.

    Raises:
        GraphError: a free size is not given.
    """
    missing = set(contract.free) - sizes.keys()
    if missing:
        raise GraphError(f"{contract.graph} has shapes that vary: the sizes {sorted(missing)} must be given")
    return {
        port.name: torch.zeros(
            [sizes[d] if isinstance(d, str) else d for d in port.shape],
            dtype=getattr(torch, port.dtype),
            device=device,
        )
        for port in contract.inputs
    }
