"""Numbers of a mask: each planted fault raises its own, and any input gives numbers or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgfast.ops.evidence import NAMES, SIDE, evidence
from fgfast.ops.flags import AGREEMENT

HEIGHT, WIDTH = 300, 400
BOX = np.array([100, 60, 300, 240], np.float32)


def disk(x: float = 200, y: float = 150, a: float = 100, b: float = 90) -> Any:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1


def drawn(subject: Any, seed: int = 0) -> Any:
    """A reddish subject on a bluish ground, both with grain."""
    numbers = np.random.default_rng(seed)
    colours = np.where(subject[..., None], (190, 90, 60), (70, 110, 170))
    return np.clip(colours + numbers.normal(0, 12, (*subject.shape, 3)), 0, 255).astype(np.uint8)


PIXELS, RIGHT = drawn(disk()), evidence(drawn(disk()), disk(), BOX)


def raised(name: str, bits: Any, box: Any = BOX, pixels: Any = PIXELS, by: float = 0.15) -> None:
    found = evidence(pixels, bits, box)
    assert found[name] > RIGHT[name] + by, f"{name}: {RIGHT[name]} -> {found[name]}"


def test_a_right_mask() -> None:
    assert [*RIGHT] == [*NAMES]
    assert RIGHT["box gap"] < 0.03 and 0.75 < RIGHT["fill"] < 0.82 and RIGHT["parts"] == 1
    for name in ("outside the box", "border contact", "holes", "alike colours", "colour leaks out", "colour leaks in"):
        assert RIGHT[name] < 0.02, name
    assert RIGHT["weak outline"] < 0.1 and RIGHT["missing outline"] < 0.02


def test_a_small_mask_leaves_a_gap_and_fills_little() -> None:
    small = disk(a=50, b=50)
    raised("box gap", small)
    assert evidence(PIXELS, small, BOX)["fill"] < 0.3


def test_outside_the_box() -> None:
    raised("outside the box", disk(x=260))


def test_straight_cut() -> None:
    half = np.array([100, 60, 200, 240], np.float32)
    bits = disk()
    bits[:, 200:] = False
    raised("straight cut", bits, half)
    at_border = evidence(PIXELS[:, 200:], disk()[:, 200:], np.array([0, 60, 100, 240], np.float32))
    assert at_border["straight cut"] < RIGHT["straight cut"] + 0.1  # the border of the image cuts nothing off


def test_border_contact_where_the_box_has_none() -> None:
    whole = np.ones((HEIGHT, WIDTH), np.bool_)
    whole[:60, :60] = False
    raised("border contact", whole)
    assert evidence(PIXELS, whole, np.array([0, 0, WIDTH, HEIGHT], np.float32))["border contact"] == 0


def test_parts_and_holes() -> None:
    two = disk(a=30, b=60, x=140) | disk(a=30, b=60, x=260)
    raised("parts", two, by=0.5)
    raised("holes", disk() & ~disk(a=50, b=50))
    specks = disk()
    specks[::40, ::40] = True
    assert evidence(PIXELS, specks, BOX)["parts"] == 1


def test_an_outline_without_edges_under_it() -> None:
    shifted = disk(x=150)
    raised("weak outline", shifted)
    raised("missing outline", shifted)


def test_colours_that_do_not_differ() -> None:
    same = np.random.default_rng(1).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    raised("alike colours", disk(), pixels=same, by=0.35)
    raised("alike surroundings", disk(), pixels=same, by=0.35)


def test_colours_leak() -> None:
    raised("colour leaks out", disk(a=80, b=72), by=0.5)
    raised("colour leaks in", disk(a=120, b=108), by=0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3), (0, 5), (5, 0), (40, 3000)])
@pytest.mark.parametrize("fill", [False, True])
def test_any_size(size: tuple[int, int], fill: bool) -> None:
    bits = np.full(size, fill)
    found = evidence(np.zeros((*size, 3), np.uint8), bits, np.array([0, 0, 2, 2], np.float32))
    assert set(found) <= set(NAMES)
    assert all(type(n) is float and np.isfinite(n) and n >= 0 for n in found.values())


@pytest.mark.parametrize(
    "box", [(-9e9, -9e9, 9e9, 9e9), (500, 500, 600, 600), (300, 240, 100, 60), (7, 7, 7, 7), (-50, -50, -10, -10)]
)
def test_any_box(box: tuple[float, ...]) -> None:
    found = evidence(PIXELS, disk(), np.array(box, np.float32))
    assert [*found] == [*NAMES]
    assert all(np.isfinite(n) and 0 <= n <= 1 for n in found.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_box_that_is_no_box(bad: float) -> None:
    found = evidence(PIXELS, disk(), np.array([bad, 0, 1, 1], np.float32))
    assert "box gap" not in found and "alike colours" in found


def test_empty_full_and_one_pixel() -> None:
    empty, one = np.zeros((HEIGHT, WIDTH), np.bool_), np.zeros((HEIGHT, WIDTH), np.bool_)
    one[150, 200] = True
    assert evidence(PIXELS, empty, BOX) == {"box gap": 1.0, "fill": 0.0}
    assert set(evidence(PIXELS, one, BOX)) <= {"box gap", "fill", "outside the box"}
    full = evidence(PIXELS, ~empty, BOX)
    assert "alike colours" not in full and "weak outline" not in full and full["outside the box"] > 0.6


def test_a_guess_does_not_bound_the_subject() -> None:
    assert set(NAMES) - set(evidence(PIXELS, disk(), BOX, guess=True)) == {"box gap", "fill"}


def test_banner_rows_are_not_looked_at() -> None:
    pixels, bits = PIXELS.copy(), disk()
    pixels[250:], bits[250:] = 255, True
    wanted = evidence(pixels[:250], bits[:250], BOX)
    assert evidence(pixels, bits, BOX, banner_rows=50) == wanted
    assert evidence(pixels, bits, BOX, banner_rows=9999) == {}


def test_a_huge_image_has_the_numbers_of_a_small_one() -> None:
    large, bits = (array.repeat(10, 0).repeat(10, 1) for array in (PIXELS, disk()))
    found = evidence(large, bits, BOX * 10)
    assert max(large.shape) > 10 * SIDE
    assert found == RIGHT  # averages of areas are those of the pixels that were repeated


def test_the_same_bits_give_the_same_numbers_on_any_layout() -> None:
    flipped = evidence(np.asfortranarray(PIXELS), np.asfortranarray(disk()), BOX)
    assert flipped == RIGHT


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"not \(300, 400, 3\) and \(299, 400\)"):
        evidence(PIXELS, disk()[1:], BOX)


def test_no_name_is_a_flags() -> None:
    assert not {*NAMES} & {*AGREEMENT, "empty", "full", "fragments", "hugs the box"}
