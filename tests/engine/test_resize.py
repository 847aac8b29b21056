"""Resizing: both implementations against the installed Pillow, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
from engine.implementations import Face, implementations, native, needs_native
from hypothesis import given, settings
from hypothesis import strategies as st

from fgfast import ops


def by_pillow(pixels: Any, size: tuple[int, int]) -> Any:
    return np.asarray(PIL.Image.fromarray(pixels).resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR))


def make_image(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@implementations
@settings(max_examples=150, deadline=None)
@given(
    before=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    after=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    level=st.sampled_from([None, 0, 255]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_pillow(face: Face, before: Any, after: Any, level: int | None, seed: int) -> None:
    pixels = make_image(*before, seed) if level is None else np.full((*before, 3), level, np.uint8)
    np.testing.assert_array_equal(face.resize(pixels, after), by_pillow(pixels, after))


@implementations
@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("width", [(60, 41), (60, 60), (60, 70)])
def test_either_pass_may_be_first(face: Face, width: tuple[int, int], more: int) -> None:
    """Around the sizes where Pillow 13 and later begin with the columns."""
    pixels = make_image(90, width[0])
    size = (90 - max(2 * (width[0] - width[1]), 0) - more, width[1])
    np.testing.assert_array_equal(face.resize(pixels, size), by_pillow(pixels, size))


@needs_native
@pytest.mark.parametrize(("before", "after"), [((1500, 1600), (960, 1024)), ((1700, 1300), (200, 1200))])
def test_threads_change_nothing(before: Any, after: Any) -> None:
    """Large enough that they are used: a share is a million pixels."""
    pixels = make_image(*before)
    np.testing.assert_array_equal(native.resize(pixels, after, threads=3), by_pillow(pixels, after))


@implementations
def test_writes_into_a_part_of_a_canvas(face: Face) -> None:
    pixels, canvas = make_image(20, 30)[::-1, ::2], np.full((40, 50, 3), 7, np.uint8)
    part = canvas[3:36, 5:47]
    assert face.resize(pixels, (33, 42), out=part) is part
    np.testing.assert_array_equal(part, by_pillow(np.ascontiguousarray(pixels), (33, 42)))
    canvas[3:36, 5:47] = 7
    assert (canvas == 7).all()


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pixels": np.zeros((4, 5, 3))}, TypeError, "pixels must be uint8, not float64"),
        ({"pixels": np.zeros((4, 5, 4), np.uint8)}, ValueError, r"pixels must have shape \(H, W, 3\)"),
        ({"pixels": np.zeros((0, 5, 3), np.uint8)}, ValueError, "height of pixels must be 1 to 1048576, not 0"),
        ({"size": (0, 3)}, ValueError, "h of size must be 1 to 1048576, not 0"),
        ({"size": (3, 2.5)}, TypeError, "w of size must be an int, not float"),
        ({"size": (3,)}, ValueError, r"size must be \(height, width\)"),
        ({"size": None}, TypeError, r"size must be \(height, width\), not NoneType"),
        ({"out": np.zeros((6, 8, 3), np.uint8)}, ValueError, r"out must have shape \(6, 7, 3\)"),
        ({"out": np.zeros((6, 7, 6), np.uint8)[..., ::2]}, ValueError, "out must have contiguous rows"),
        ({"out": np.zeros((6, 7, 3), np.uint8)[::-1]}, ValueError, "out must have contiguous rows"),
        ({"threads": 0}, ValueError, "threads must be 1 to"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    arguments = {"pixels": np.zeros((4, 5, 3), np.uint8), "size": (6, 7)}
    with pytest.raises(error, match=words):
        face.resize(**{**arguments, **change})


@implementations
def test_out_may_not_share_memory_with_pixels(face: Face) -> None:
    canvas = np.zeros((9, 7, 3), np.uint8)
    with pytest.raises(ValueError, match="out must not share memory with pixels"):
        face.resize(canvas[:5], (6, 7), out=canvas[3:])


@implementations
def test_strides_of_an_axis_of_length_one_say_nothing(face: Face) -> None:
    pixels, canvas = make_image(5, 6), np.zeros((9, 7, 3), np.uint8)
    for out in (canvas[::-1][2:3], canvas[:, ::2][:, :1]):
        np.testing.assert_array_equal(face.resize(pixels, out.shape[:2], out=out), by_pillow(pixels, out.shape[:2]))


def test_choice() -> None:
    pixels = make_image(12, 9)
    np.testing.assert_array_equal(ops.resize(pixels, (7, 20)), by_pillow(pixels, (7, 20)))
