"""Polygons are drawn as COCO's own tools draw them, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fgfast.ops.polygons import polygon_mask
from fgfast.records import Size


@pytest.mark.parametrize("grid", [None, 1.0, 0.5], ids=["anywhere", "whole pixels", "half pixels"])
def test_equal_to_pycocotools(grid: float | None) -> None:
    rng = np.random.default_rng(3)
    for _ in range(150):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        points = rng.uniform(-10, 75, (int(rng.integers(3, 12)), 2))
        if grid is not None:
            points = np.round(points / grid) * grid
        if rng.random() < 0.2:
            points[1] = points[0]  # an edge without length
        rles = coco_mask.frPyObjects([points.ravel().tolist()], height, width)
        expected = coco_mask.decode(rles)[..., 0].astype(bool)
        np.testing.assert_array_equal(polygon_mask(points, Size(height, width)), expected)


def test_a_rectangle_covers_its_pixels() -> None:
    bits = polygon_mask(np.array([[2, 1], [6, 1], [6, 4], [2, 4]], np.float64), Size(8, 10))
    assert np.argwhere(bits).min(0).tolist() == [1, 2] and bits.sum() == 12
