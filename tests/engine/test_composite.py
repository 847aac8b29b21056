"""Crop and compositing: one body for both implementations, against pixel-by-pixel expectations."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from engine.implementations import INSTALLED, Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fgfast import ops
from fgfast.errors import UnknownNameError, UsageError

WHITE = np.full(3, 255, np.uint8)


def make_image(height: int, width: int, seed: int = 0) -> tuple[Any, Any]:
    """A random image and a mask of one blob with some noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    bits = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2
    return pixels, bits ^ (rng.random((height, width)) < 0.02)


def expected(pixels: Any, bits: Any, background: Any, window: Any, alpha: bool) -> Any:
    """The definition, one pixel at a time."""
    x0, y0, x1, y1 = window
    rows = []
    for y in range(y0, y1):
        for x in range(x0, x1):
            subject = 0 <= y < bits.shape[0] and 0 <= x < bits.shape[1] and bits[y, x]
            if alpha:
                rows.append([*pixels[y, x], 255] if subject else [0, 0, 0, 0])
            elif subject:
                rows.append([*pixels[y, x]])
            else:
                rows.append([*(background if background.ndim == 1 else background[y - y0, x - x0])])
    channels = 4 if alpha else 3
    return np.array(rows, np.uint8).reshape(y1 - y0, x1 - x0, channels)


def test_native_is_installed_where_required() -> None:
    if os.environ.get("FGFAST_REQUIRE_NATIVE") != "1":
        pytest.skip("FGFAST_REQUIRE_NATIVE is not 1")
    assert INSTALLED


@implementations
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("window", [None, (3, 2, 20, 17), (-4, -5, 40, 50), (100, 0, 110, 4), (5, 5, 5, 9)])
@pytest.mark.parametrize("flat", [True, False])
def test_every_pixel(face: Face, alpha: bool, window: Any, flat: bool) -> None:
    pixels, bits = make_image(23, 31)
    x0, y0, x1, y1 = whole = window or (0, 0, 31, 23)
    rng = np.random.default_rng(1)
    background = rng.integers(0, 256, (3,) if flat else (y1 - y0, x1 - x0, 3), np.uint8)
    made = face.composite(pixels, bits, background, window, alpha)
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, expected(pixels, bits, background, whole, alpha))


@needs_native
@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(0, 40), st.integers(0, 70)),
    corner=st.tuples(st.integers(-80, 80), st.integers(-50, 50)),
    window_size=st.tuples(st.integers(0, 90), st.integers(0, 60)),
    density=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    flat=st.booleans(),
    alpha=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_native_equals_reference(
    size: Any, corner: Any, window_size: Any, density: float, flat: bool, alpha: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    bits = rng.random(size) < density
    window = (*corner, corner[0] + window_size[0], corner[1] + window_size[1])
    background = rng.integers(0, 256, (3,) if flat else (window_size[1], window_size[0], 3), np.uint8)
    np.testing.assert_array_equal(
        native.composite(pixels, bits, background, window, alpha),
        reference.composite(pixels, bits, background, window, alpha),
    )


@implementations
def test_transparent_keeps_no_colour_and_needs_no_background(face: Face) -> None:
    pixels, bits = make_image(30, 40)
    made = face.composite(pixels, bits, None, alpha=True)
    assert not made[~bits].any()
    assert (made[bits, 3] == 255).all()


@implementations
def test_strided_arrays_and_read_only_arrays(face: Face) -> None:
    pixels, bits = make_image(40, 60)
    background = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
    turned = face.composite(pixels[::-2, ::3], bits[::-2, ::3], background[::-2, ::3])
    plain = face.composite(*(array[::-2, ::3].copy() for array in (pixels, bits, background)))
    np.testing.assert_array_equal(turned, plain)
    for array in (pixels, bits, background):
        array.flags.writeable = False
    np.testing.assert_array_equal(
        face.composite(pixels, bits, background), expected(pixels, bits, background, (0, 0, 60, 40), False)
    )


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pixels": np.zeros((4, 5, 3), np.float32)}, TypeError, "pixels must be uint8, not float32"),
        ({"pixels": [[1]]}, TypeError, "pixels must be a NumPy array, not list"),
        ({"pixels": np.zeros((4, 5), np.uint8)}, ValueError, "pixels must have 3 dimensions"),
        ({"pixels": np.zeros((4, 5, 4), np.uint8)}, ValueError, r"pixels must have shape \(H, W, 3\)"),
        ({"bits": np.zeros((4, 5), np.uint8)}, TypeError, "bits must be bool, not uint8"),
        ({"bits": np.zeros((5, 4), np.bool_)}, ValueError, "bits must have the image's shape"),
        ({"background": (255, 255, 255)}, TypeError, "background must be a NumPy array, not tuple"),
        ({"background": None}, TypeError, "background must be a NumPy array, not NoneType"),
        ({"background": np.zeros((1, 5, 3), np.uint8)}, ValueError, "background must have shape"),
        ({"background": np.zeros(4, np.uint8)}, ValueError, "background must have shape"),
        ({"window": (0, 0, 2.5, 3)}, TypeError, "window must be four integers"),
        ({"window": (0, 0, 2)}, TypeError, "window must be four integers"),
        ({"window": (3, 0, 2, 4)}, ValueError, "x0 <= x1"),
        ({"window": (0, 0, 2**40, 4)}, ValueError, "within"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    arguments = {
        "pixels": np.zeros((4, 5, 3), np.uint8),
        "bits": np.zeros((4, 5), np.bool_),
        "background": WHITE,
    }
    with pytest.raises(error, match=words):
        face.composite(**{**arguments, **change})


class TestChoice:
    """FGFAST_OPS and what happens without the native module."""

    @pytest.fixture(autouse=True)
    def forget(self) -> Any:
        ops._resolve.cache_clear()
        yield
        ops._resolve.cache_clear()

    def test_reference_can_be_forced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FGFAST_OPS", "reference")
        assert ops.implementation() == "reference"

    def test_unknown_name_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FGFAST_OPS", "natve")
        with pytest.raises(UnknownNameError, match="Did you mean 'native'"):
            ops.implementation()

    @needs_native
    def test_native_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FGFAST_OPS", raising=False)
        assert ops.implementation() == "native"

    @pytest.mark.parametrize("wanted", ["", "native"])
    def test_without_the_module(self, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
        monkeypatch.setenv("FGFAST_OPS", wanted)
        monkeypatch.setitem(sys.modules, "fgfast._native", None)
        if wanted:
            with pytest.raises(UsageError, match=r"fgfast\._native is not installed"):
                ops.implementation()
        else:
            assert ops.implementation() == "reference"
