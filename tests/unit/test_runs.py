from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgfast.ops import reference, runs
from fgfast.ops.geometry import mask_box
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Size


def blobs(height: int, width: int, density: float, scale: int, seed: int) -> Any:
    cells = np.random.default_rng(seed).random((height // scale + 1, width // scale + 1)) < density
    return np.kron(cells, np.ones((scale, scale), np.bool_))[:height, :width].astype(np.bool_)


MASKS = st.builds(
    blobs,
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    density=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    scale=st.sampled_from([1, 3, 9, 40]),
    seed=st.integers(0, 99),
)


def computed(masks: list[Any]) -> tuple[Any, Any]:
    return boxes_and_areas([reference.rle_encode(m) for m in masks], [Size(*m.shape) for m in masks])


def assert_true(masks: list[Any]) -> None:
    boxes, areas = computed(masks)
    assert boxes.shape == (len(masks), 4)
    for mask, box, area in zip(masks, boxes, areas, strict=True):
        expected = mask_box(mask)
        np.testing.assert_array_equal(box, np.zeros(4) if expected is None else expected)
        assert area == np.count_nonzero(mask)


@given(st.lists(MASKS, max_size=8))
def test_boxes_and_areas_are_those_of_the_decoded_masks(masks: list[Any]) -> None:
    assert_true(masks)


@pytest.mark.parametrize("most", [1, 300])
def test_one_mask_of_dust_among_many_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_MOST_PADDED", most)
    assert_true([blobs(30, 40, 0.5, 40 if n % 5 else 1, n) for n in range(23)])


def test_large_masks_have_long_numbers() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[700:2900, 1500:1502] = True
    mask[10, 3999] = True
    assert_true([mask, ~mask])


def test_runs_of_no_pixels_are_no_subject() -> None:
    # 0 of nothing, 0 of subject, 7 of nothing, 2 of subject, 3 of nothing: on 3 rows and 4 columns.
    text = b"007" + bytes([48 + 2]) + bytes([48 + (3 - 7) % 32])
    np.testing.assert_array_equal(reference.rle_decode(text, 3, 4).T.ravel(), [0] * 7 + [1] * 2 + [0] * 3)
    boxes, areas = boxes_and_areas([text], [Size(3, 4)])
    assert (boxes.tolist(), areas.tolist()) == ([[2, 1, 3, 3]], [2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty string"),
        (b"0 1", "no digit"),
        (b"p0", "no digit"),
        (b"9P", "middle of a number"),
        (b"P" * 12 + b"0", "more than 12 digits"),
        (b"9", "mask 1 do not cover its 4 x 3"),
        (b"<0:", "mask 1 do not cover"),
        (b"5O8", "mask 1 do not cover"),  # a run of -1
    ],
)
def test_a_damaged_string_is_an_error(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="RLE"):
        reference.rle_decode(text, 3, 4)
    with pytest.raises(ValueError, match=message):
        boxes_and_areas([b"<", text], [Size(3, 4)] * 2)


def test_runs_whose_sum_goes_round_64_bits_are_refused() -> None:
    """64 runs of 2**58 pixels, then 6: the sum is 6 modulo 2**64."""
    text = bytearray()
    for number in (2**58, 2**58, 2**58, *[0] * 61, 6 - 2**58):
        reference._append_number(number, text)
    with pytest.raises(ValueError, match="do not cover its 3 x 2 pixels"):
        boxes_and_areas([bytes(text)], [Size(2, 3)])
