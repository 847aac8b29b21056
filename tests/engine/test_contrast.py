"""Contrast of colours: both implementations to the bit; what the numbers mean is in tests/unit/test_evidence.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st


def make(height: int, width: int, seed: int, kind: str = "blob") -> tuple[Any, Any]:
    """Colours that overlap, and a mask: a blob, scattered pixels, nearly nothing or nearly everything."""
    numbers = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] + 0.5
    y, x, a, b = numbers.uniform(0.2, 0.8, 4)
    bits = ((rows / height - y) / a) ** 2 + ((columns / width - x) / b) ** 2 < 0.5
    if kind != "blob":
        bits = numbers.random((height, width)) < {"scattered": 0.5, "few": 0.01, "most": 0.99}[kind]
    spread = numbers.uniform(2, 60)
    lab = np.where(bits[..., None], numbers.integers(60, 200, 3), numbers.integers(60, 200, 3))
    return np.clip(lab + numbers.normal(0, spread, lab.shape), 0, 255).astype(np.uint8), bits


@needs_native
@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["blob", "blob", "scattered", "few", "most"]),
)
def test_implementations_agree(size: Any, seed: int, kind: str) -> None:
    lab, bits = make(*size, seed, kind)
    found = native.colour_contrast(lab, bits)
    np.testing.assert_array_equal(found, reference.colour_contrast(lab, bits))
    numbers = found[~np.isnan(found)]
    assert ((numbers >= 0) & (numbers <= 1)).all()


@needs_native
@pytest.mark.parametrize("size", [(256, 192), (1, 2**14), (2**14, 64)])
def test_they_agree_on_the_largest(size: Any) -> None:
    """Whose distances are the longest."""
    lab, bits = make(*size, 1)
    bits[:], bits[: size[0] // 40 + 1, : size[1] // 40 + 1] = False, True
    np.testing.assert_array_equal(native.colour_contrast(lab, bits), reference.colour_contrast(lab, bits))


@needs_native
@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("level", [0, 31, 32, 67, 68, 69, 77, 78, 118, 127, 137, 138, 187, 188, 223, 224, 255])
def test_two_colours(channel: int, level: int) -> None:
    """A subject of one colour in surroundings of another, at both ends and at the edges of bins."""
    bits = np.zeros((72, 72), np.bool_)
    bits[18:54, 18:54] = True
    lab = np.full((72, 72, 3), 128, np.uint8)
    lab[bits, channel] = level
    found = native.colour_contrast(lab, bits)
    np.testing.assert_array_equal(found, reference.colour_contrast(lab, bits))
    if abs(level - 128) > 9 and channel:  # another bin
        np.testing.assert_array_equal(found, np.zeros(4))


@implementations
def test_nothing_everything_and_one_pixel(face: Face) -> None:
    lab, bits = make(60, 80, 3)
    none = np.zeros_like(bits)
    assert np.isnan(face.colour_contrast(lab, none)).all()
    assert np.isnan(face.colour_contrast(lab, ~none)).all()
    assert np.isnan(face.colour_contrast(lab[:1, :1], bits[:1, :1])).all()
    one = none.copy()
    one[30, 40] = True
    assert np.isnan(face.colour_contrast(lab, one)[:2]).all()


@implementations
def test_any_layout_and_any_true(face: Face) -> None:
    lab, bits = make(90, 70, 5)
    wanted = face.colour_contrast(lab, bits)
    assert not np.isnan(wanted).any()
    np.testing.assert_array_equal(face.colour_contrast(np.asfortranarray(lab), np.asfortranarray(bits)), wanted)
    np.testing.assert_array_equal(face.colour_contrast(lab, (bits * np.uint8(2)).view(np.bool_)), wanted)
    wide = lab.repeat(2, 1), bits.repeat(2, 1)
    np.testing.assert_array_equal(face.colour_contrast(wide[0][:, ::2], wide[1][:, ::2]), wanted)


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lab": np.zeros((4, 5, 3))}, TypeError, "lab must be uint8, not float64"),
        ({"lab": np.zeros((4, 5, 4), np.uint8)}, ValueError, r"not \(4, 5, 4\) and \(4, 5\)"),
        ({"bits": np.zeros((4, 6), np.bool_)}, ValueError, r"not \(4, 5, 3\) and \(4, 6\)"),
        ({"bits": np.zeros((4, 5), np.uint8)}, TypeError, "bits must be bool, not uint8"),
        (
            {"lab": np.zeros((0, 5, 3), np.uint8), "bits": np.zeros((0, 5), np.bool_)},
            ValueError,
            "height of bits must be 1 to 16384, not 0",
        ),
        (
            {"lab": np.zeros((2000, 2000, 3), np.uint8), "bits": np.zeros((2000, 2000), np.bool_)},
            ValueError,
            "number of pixels of bits must be 1 to 1048576, not 4000000",
        ),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        face.colour_contrast(**{"lab": np.zeros((4, 5, 3), np.uint8), "bits": np.zeros((4, 5), np.bool_), **change})
