"""One graph to be exported, with everything that its parity check needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from fgfast.backends.torch import TorchSession
from fgfast.export import check
from fgfast.graphs import Contract
from fgfast.tolerances import Tolerance


class Rewrite(Protocol):
    """What turns a traced graph into a quantised one (fgfast.export.quantise.Quantisation)."""

    @property
    def digest(self) -> str:
        """Tells two quantised graphs of the same weights apart."""

    def insert(self, path: Path, target: Path) -> None:
        """Write the quantised form of a file."""

    def facts(self, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the manifest's `quantisation`, from the records of the parity check."""


@dataclass(frozen=True, slots=True)
class Part:
    """One graph to be exported.

    Attributes:
        contract: what goes in and comes out.
        graph: the module to trace; it has the contract's inputs and outputs.
        reference: PyTorch in float32, which the exported graph is compared with.
        example: the inputs to trace with, in the contract's order.
        cases: yields the inputs that both are compared on, none of which is traced.
        tolerances: rows of fgfast.tolerances.
        compare: check.compare, or a function that accepts outputs in another order.
        quantisation: rewrites the traced file before it is checked; None leaves it as it is.
    """

    contract: Contract
    graph: nn.Module
    reference: nn.Module
    example: tuple[Tensor, ...]
    cases: Callable[[], check.Cases]
    tolerances: Mapping[str, Tolerance]
    compare: check.Compare = check.compare
    quantisation: Rewrite | None = None

    def parity(self, run: check.Run, how: str = "") -> list[dict[str, Any]]:
        """Compare the exported graph with PyTorch on every case; see check.compare.

        Args:
            run: runs the exported graph.
            how: appended to the names of the cases.
        """
        reference = TorchSession(self.reference, self.contract)
        cases = ((name + how, inputs) for name, inputs in self.cases())
        return self.compare(self.contract, run, reference.run, cases, self.tolerances)
