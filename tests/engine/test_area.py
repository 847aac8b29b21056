"""Averages over areas: both implementations to the bit, against fractions computed pixel by pixel, and OpenCV's."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fgfast import ops

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def make(height: int, width: int, seed: int = 0) -> tuple[Any, Any]:
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (height, width, 3), np.uint8), numbers.random((height, width)) < numbers.random()


def shares(length: int, wanted: int) -> list[list[tuple[int, Fraction]]]:
    """Of each pixel of the result, the pixels that it covers and the parts of it that they are."""
    step = Fraction(length, wanted)
    spans = [
        [(n, min(Fraction(n + 1), (k + 1) * step) - max(Fraction(n), k * step)) for n in range(length)]
        for k in range(wanted)
    ]
    return [[(n, part / step) for n, part in span if part > 0] for span in spans]


def by_fractions(array: Any, size: tuple[int, int]) -> Any:
    down, across = (shares(length, wanted) for length, wanted in zip(array.shape, size, strict=False))
    sums = [[sum(p * q * int(array[y, x]) for y, p in ys for x, q in xs) for xs in across] for ys in down]
    return np.array([[int(total + Fraction(1, 2)) for total in row] for row in sums], np.uint8)


@implementations
@pytest.mark.parametrize(
    ("before", "after"),
    [((1, 1), (1, 1)), ((7, 5), (1, 1)), ((7, 5), (7, 5)), ((6, 8), (3, 4)), ((11, 13), (7, 9)), ((9, 12), (6, 5))],
)
def test_is_exact(face: Face, before: Any, after: Any) -> None:
    pixels, bits = make(*before)
    found = face.area_average(pixels, after)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], by_fractions(pixels[..., channel], after))
    np.testing.assert_array_equal(face.area_coverage(bits, after), by_fractions(bits * np.uint8(255), after))


@needs_native
@settings(max_examples=50, deadline=None)
@given(before=SIZES, after=SIZES, level=st.sampled_from([None, 0, 1, 255]), seed=st.integers(0, 2**32 - 1))
def test_implementations_agree(before: Any, after: Any, level: int | None, seed: int) -> None:
    pixels, bits = make(*before, seed)
    if level is not None:
        pixels[:], bits[:] = level, level > 0
    size = min(before[0], after[0]), min(before[1], after[1])
    np.testing.assert_array_equal(native.area_average(pixels, size), reference.area_average(pixels, size))
    np.testing.assert_array_equal(native.area_coverage(bits, size), reference.area_coverage(bits, size))
    if level is not None:
        assert (native.area_average(pixels, size) == level).all()


@pytest.mark.parametrize(
    ("before", "after"), [((375, 500), (192, 256)), ((512, 384), (256, 192)), ((901, 1279), (180, 256))]
)
def test_is_opencvs_up_to_rounding(before: Any, after: Any) -> None:
    """OpenCV averages in float32, and rounds some halves to even: a grey level, hardly anywhere."""
    pixels, _ = make(*before)
    theirs = cv2.resize(pixels, after[::-1], interpolation=cv2.INTER_AREA)
    distance = np.abs(ops.area_average(pixels, after).astype(int) - theirs)
    assert distance.max() <= 1 and (distance > 0).mean() < 0.001


# Sums of the first have 31 bits, whose quotients are float32; those of the second have more.
WIDE = [((2047, 2049), (2, 4)), ((2049, 2048), (2, 3))]


@needs_native
@pytest.mark.parametrize(("before", "after"), [((1, 2**20), (1, 2**18 - 1)), ((2**20, 1), (3, 1)), *WIDE])
def test_the_longest_sides(before: Any, after: Any) -> None:
    """Sums, and what divides them, are at their largest."""
    pixels, bits = make(*before)
    pixels[pixels > 99] = 255
    np.testing.assert_array_equal(native.area_average(pixels, after), reference.area_average(pixels, after))
    np.testing.assert_array_equal(native.area_coverage(bits, after), reference.area_coverage(bits, after))


@implementations
def test_any_layout_and_any_true(face: Face) -> None:
    pixels, bits = make(40, 60)
    wanted = face.area_average(pixels[::-1, ::2].copy(), (9, 7)), face.area_coverage(bits[::-1, ::2].copy(), (9, 7))
    np.testing.assert_array_equal(face.area_average(pixels[::-1, ::2], (9, 7)), wanted[0])
    np.testing.assert_array_equal(face.area_coverage(bits[::-1, ::2], (9, 7)), wanted[1])
    twos = (bits * np.uint8(2)).view(np.bool_)
    np.testing.assert_array_equal(face.area_coverage(twos, (9, 7)), face.area_coverage(bits, (9, 7)))
    np.testing.assert_array_equal(face.area_coverage(np.asfortranarray(twos), (9, 7)), face.area_coverage(bits, (9, 7)))


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pixels": np.zeros((4, 5, 3))}, TypeError, "pixels must be uint8, not float64"),
        ({"pixels": np.zeros((4, 5, 4), np.uint8)}, ValueError, r"pixels must have shape \(H, W, 3\)"),
        ({"pixels": np.zeros((0, 5, 3), np.uint8)}, ValueError, "height of pixels must be 1 to 1048576, not 0"),
        ({"size": (0, 3)}, ValueError, "height of size must be 1 to 4, not 0"),
        ({"size": (4, 6)}, ValueError, "width of size must be 1 to 5, not 6"),
        ({"size": (3, 2.5)}, TypeError, "width of size must be an int, not float"),
        ({"size": (3,)}, ValueError, r"size must be \(height, width\)"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        face.area_average(**{"pixels": np.zeros((4, 5, 3), np.uint8), "size": (3, 2), **change})


@implementations
def test_a_wrong_mask_is_named(face: Face) -> None:
    with pytest.raises(TypeError, match="bits must be bool, not uint8"):
        face.area_coverage(np.zeros((4, 5), np.uint8), (2, 2))
    with pytest.raises(ValueError, match="width of bits must be 1 to 1048576, not 0"):
        face.area_coverage(np.zeros((4, 0), np.bool_), (2, 2))
