"""Distances to the edge of a mask: exact, and the same wherever the mask lies in memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from fgfast.ops.distances import EXACT, distances


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (60, 80), (7, EXACT)])
def test_they_are_those_of_scipy_wherever_the_mask_lies(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(shape[1])
    for share in (0.02, 0.5, 0.999):
        bits = generator.random(shape) < share
        bits[0, 0] = False
        wanted = distance_transform_edt(bits).astype(np.float32)
        room = np.zeros(bits.size + 64, np.bool_)
        for offset in range(0, 64, 7):
            moved = room[offset : offset + bits.size].reshape(shape)
            moved[:] = bits
            assert np.array_equal(distances(moved), wanted)


def test_the_far_corner_of_a_large_image() -> None:
    bits = np.ones((EXACT * 7 // 10, EXACT * 7 // 10), np.bool_)
    bits[0, 0] = False
    assert np.array_equal(distances(bits), distance_transform_edt(bits).astype(np.float32))


def test_without_another_side_they_are_infinite() -> None:
    assert np.isinf(distances(np.ones((3, 4), np.bool_))).all() and not distances(np.zeros((3, 4), np.bool_)).any()
