"""What every backend offers: a graph, ready to run on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from fgfast.errors import GraphError
from fgfast.graphs import Contract


class Session(Protocol):
    """A graph on a device. Made by a backend; used by one thread at a time.

    Attributes:
        contract: what goes in and comes out.
        backend: "torch", "onnxruntime" or "tensorrt".
        device: where it runs, and where its inputs must be and its outputs are.
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
            stream: of the GPU the work is queued on; the current one where None. The result is ready when the
                stream gets there.

        Returns:
            The outputs by name, on the session's device. They are the caller's: a later run does not change them.

        Raises:
            GraphError: the inputs are not what the contract says.
        """

    def close(self) -> None:
        """Give the memory back; the session cannot be used any more."""


def described(inputs: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each, as Contract.bind takes them."""
    return {name: (str(x.dtype).removeprefix("torch."), tuple(x.shape)) for name, x in inputs.items()}


def zeros(contract: Contract, sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
    """Inputs of the contract's shapes, all zero.

    Raises:
        GraphError: a free size is not given.
    """
    missing = set(contract.free) - sizes.keys()
    if missing:
        raise GraphError(f"{contract.graph} has shapes that vary; say how large {sorted(missing)} will be")
    return {
        port.name: torch.zeros(
            [sizes[d] if isinstance(d, str) else d for d in port.shape],
            dtype=getattr(torch, port.dtype),
            device=device,
        )
        for port in contract.inputs
    }
