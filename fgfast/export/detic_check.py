"""The parity check of Detic's graphs: boxes are compared as sets, because equal scores may swap places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fgfast.errors import ParityError
from fgfast.export import check
from fgfast.graphs import Contract
from fgfast.tolerances import DETIC_BF16_OVER_FLOOR, DETIC_BOX_SHARE, Tolerance

# Pixels; boxes further apart are different boxes.
_MATCH = 2.0
# The same for scores, where the table bounds only their rms.
_SCORE_MATCH = 0.1
# How many pixels a score counts for where several boxes are near enough, and the most that a distance counts.
_SCORE_PIXELS, _FAR = 10.0, 1e4
_SETS = {"boxes": "scores", "candidates": "candidate_scores"}

Array = NDArray[np.float64]


def compare(
    contract: Contract,
    exported: check.Run,
    reference: check.Run,
    cases: check.Cases,
    tolerances: Mapping[str, Tolerance],
    rounded: check.Run | None = None,
) -> list[dict[str, Any]]:
    """Run both on every case and compare, with boxes and their scores as rows of a set.

    Each of PyTorch's boxes must have a partner among the graph's, within "boxes_px" plus a share of its size and within
    "scores"; the boxes without one count as "lost".

    Args:
        contract, exported, reference, cases, tolerances: see check.compare.
        rounded: runs PyTorch in float32 with weights rounded to bfloat16. Suppression and the choice of levels turn
            small roundings into other boxes; no graph in bfloat16 can lose fewer boxes than rounding the weights alone
            does. Where that is more than the table allows, DETIC_BF16_OVER_FLOOR times as many are allowed.

    Returns:
        Records like check.compare's; the share of lost boxes is under "lost".

    Raises:
        ParityError: an output is off, or too many boxes are lost.
    """
    measured = []
    boxes = next(name for name in _SETS if any(port.name == name for port in contract.outputs))
    both = (boxes, _SETS[boxes])
    others = replace(contract, outputs=tuple(port for port in contract.outputs if port.name not in both))
    # In half precision the heads' inputs may be further off than their outputs.
    early = boxes == "candidates" and "proposal_scores" in tolerances
    kinds = ("boxes_px", "proposal_scores" if early else "scores", "lost")
    for case, inputs in cases:
        ours, theirs = exported(inputs), reference(inputs)
        floor = rounded(inputs) if rounded else None
        measured += check.compare_outputs(others, case, ours, theirs, tolerances)
        for row in range(len(theirs[boxes])):
            where = f"{contract.graph}, {case}, image {row}"
            graph, torch = ([x[name][row].double().numpy() for name in both] for x in (ours, theirs))
            bounds = tuple(tolerances[kind] for kind in kinds)
            if floor is not None:
                alone = [floor[name][row].double().numpy() for name in both]
                bounds = *bounds[:2], _over_floor(bounds, alone, torch)
            for name, record in zip(both, _sets(graph, torch, bounds, where), strict=True):
                measured.append({"case": f"{case}, image {row}", "output": name, **record})
    return measured


def _over_floor(bounds: tuple[Tolerance, ...], alone: Sequence[Array], theirs: Sequence[Array]) -> Tolerance:
    """The share of boxes that may be lost, given the share that rounding the weights alone loses."""
    of_boxes, of_scores, allowed = bounds
    lost, _, _ = _partners(alone, theirs, of_boxes, of_scores)
    if DETIC_BF16_OVER_FLOOR * lost <= allowed.largest:
        return allowed
    reason = f"{DETIC_BF16_OVER_FLOOR} times the {lost:.2%} that rounding the weights alone loses"
    return Tolerance(DETIC_BF16_OVER_FLOOR * lost, allowed.rms, reason)


def _sets(
    ours: Sequence[Array], theirs: Sequence[Array], bounds: tuple[Tolerance, ...], where: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Compare (boxes (N, 4), scores (N,) or (N, C)) with PyTorch's; void rows are left out.

    Returns:
        How far boxes and scores of partners are apart, and the share of boxes without a partner.
    """
    of_boxes, of_scores, allowed = bounds
    if not all(np.isfinite(array).all() for array in ours):
        raise ParityError(f"{where}: some boxes or scores are not finite")
    lost, apart, worse = _partners(ours, theirs, of_boxes, of_scores)
    if lost > allowed.largest:
        raise ParityError(
            f"{where}: {lost:.2%} of the boxes have no partner within {of_boxes.largest} px and {of_scores.largest} in "
            f"score; {allowed.largest:.2%} is allowed: {allowed.reason}"
        )
    off_boxes, off_scores = check.amount(apart), check.amount(worse)
    check.hold(off_boxes, of_boxes, f"{where}: boxes")
    check.hold(off_scores, of_scores, f"{where}: scores")
    return {**off_boxes, "lost": lost}, off_scores


def _partners(
    ours: Sequence[Array], theirs: Sequence[Array], of_boxes: Tolerance, of_scores: Tolerance
) -> tuple[float, Array, Array]:
    """The share of boxes without a partner; and how far the other boxes (K,) and their scores (K,) are apart."""
    (our_boxes, our_scores), (boxes, scores) = (_alive(*side) for side in (ours, theirs))
    apart = np.abs(boxes[:, None] - our_boxes[None]).max(-1, initial=0)
    extent = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    apart = np.maximum(apart - DETIC_BOX_SHARE * extent[:, None], 0)
    worse = np.abs(scores[:, None] - our_scores[None]).max(-1, initial=0)
    row, partner = linear_sum_assignment(np.minimum(apart, _FAR) + _SCORE_PIXELS * worse)
    apart, worse = apart[row, partner], worse[row, partner]
    near = (apart <= min(of_boxes.largest, _MATCH)) & (worse <= min(of_scores.largest, _SCORE_MATCH))
    count = max(len(boxes), len(our_boxes))
    return 1 - int(near.sum()) / count if count else 0.0, apart[near], worse[near]


def _alive(boxes: Array, scores: Array) -> tuple[Array, Array]:
    scores = scores.reshape(len(scores), -1)
    alive = (scores > 0).any(1)
    return boxes[alive], scores[alive]
