"""Run-length strings: one body for both implementations, against pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

coco = pytest.importorskip("pycocotools.mask")


def masks() -> Any:
    """Masks of every small shape and density, blobs and noise, some of them turned or strided."""

    def make(height: int, width: int, density: float, scale: int, seed: int, turned: bool) -> Any:
        cells = np.random.default_rng(seed).random((height // scale + 1, width // scale + 1)) < density
        bits = np.kron(cells, np.ones((scale, scale), np.bool_))[:height, :width].astype(np.bool_)
        return bits.T if turned else bits

    return st.builds(
        make,
        height=st.integers(0, 50),
        width=st.integers(0, 50),
        density=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
        scale=st.integers(1, 9),
        seed=st.integers(0, 2**32 - 1),
        turned=st.booleans(),
    )


@implementations
@settings(max_examples=200, deadline=None)
@given(bits=masks())
def test_bytes_are_those_of_pycocotools_and_come_back(face: Face, bits: Any) -> None:
    counts = face.rle_encode(bits)
    if bits.size:
        assert (
            counts == coco.encode(np.asfortranarray(bits.view(np.uint8) if bits.flags.c_contiguous else bits))["counts"]
        )
    back = face.rle_decode(counts, *bits.shape)
    assert back.dtype == np.bool_
    assert back.flags.c_contiguous
    assert back.flags.writeable
    np.testing.assert_array_equal(back, bits)


@implementations
def test_large_runs(face: Face) -> None:
    bits = np.zeros((3000, 2000), np.bool_)
    bits[1500:, 700:1400] = True
    bits[17, 3] = True
    counts = face.rle_encode(bits)
    assert counts == coco.encode(np.asfortranarray(bits.view(np.uint8)))["counts"]
    np.testing.assert_array_equal(face.rle_decode(counts, 3000, 2000), bits)


@implementations
@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (7, 0)])
def test_masks_without_pixels(face: Face, shape: tuple[int, int]) -> None:
    counts = face.rle_encode(np.zeros(shape, np.bool_))
    assert counts == b"0"
    assert face.rle_decode(counts, *shape).shape == shape
    assert face.rle_decode(b"", *shape).shape == shape


@implementations
def test_runs_of_no_length_are_allowed(face: Face) -> None:
    # 0 zeros, 0 ones, 0 zeros, 6 ones; the fourth is stored as 6 - 0.
    assert face.rle_decode(b"0006", 2, 3).all()


@implementations
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (b"", "cover 0 of the 6 pixels of 2 x 3"),
        (b"5", "cover 5 of the 6 pixels"),
        (b"7", "run 0 goes beyond the 6 pixels"),
        (b"42200", "run 2 goes beyond"),
        (b"O", "run 0 is negative: -1"),
        (b"111M", "run 3 is negative: -2"),
        (b"P", "ends inside a number, at byte 1"),
        (b"1P", "ends inside a number, at byte 2"),
        (b"\x00", "byte 0 is 0; allowed are 48 to 111"),
        (b"6p", "byte 1 is 112; allowed are 48 to 111"),
        (b"\xff", "byte 0 is 255"),
        (b"P" * 12 + b"0", "number at byte 0 has more than 12 digits"),
        (b"o" * 11 + b"?", "goes beyond"),
        (b"o" * 100, "more than 12 digits"),
    ],
)
def test_hostile_strings(face: Face, counts: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="^RLE: .*" + words):
        face.rle_decode(counts, 2, 3)


@implementations
def test_a_side_without_pixels_costs_nothing(face: Face) -> None:
    """Masks of 2**40 columns and no row: such an array exists, and has no bytes."""
    assert face.rle_encode(np.zeros((0, 2**40), np.bool_)) == b"0"
    assert face.rle_encode(np.zeros((2**40, 0), np.bool_)) == b"0"


@implementations
def test_damaged_string_of_a_huge_mask_costs_nothing(face: Face) -> None:
    with pytest.raises(ValueError, match="cover 6"):
        face.rle_decode(b"6", 2**31 - 1, 2**31 - 1)


@needs_native
@settings(max_examples=500, deadline=None)
@given(
    counts=st.one_of(st.binary(max_size=40), st.lists(st.integers(48, 111), max_size=40).map(bytes)),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
)
def test_both_agree_on_any_string(counts: bytes, height: int, width: int) -> None:
    def run(face: Face) -> Any:
        try:
            return face.rle_decode(counts, height, width).tolist()
        except ValueError as error:
            return str(error)

    assert run(native) == run(reference)


@implementations
def test_wrong_arguments_are_named(face: Face) -> None:
    with pytest.raises(TypeError, match="bits must be bool, not uint8"):
        face.rle_encode(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="bits must have 2 dimensions"):
        face.rle_encode(np.zeros((2, 2, 1), np.bool_))
    with pytest.raises(TypeError, match="counts must be bytes, not str"):
        face.rle_decode("4", 2, 2)
    with pytest.raises(ValueError, match="height must be 0 to"):
        face.rle_decode(b"4", -2, -2)
    with pytest.raises(ValueError, match="width must be 0 to"):
        face.rle_decode(b"4", 2, 2**40)
    with pytest.raises(TypeError, match="width must be an int"):
        face.rle_decode(b"4", 2, 2.0)
