"""How well two masks agree."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.ops.overlap import boundary_f, iou


def square(side: int, at: int = 20, size: int = 100) -> np.ndarray:
    bits = np.zeros((size, size), np.bool_)
    bits[at : at + side, at : at + side] = True
    return bits


def test_the_overlap_of_shifted_squares_is_as_counted() -> None:
    assert iou(square(40), square(40, 30)) == pytest.approx(900 / 2300)
    assert iou(square(40), ~square(40)) == 0


def test_two_empty_masks_count_as_told() -> None:
    empty = square(0)
    assert iou(empty, empty) == 1 and iou(empty, empty, both_empty=0) == 0
    assert boundary_f(empty, empty) == 1 and boundary_f(empty, square(9)) == 0


def test_outlines_agree_within_the_tolerance_and_not_beyond_it() -> None:
    # 0.8 % of a diagonal of 141 px is 1.13 px; two corners are 1.41 px away.
    assert boundary_f(square(40), square(40, 21)) > 0.98
    # A square in another of 5 px more on each side: no pixel of either outline is near.
    assert boundary_f(square(40), square(50, 15)) == 0


def test_half_a_subject_loses_precision_and_recall() -> None:
    whole, half = square(40), square(40)
    half[:, 40:] = False
    # Two thirds of its outline are near that of the whole, half of which is near.
    assert boundary_f(half, whole) == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5), abs=0.03)


def test_the_border_of_the_image_is_no_outline() -> None:
    left, other = np.zeros((2, 50, 50), np.bool_)
    left[:, :25], other[:, :26] = True, True
    assert boundary_f(left, other) == 1


def test_a_single_pixel_has_an_outline() -> None:
    assert boundary_f(square(1), square(1)) == 1 and boundary_f(square(1), square(1, 60)) == 0


@pytest.mark.parametrize("measure", [iou, boundary_f])
def test_masks_of_two_sizes_are_refused(measure) -> None:
    with pytest.raises(ValueError, match="one size"):
        measure(square(3), square(3, size=99))
