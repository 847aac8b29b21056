"""The parity check: an exported graph against PyTorch, on inputs that were not traced; a breach is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fgfast.errors import ParityError
from fgfast.graphs import Contract
from fgfast.tolerances import Tolerance

# Inputs by name -> outputs by name, on the CPU.
Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

Cases = Iterable[tuple[str, Mapping[str, Tensor]]]
# `compare`, or a function that accepts outputs in another order.
Compare = Callable[[Contract, Run, Run, Cases, Mapping[str, Tolerance]], list[dict[str, Any]]]


def compare(
    contract: Contract, exported: Run, reference: Run, cases: Cases, tolerances: Mapping[str, Tolerance]
) -> list[dict[str, Any]]:
    """Run both on every case and compare every output within its tolerance.

    Args:
        contract: of the graph; an output's `kind` names its row of `tolerances`.
        exported: runs what is to be checked.
        reference: runs PyTorch, in float32 or in the same precision; the caller chooses tolerances to match.
        cases: (name, inputs), none of which was traced.
        tolerances: rows of fgfast.tolerances.

    Returns:
        A record for each case and output: case, output, largest and rms difference.

    Raises:
        ParityError: an output is off; the message names the case, the output, the difference and what is allowed.
    """
    measured = []
    for case, inputs in cases:
        measured += compare_outputs(contract, case, exported(inputs), reference(inputs), tolerances)
    return measured


def compare_outputs(
    contract: Contract,
    case: str,
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    tolerances: Mapping[str, Tolerance],
) -> list[dict[str, Any]]:
    """Compare the outputs of one case with PyTorch's; see `compare`."""
    measured = []
    for port in contract.outputs:
        a, b = (x[port.name].detach().cpu().double().numpy() for x in (ours, theirs))
        where = f"{contract.graph}, {case}: {port.name}"
        if a.shape != b.shape:
            raise ParityError(f"{where} has shape {a.shape}; PyTorch gives {b.shape}")
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            raise ParityError(f"{where} differs from PyTorch where PyTorch gives no finite number")
        difference = amount(a[finite] - b[finite])
        hold(difference, tolerances[port.kind], where)
        measured.append({"case": case, "output": port.name, **difference})
    return measured


def amount(difference: NDArray[np.float64]) -> dict[str, float]:
    """The largest and the rms of differences (N,)."""
    largest = np.abs(difference).max(initial=0)
    rms = np.sqrt(np.square(difference).mean()) if difference.size else 0
    return {"largest": float(largest), "rms": float(rms)}


def hold(difference: Mapping[str, float], allowed: Tolerance, where: str) -> None:
    """Raise ParityError if a difference, from `amount`, exceeds what is allowed, or is NaN.

    Unlike the assertions of Tolerance.check, this also holds under python -O.
    """
    for name, limit in (("largest", allowed.largest), ("rms", allowed.rms)):
        if not difference[name] <= limit:
            off = f"{where} is off by {difference[name]:.3g} ({name} difference)"
            raise ParityError(f"{off}; {limit:.3g} is allowed: {allowed.reason}")


def smooth_noise(generator: np.random.Generator, height: int, width: int) -> Tensor:
    """Draw a random image (height, width, 3) uint8: noise of three scales, the coarsest strongest."""
    colours = torch.full((1, 3, height, width), 128.0)
    for points, contrast in ((4, 60), (24, 30), (96, 12)):
        noise = torch.from_numpy(generator.standard_normal((1, 3, points, points), np.float32))
        colours += contrast * functional.interpolate(noise, (height, width), mode="bicubic")
    return colours[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8)
