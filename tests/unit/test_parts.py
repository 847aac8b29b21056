"""Parts as arrays: cells of a mask, maps, windows."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.ops.parts import (
    NO_PART,
    cell_at,
    cells_inside,
    colour_cells,
    coverage,
    cut_window,
    grid_of,
    membership_maps,
    part_centres,
    place_cells,
    point_heat_maps,
    point_in,
    spread_labels,
    window_around,
)
from fgfast.records import Size


def disc(size: int = 40, radius: float = 12) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return (x + 0.5 - size / 2) ** 2 + (y + 0.5 - size / 2) ** 2 <= radius * radius


@pytest.mark.parametrize(
    ("size", "grid"), [((30, 60), (5, 10)), ((60, 30), (10, 5)), ((1, 1000), (1, 10)), ((1, 1), (10, 10))]
)
def test_a_grid_has_the_proportions_of_its_image(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert grid_of(Size(*size), 10) == grid
    assert grid_of(Size(*size), 140, 14) == (max(grid[0] * 14, 14), max(grid[1] * 14, 14))


def test_coverage_is_that_of_blocks_and_keeps_the_area() -> None:
    bits = disc(40)
    blocks = bits.reshape(10, 4, 10, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coverage(bits, Size(10, 10)) / 255, blocks, atol=0.5 / 255)
    for grid in (Size(7, 9), Size(1, 1), Size(90, 50)):
        assert coverage(bits, grid).mean() / 255 == pytest.approx(bits.mean(), abs=0.5 / 255)


def test_colours_and_places_of_cells_are_those_of_their_middles() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = 255, 0, 0
    colours = colour_cells(pixels, Size(2, 4))
    np.testing.assert_allclose(colours[:, :2], 0, atol=1e-3)
    np.testing.assert_allclose(colours[0, 3], (53.24, 80.09, 67.20), atol=0.02)  # CIE Lab of sRGB's red
    places = place_cells(np.array([10, 0, 30, 10], np.float32), Size(20, 40), Size(2, 4))
    assert places[0, :, 0].tolist() == [-0.25, 0.25, 0.75, 1.25] and places[:, 0, 1].tolist() == [0.5, 1.5]
    assert cell_at(39.9, 10, Size(20, 40), Size(2, 4)) == (1, 3)
    assert cell_at(40, 10, Size(20, 40), Size(2, 4)) is None is cell_at(-1, 0, Size(20, 40), Size(2, 4))


def test_no_background_reaches_the_colour_of_a_cell_on_the_edge() -> None:
    bits, grid = disc(), Size(8, 8)
    pixels = np.where(bits[..., None], np.array([90, 160, 30], np.uint8), np.array([255, 0, 255], np.uint8))
    inside = cells_inside(bits, grid)
    alone = colour_cells(np.broadcast_to(np.array([90, 160, 30], np.uint8), (8, 8, 3)), grid)
    assert np.abs(colour_cells(pixels, grid, bits)[inside] - alone[inside]).max() < 1.5
    assert np.abs(colour_cells(pixels, grid)[inside] - alone[inside]).max() > 30


def test_a_subject_of_one_pixel_has_one_cell_and_an_empty_one_none() -> None:
    bits = np.zeros((40, 40), np.bool_)
    assert not cells_inside(bits, Size(4, 4)).any()
    bits[33, 12] = True
    assert np.argwhere(cells_inside(bits, Size(4, 4))).tolist() == [[3, 1]]
    speck = np.zeros((400, 400), np.bool_)
    speck[399, 0] = True
    assert np.argwhere(cells_inside(speck, Size(4, 4))).tolist() == [[3, 0]]
    assert cells_inside(np.ones((40, 40), np.bool_), Size(4, 4)).all()


def test_each_pixel_of_the_subject_has_the_part_of_the_nearest_cell() -> None:
    bits = disc()
    labels = np.full((4, 4), NO_PART)
    labels[1:3, 1], labels[1:3, 2] = 0, 1
    found = spread_labels(labels, bits)
    assert set(np.unique(found[bits])) == {0, 1} and (found[~bits] == NO_PART).all()
    assert (found[:, :20][bits[:, :20]] == 0).all() and (found[:, 20:][bits[:, 20:]] == 1).all()
    assert (spread_labels(np.full((4, 4), NO_PART), bits) == NO_PART).all()


def test_centres_are_means_of_the_middles_of_pixels() -> None:
    labels = np.full((6, 8), NO_PART)
    labels[2:4, 1:5], labels[5, 7] = 0, 2
    xy, counts = part_centres(labels, 3)
    assert counts.tolist() == [8, 0, 1]
    assert xy[0].tolist() == [3, 3] and xy[2].tolist() == [7.5, 5.5] and np.isnan(xy[1]).all()


def test_heat_maps_are_gaussians_of_visible_points() -> None:
    points = np.array([[10, 30, 1], [5, 5, 0], [-90, 10, 1]], np.float32)
    maps = point_heat_maps(points, Size(40, 80), Size(20, 40), 4)
    y, x = np.mgrid[1:40:2, 1:80:2]
    wanted = np.rint(255 * np.exp(-((x - 10.0) ** 2 + (y - 30.0) ** 2) / 32))
    np.testing.assert_array_equal(maps[0], wanted)
    assert not maps[1:].any()


def test_memberships_of_all_parts_make_up_the_subject() -> None:
    bits, grid = disc(), Size(5, 5)
    labels = np.where(bits, (np.arange(40) // 10)[None, :], NO_PART)
    maps = membership_maps(labels, 4, grid)
    assert maps.shape == (4, 5, 5)
    np.testing.assert_allclose(maps.sum(axis=0, dtype=np.float64), coverage(bits, grid), atol=4)


def test_a_window_is_centred_and_black_beyond_the_image() -> None:
    assert window_around(10, 20, 4) == (8, 18, 12, 22)
    assert window_around(10.5, 20.5, 5) == (8, 18, 13, 23)
    pixels = np.arange(1, 61, dtype=np.uint8).reshape(4, 5, 3)
    np.testing.assert_array_equal(cut_window(pixels, (0, 0, 5, 4)), pixels)
    corner = cut_window(pixels, (-2, -2, 2, 2))
    np.testing.assert_array_equal(corner[2:, 2:], pixels[:2, :2])
    assert not corner[:2].any() and not corner[:, :2].any()
    assert not cut_window(pixels, (100, 100, 103, 103)).any()


def test_a_point_beyond_the_image_is_in_no_mask() -> None:
    bits = np.ones((4, 5), np.bool_)
    assert point_in(bits, 4.9, 3.9) and point_in(bits, 0, 0)
    assert not any(point_in(bits, x, y) for x, y in ((5, 0), (-0.1, 0), (0, 4), (float("nan"), 0)))
