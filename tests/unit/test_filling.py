"""Filling the box of a subject, against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest

from fgfast.ops.filling import blackened, inpainted, largest_beside, share, tiled, widened

BOXES = [(3, 2, 9, 7), (0, 0, 4, 4), (5, 0, 16, 10), (0, 4, 16, 9), (15, 9, 16, 10), (6, 5, 6, 5)]


def image(height: int = 10, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("box", BOXES)
def test_the_largest_rectangle_is_the_largest_of_all(box: tuple[int, int, int, int]) -> None:
    taken = np.zeros((10, 16), np.bool_)
    taken[box[1] : box[3], box[0] : box[2]] = True
    best = max(
        (x1 - x0) * (y1 - y0)
        for y0 in range(10)
        for y1 in range(y0 + 1, 11)
        for x0 in range(16)
        for x1 in range(x0 + 1, 17)
        if not taken[y0:y1, x0:x1].any() and (taken.any() or (y0, x0) == (0, 0))
    )
    x0, y0, x1, y1 = largest_beside(box, (10, 16))
    assert not taken[y0:y1, x0:x1].any()
    assert (x1 - x0) * (y1 - y0) == best or not taken.any()


@pytest.mark.parametrize("box", BOXES)
def test_tiles_are_those_of_the_oracle(box: tuple[int, int, int, int]) -> None:
    pixels = image()
    expected, (left, top, right, bottom) = pixels.copy(), largest_beside(box, (10, 16))
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            expected[y, x] = pixels[top + (y - box[1]) % (bottom - top), left + (x - box[0]) % (right - left)]
    assert (tiled(pixels, box) == expected).all()


@pytest.mark.parametrize("size", [(10, 16), (300, 700)])
@pytest.mark.parametrize("fill", [tiled, inpainted, blackened])
def test_nothing_of_the_box_survives(fill, size: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    pixels = image(*size)
    box = (size[1] // 4, 0, size[1] // 2, size[0] // 2)
    other = pixels.copy()
    other[box[1] : box[3], box[0] : box[2]] ^= 255
    before = other.copy()
    first, second = fill(pixels, box), fill(other, box)
    assert (first == second).all() and (other == before).all()
    outside = np.ones(size, np.bool_)
    outside[box[1] : box[3], box[0] : box[2]] = False
    assert (first[outside] == pixels[outside]).all()


@pytest.mark.parametrize("fill", [tiled, inpainted])
@pytest.mark.parametrize("size", [(1, 1), (10, 16), (300, 700)])
def test_a_box_that_covers_everything_leaves_no_background(fill, size: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no background"):
        fill(image(*size), (0, 0, size[1], size[0]))


def test_a_sliver_of_background_is_enough() -> None:
    pixels = image(900, 900)
    box = (1, 0, 900, 900)
    for fill in (tiled, inpainted):
        assert (fill(pixels, box)[:, 0] == pixels[:, 0]).all()


def test_black_is_black() -> None:
    assert (blackened(image(), (3, 2, 9, 7))[2:7, 3:9] == 0).all()


def test_an_inpainted_box_continues_its_surroundings() -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[:] = (20, 120, 200)
    assert np.abs(inpainted(pixels, (100, 100, 400, 300)).astype(int) - pixels).max() <= 1


def test_shares_and_margins() -> None:
    assert share((0, 0, 8, 5), (10, 16)) == 0.25 and share((3, 3, 3, 3), (10, 16)) == 0
    assert widened((1, 2, 15, 9), 3, (10, 16)) == (0, 0, 16, 10)
