"""Parts of a mask, and edges under its outline: both implementations to the bit, on any mask."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from engine.implementations import Face, implementations, native, needs_native, reference
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
KINDS = st.sampled_from(["blobs", "blobs", "scattered", "few", "most", "rings"])


def mask(height: int, width: int, seed: int, kind: str = "blobs") -> Any:
    """Blobs with holes, scattered pixels, nearly nothing or everything, or rings in rings."""
    numbers = np.random.default_rng(seed)
    if kind == "rings":
        rows, columns = np.mgrid[:height, :width]
        return (np.maximum(abs(rows - height // 2), abs(columns - width // 3)) % 4 < 2) & (numbers.random() < 0.9)
    if kind == "blobs":
        coarse = numbers.normal(size=(height // 8 + 2, width // 8 + 2)).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) > numbers.uniform(-1, 1)
    return numbers.random((height, width)) < {"scattered": 0.5, "few": 0.02, "most": 0.98}[kind]


def image(height: int, width: int, seed: int) -> Any:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.2) if seed % 3 else noise


def outline(bits: Any) -> Any:
    inner = cv2.erode(bits.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0, borderType=cv2.BORDER_CONSTANT)
    return bits & (inner == 0)


def by_contours(bits: Any) -> int:
    """The pixels that the outer contours of OpenCV enclose."""
    found, _ = cv2.findContours(bits.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(bits.shape, np.uint8)
    cv2.drawContours(filled, found, -1, 1, cv2.FILLED)
    return int(np.count_nonzero(filled)) - int(np.count_nonzero(bits))


@needs_native
@settings(max_examples=150, deadline=None)
@given(size=SIZES, seed=st.integers(0, 2**32 - 1), kind=KINDS)
def test_implementations_agree_on_parts(size: Any, seed: int, kind: str) -> None:
    bits = mask(*size, seed, kind)
    (areas, enclosed), (wanted, holes) = native.mask_parts(bits), reference.mask_parts(bits)
    np.testing.assert_array_equal(areas, wanted, strict=True)
    assert enclosed == holes == by_contours(bits)
    assert areas.sum() == np.count_nonzero(bits)


@needs_native
@settings(max_examples=100, deadline=None)
@given(size=SIZES, seed=st.integers(0, 2**32 - 1), kind=KINDS)
def test_implementations_agree_on_edges(size: Any, seed: int, kind: str) -> None:
    bits, lab = mask(*size, seed, kind), image(*size, seed)
    found, wanted = (face.outline_edges(lab, bits, outline(bits)) for face in (native, reference))
    for one, other in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert found[2] == wanted[2]
    assert (found[0] < found[1]).all() and (found[1] <= found[2]).all()


@needs_native
@pytest.mark.parametrize("size", [(256, 192), (1, 2**14), (2**14, 64)])
def test_they_agree_on_the_largest(size: Any) -> None:
    bits, lab = mask(*size, 2, "few"), image(*size, 1)
    lab[:, ::2] = 0  # the strongest edges that there are
    lab[:, 1::2] = 255
    found, wanted = (face.outline_edges(lab, bits, bits) for face in (native, reference))
    np.testing.assert_array_equal(np.stack(found[:2]), np.stack(wanted[:2]))
    np.testing.assert_array_equal(native.mask_parts(bits)[0], reference.mask_parts(bits)[0])


@implementations
def test_parts_and_what_they_enclose(face: Face) -> None:
    bits = np.zeros((12, 20), np.bool_)
    bits[1:8, 1:8] = True
    bits[3:6, 3:6] = False  # 9 pixels in a frame,
    bits[4, 4] = True  # and a part in it
    bits[8, 8] = True  # touches the frame's corner
    bits[10, 15:18] = True
    areas, enclosed = face.mask_parts(bits)
    assert areas.tolist() == [41, 3, 1] and enclosed == 8
    bits[3, 1:3] = False  # a way out by sides
    assert face.mask_parts(bits)[1] == 0
    bits[3, 1:3] = [True, False]
    bits[2, 2], bits[2, 1], bits[1, 1:3] = True, False, [False, True]  # only across a corner
    assert face.mask_parts(bits)[1] == 9


@implementations
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 70), (70, 1)])
def test_nothing_and_everything(face: Face, size: Any) -> None:
    none = np.zeros(size, np.bool_)
    assert face.mask_parts(none)[0].tolist() == [] and face.mask_parts(none)[1] == 0
    pixels = size[0] * size[1]
    assert face.mask_parts(~none)[0].tolist() == ([pixels] if pixels else []) and face.mask_parts(~none)[1] == 0


@implementations
def test_no_edge_stands_out_from_an_even_image(face: Face) -> None:
    bits = mask(60, 80, 3)
    weaker, upto, near = face.outline_edges(np.full((60, 80, 3), 9, np.uint8), bits, outline(bits))
    assert not weaker.any() and (upto == near).all()
    empty = face.outline_edges(np.full((60, 80, 3), 9, np.uint8), bits, np.zeros_like(bits))
    assert len(empty[0]) == len(empty[1]) == 0 and empty[2] == near


@implementations
def test_any_layout_and_any_true(face: Face) -> None:
    bits, lab = mask(50, 70, 5), image(50, 70, 5)
    edge = outline(bits)
    wanted = np.stack(face.outline_edges(lab, bits, edge)[:2])
    twos, parts = (bits * np.uint8(2)).view(np.bool_), face.mask_parts(bits)
    for given_ in (np.asfortranarray(bits), twos, bits.repeat(2, 1)[:, ::2]):
        np.testing.assert_array_equal(np.stack(face.outline_edges(np.asfortranarray(lab), given_, edge)[:2]), wanted)
        np.testing.assert_array_equal(face.mask_parts(given_)[0], parts[0])
        assert face.mask_parts(given_)[1] == parts[1]


@implementations
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lab": np.zeros((4, 5, 3))}, TypeError, "lab must be uint8, not float64"),
        ({"lab": np.zeros((4, 5, 4), np.uint8)}, ValueError, r"not \(4, 5, 4\) and \(4, 5\)"),
        ({"bits": np.zeros((4, 6), np.bool_)}, ValueError, r"not \(4, 5, 3\) and \(4, 6\)"),
        ({"outline": np.zeros((4, 4), np.bool_)}, ValueError, r"the shape of bits \(4, 5\), not \(4, 4\)"),
        ({"outline": np.ones((4, 5), np.bool_)}, ValueError, "outline must be part of bits"),
        ({"outline": np.ones((4, 5), np.uint8)}, TypeError, "outline must be bool, not uint8"),
    ],
)
def test_wrong_arguments_are_named(face: Face, change: Any, error: Any, words: str) -> None:
    nothing = np.zeros((4, 5), np.bool_)
    with pytest.raises(error, match=words):
        face.outline_edges(**{"lab": np.zeros((4, 5, 3), np.uint8), "bits": nothing, "outline": nothing, **change})
    with pytest.raises(TypeError, match="bits must be bool, not uint8"):
        face.mask_parts(nothing.view(np.uint8))
