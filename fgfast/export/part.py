"""One graph to be exported, with everything that its parity check needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fgfast.backends.torch import TorchSession
from fgfast.export import check
from fgfast.graphs import Contract
from fgfast.tolerances import Tolerance


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
    """

    contract: Contract
    graph: nn.Module
    reference: nn.Module
    example: tuple[Tensor, ...]
    cases: Callable[[], check.Cases]
    tolerances: Mapping[str, Tolerance]
    compare: check.Compare = check.compare

    def parity(self, run: check.Run, how: str = "") -> list[dict[str, Any]]:
        """Compare the exported graph with PyTorch on every case; see check.compare.

        Args:
            run: runs the exported graph.
            how: appended to the names of the cases.
        """
        reference = TorchSession(self.reference, self.contract)
        cases = ((name + how, inputs) for name, inputs in self.cases())
        return self.compare(self.contract, run, reference.run, cases, self.tolerances)
