"""The parity check of Grounding DINO's graph: transformers' own network is made to start from the same cells.

The network keeps the 900 cells of the encoder that score best, in order, and the first of them gets the first of 900
learned queries. Where two scores differ by less than rounding, two right implementations exchange two queries, and
everything after that differs. The graph therefore returns the cells it chose. Their scores in transformers' network
must be the best ones within the tolerance of scores, and transformers' network is then run from the same cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgfast.errors import ParityError
from fgfast.export import check
from fgfast.graphs import Contract
from fgfast.models.grounding_dino.canvas import levels
from fgfast.tolerances import Tolerance


def compare(
    network: nn.Module,
    contract: Contract,
    exported: check.Run,
    reference: check.Run,
    cases: check.Cases,
    tolerances: Mapping[str, Tolerance],
) -> list[dict[str, Any]]:
    """Run both on every image of every case and compare every output within its tolerance.

    Args:
        network: ImageGraph, in float32, which gets each image alone.
        contract: of the graph.
        exported: runs what is to be checked.
        reference: not used; it would choose its own cells.
        cases: (name, inputs).
        tolerances: rows of fgfast.tolerances; the row "stages" bounds the scores that cells are chosen by, too.

    Returns:
        Records like check.compare's, per image.

    Raises:
        ParityError: an output is off, or other cells than the best were chosen.
    """
    measured: list[dict[str, Any]] = []
    numbers = replace(contract, outputs=tuple(p for p in contract.outputs if p.name != "cells"))
    for case, inputs in cases:
        ours = exported(inputs)
        canvas = (int(inputs["pixels"].shape[1]), int(inputs["pixels"].shape[2]))
        for row in range(len(inputs["pixels"])):
            where = f"{case}, image {row}"
            height, width = inputs["sizes"][row].tolist()
            alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
            alone["pixels"] = alone["pixels"][:, :height, :width]
            cells = renumbered(ours["cells"][row].cpu(), canvas, (height, width))
            with torch.inference_mode(), _Chosen(cells) as chosen:
                logits, boxes, _ = network(**alone)
            measured.append({"case": where, "output": "cells", **_excess(chosen, contract, where, tolerances)})
            mine = {name: tensor[row : row + 1] for name, tensor in ours.items()}
            measured += check.compare_outputs(numbers, where, mine, {"logits": logits, "boxes": boxes}, tolerances)
    return measured


def renumbered(cells: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The numbers of a canvas's cells in the image alone.

    Args:
        cells: (Q,) int64.
        canvas: (height, width) in pixels.
        size: (height, width) of the image in pixels, each at least SMALLEST_SIDE.

    Returns:
        (Q,) int64; -1 for cells beyond the image.
    """
    found = torch.full_like(cells, -1)
    first = first_alone = 0
    for (height, width), (h, w) in zip(levels(canvas), levels(size), strict=True):
        place = cells - first
        y, x = place // width, place % width
        inside = (place >= 0) & (place < height * width) & (y < h) & (x < w)
        found = torch.where(inside, first_alone + y * w + x, found)
        first, first_alone = first + height * width, first_alone + h * w
    return found


class _Chosen(TorchFunctionMode):
    """A context in which the first top-k chooses these cells; it keeps the scores."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.cells, self.scores = cells, torch.empty(0)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.topk and not len(self.scores):
            self.scores = args[0][0]
            return None, self.cells.clamp(min=0)[None]
        return function(*args, **(kwargs or {}))


def _excess(chosen: _Chosen, contract: Contract, where: str, tolerances: Mapping[str, Tolerance]) -> dict[str, float]:
    """The differences of the chosen cells' scores from the best scores, rank by rank."""
    where = f"{contract.graph}, {where}: cells"
    if (chosen.cells < 0).any() or len(chosen.cells.unique()) != len(chosen.cells):
        raise ParityError(f"{where} beyond the image were chosen, or one of them twice")
    best = chosen.scores.topk(len(chosen.cells)).values
    record = check.amount((chosen.scores[chosen.cells] - best).double().numpy())
    check.hold(record, tolerances["stages"], where)
    return record
