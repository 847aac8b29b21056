"""The fit of a flag's threshold: what it counts, and that it is judged on photographs that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.bench.flagging import WRONG_RATE, Case, best_threshold, counted, cross_validated, moved_boxes
from fgfast.ops.geometry import box_area, iou
from fgfast.records import Size

BOX = np.array([100, 50, 300, 150], np.float32)
SIZE = Size(200, 400)


def cases(*pairs: tuple[float, bool]) -> list[Case]:
    return [Case(f"{n}", "given", value, wrong) for n, (value, wrong) in enumerate(pairs)]


def drawn(photos: int, apart: float, seed: int = 0) -> list[Case]:
    """Numbers that are larger by `apart` where the mask is wrong, which one of four is."""
    rng = np.random.default_rng(seed)
    wrong = [n % 4 == 0 for n in range(4)] * photos
    return [Case(f"{n // 4}", "given", float(rng.random() * 0.2 + apart * w), w) for n, w in enumerate(wrong)]


def test_shares_are_of_what_they_say() -> None:
    found = counted(cases((0.9, True), (0.5, True), (0.1, True), (0.5, False), (0.2, False)), 0.5)
    assert (found["masks"], found["wrong"], found["flagged"], found["found"]) == (5, 3, 3, 2)
    assert (found["recall"], found["false_alarms"]) == (pytest.approx(2 / 3), 0.5)
    raised = WRONG_RATE * 2 / 3 + (1 - WRONG_RATE) / 2
    assert found["precision"] == pytest.approx(WRONG_RATE * 2 / 3 / raised)


def test_shares_of_nothing_are_none() -> None:
    found = counted(cases((0.9, False)), 0.5)
    assert (found["recall"], found["false_alarms"], found["precision"]) == (None, 1.0, None)
    assert counted(cases((0.9, True), (0.1, False)), 0.95)["precision"] == 0.0


def test_the_threshold_parts_what_can_be_parted() -> None:
    assert best_threshold(drawn(20, 0.5)) == pytest.approx(0.35, abs=0.02)
    with pytest.raises(ValueError, match="not 0 wrong ones of 2"):
        best_threshold(cases((0.1, False), (0.2, False)))


def test_held_out_photographs_of_a_perfect_number_are_all_found() -> None:
    found = cross_validated(drawn(20, 0.5))
    assert (found["recall"], found["false_alarms"], found["precision"]) == (1.0, 0.0, 1.0)
    assert (found["photographs"], found["masks"]) == (20, 80)
    assert found == cross_validated(drawn(20, 0.5))


def test_a_number_that_says_nothing_is_no_better_than_chance() -> None:
    """Judged on the photographs it was chosen on, a threshold among random numbers would look better."""
    found = cross_validated(drawn(30, 0.0, seed=2))
    assert found["precision"] == pytest.approx(WRONG_RATE, abs=0.04)
    assert abs(found["recall"] - found["false_alarms"]) < 0.15


def test_boxes_are_moved_by_what_their_kind_says() -> None:
    moved = list(moved_boxes(BOX, SIZE))
    kinds = [kind for kind, _ in moved]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "cut 0.1": 4,
        "cut 0.2": 4,
        "loose 0.05": 1,
        "loose 0.15": 1,
        "shifted": 1,
    }
    for kind, box in moved:
        area = float(box_area(box) / box_area(BOX))
        expected = {"cut 0.1": 0.9, "cut 0.2": 0.8, "loose 0.05": 1.21, "loose 0.15": 1.69, "shifted": 1}[kind]
        assert area == pytest.approx(expected, abs=1e-4)
        assert 0.5 < iou(box[None], BOX[None])[0, 0] < 1
    assert len({tuple(box.tolist()) for _, box in moved}) == len(moved)
    edge = dict(moved_boxes(np.array([0, 0, 400, 200], np.float32), SIZE))
    assert edge["loose 0.15"].tolist() == [0, 0, 400, 200]
