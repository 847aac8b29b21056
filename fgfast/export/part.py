"""One graph to be exported, with everything that its parity check needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fgfast.export import check, trace
from fgfast.graphs import Contract
from fgfast.tolerances import Tolerance


@dataclass(frozen=True, slots=True)
class Part:
    """One graph to be exported.

    Attributes:
        contract: what goes in and comes out.
        graph: what is traced.
        reference: PyTorch in float32, which the exported graph is compared with.
        example: the inputs that are traced.
        cases: makes the inputs that both are compared on.
        tolerances: rows of fgfast.tolerances.
        compare: check.compare, or one that accepts outputs in another order.
        translations: fgfast's own PyTorch operators -> functions that build what they become in ONNX.
        opset: of ONNX.
    """

    contract: Contract
    graph: nn.Module
    reference: nn.Module
    example: tuple[Tensor, ...]
    cases: Callable[[], check.Cases]
    tolerances: Mapping[str, Tolerance]
    compare: check.Compare = check.compare
    translations: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    opset: int = trace.OPSET
