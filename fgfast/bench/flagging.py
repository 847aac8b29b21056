"""How well a flag's number tells wrong masks from right ones: thresholds by cross-validation over photographs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgfast.ops.geometry import clip_box
from fgfast.records import Float32, Size

# The thresholds that are tried.
_THRESHOLDS = tuple(n / 100 for n in range(1, 100))
# The boxes are moved on purpose, so that there are more wrong masks than in any data set: precision is that of a data
# set in which so many masks are wrong. With the given boxes 3 of 37 of GrabCut's are, and 7 of 37 of plain GrabCut's.
WRONG_RATE = 0.1
# Times that the photographs are divided in halves at random.
_SPLITS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One mask, judged.

    Attributes:
        photo: the photograph; all masks of one are in the same half.
        boxes: the kind of its box.
        value: the flag's number.
        wrong: whether the mask is one that the flag should find.
    """

    photo: str
    boxes: str
    value: float
    wrong: bool


def moved_boxes(box: Float32, size: Size) -> Iterator[tuple[str, Float32]]:
    """Yield boxes that are wrong as detectors and people are wrong, by kind: x0 y0 x1 y1 in pixels, clipped.

    Each side in turn is moved inwards by a tenth ("cut 0.1") and a fifth ("cut 0.2") of the box's width or height; all
    sides are moved outwards by 0.05 and by 0.15 ("loose"); the box is shifted by 0.15 and 0.1 ("shifted").
    """
    width, height = (box[2:] - box[:2]).tolist()
    scale = np.array([width, height, width, height])
    moves: list[tuple[str, Sequence[float]]] = []
    for share in (0.1, 0.2):
        inwards = np.diag([share, share, -share, -share])
        moves += [(f"cut {share}", row) for row in inwards.tolist()]
    moves += [(f"loose {share}", (-share, -share, share, share)) for share in (0.05, 0.15)]
    moves.append(("shifted", (0.15, 0.1, 0.15, 0.1)))
    for kind, move in moves:
        yield kind, clip_box((box + scale * np.array(move)).astype(np.float32), size)


def counted(cases: Sequence[Case], threshold: float) -> dict[str, Any]:
    """Return what a threshold finds among masks.

    Returns:
        Numbers of masks, wrong ones, flagged ones, and flagged wrong ones ("found"); "recall", the share of wrong masks
        that are flagged; "false_alarms", the share of right masks that are flagged; "precision", the share of flagged
        masks that would be wrong if one mask in ten were. Shares of nothing are None.
    """
    flagged = [case for case in cases if case.value >= threshold]
    wrong, found = sum(case.wrong for case in cases), sum(case.wrong for case in flagged)
    recall = found / wrong if wrong else None
    alarms = (len(flagged) - found) / (len(cases) - wrong) if len(cases) > wrong else None
    return {
        "masks": len(cases),
        "wrong": wrong,
        "flagged": len(flagged),
        "found": found,
        "recall": recall,
        "false_alarms": alarms,
        "precision": None if recall is None or alarms is None else _precision(recall, alarms),
    }


def _precision(recall: float, alarms: float) -> float:
    raised = WRONG_RATE * recall + (1 - WRONG_RATE) * alarms
    return WRONG_RATE * recall / raised if raised else 0.0


def best_threshold(cases: Sequence[Case]) -> float:
    """Return the threshold of the highest F2 score, which counts recall for more than precision, at `WRONG_RATE`.

    Of several with that score it is the median.

    Raises:
        ValueError: all masks are wrong, or none is.
    """
    values = np.array([case.value for case in cases])
    wrong = np.array([case.wrong for case in cases], np.bool_)
    if wrong.all() or not wrong.any():
        raise ValueError(f"there must be wrong masks and right ones, not {wrong.sum()} wrong ones of {len(cases)}")

    def score(threshold: float) -> float:
        raised = values >= threshold
        recall, alarms = float(raised[wrong].mean()), float(raised[~wrong].mean())
        precision = _precision(recall, alarms)
        return 5 * precision * recall / (4 * precision + recall) if recall else 0.0

    scores = {threshold: score(threshold) for threshold in _THRESHOLDS}
    best = max(scores.values())
    return statistics.median(threshold for threshold, own in scores.items() if own == best)


def cross_validated(cases: Sequence[Case], seed: int = 0) -> dict[str, Any]:
    """Choose a threshold on one half of the photographs and judge it on the other, for many random halves.

    Halves to choose on that have no wrong masks, or no right ones, are passed over.

    Returns:
        "of_all", the threshold that all masks together would choose; the median and the tenth and ninetieth percentiles
        of the thresholds; means of the shares that `counted` gives on the halves that were not used to choose.
    """
    names = sorted({case.photo for case in cases})
    random = np.random.default_rng(seed)
    chosen, held_out = [], []
    for _ in range(_SPLITS):
        half = set(random.permutation(names)[: len(names) // 2].tolist())
        fitted = [case for case in cases if case.photo in half]
        if len({case.wrong for case in fitted}) == 2:
            chosen.append(best_threshold(fitted))
            held_out.append(counted([case for case in cases if case.photo not in half], chosen[-1]))
    shares = ("recall", "false_alarms", "precision")
    return {
        "photographs": len(names),
        "masks": len(cases),
        "of_all": best_threshold(cases),
        "threshold": statistics.median(chosen),
        "thresholds": np.percentile(chosen, [10, 90]).tolist(),
        **{name: statistics.fmean(x[name] for x in held_out if x[name] is not None) for name in shares},
    }
