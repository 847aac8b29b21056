"""Boxes and crop windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgfast.ops.geometry import box_area, clip_box, crop_window, iou, mask_box
from fgfast.records import Size


def box(*edges: float) -> Any:
    return np.array(edges, np.float32)


def test_clip_box() -> None:
    assert clip_box(box(-5, 2, 30, 40), Size(10, 20)).tolist() == [0, 2, 20, 10]
    assert box_area(clip_box(box(50, 50, 60, 60), Size(10, 20))) == 0
    assert clip_box(box(1, 2, 3, 4), Size(10, 20)).dtype == np.float32


def test_box_area() -> None:
    assert box_area(box(1, 2, 4, 8)) == 18
    assert box_area(np.stack([box(0, 0, 2, 2), box(3, 3, 1, 1)])).tolist() == [4, 0]


def test_iou() -> None:
    a = np.stack([box(0, 0, 2, 2), box(5, 5, 5, 5)])
    b = np.stack([box(0, 0, 2, 2), box(1, 0, 3, 2), box(2, 0, 4, 2), box(5, 5, 5, 5)])
    made = iou(a, b)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]], np.float32))
    assert iou(a, np.zeros((0, 4), np.float32)).shape == (2, 0)


def test_mask_box() -> None:
    bits = np.zeros((6, 9), np.bool_)
    assert mask_box(bits) is None
    assert mask_box(np.zeros(Size(9, 0), np.bool_)) is None
    bits[2, 3] = bits[4, 7] = True
    made = mask_box(bits)
    assert made is not None
    assert made.dtype == np.float32
    assert made.tolist() == [3, 2, 8, 5]


@pytest.mark.parametrize(
    ("edges", "mode", "pad", "window"),
    [
        ((10, 20, 40, 30), "box", 0.0, (10, 20, 40, 30)),
        ((10.2, 20.9, 39.1, 29.5), "box", 0.0, (10, 20, 40, 30)),
        ((10, 20, 40, 30), "box", 0.1, (7, 17, 43, 33)),
        ((2, 2, 32, 12), "box", 0.1, (0, 0, 35, 15)),
        ((50, 50, 50, 50), "box", 0.0, (50, 50, 51, 51)),
        ((100, 60, 100, 60), "box", 0.0, (99, 59, 100, 60)),
        ((300, 300, 400, 400), "box", 0.0, (99, 59, 100, 60)),
        ((-9, -9, -1, -1), "box", 0.0, (0, 0, 1, 1)),
        ((10, 20, 40, 30), "square", 0.0, (10, 10, 40, 40)),
        ((10, 0, 40, 10), "square", 0.0, (10, 0, 40, 30)),
        ((60, 50, 100, 60), "square", 0.0, (60, 20, 100, 60)),
        ((10, 20, 90, 40), "square", 0.0, (10, -10, 90, 70)),
        ((0, 0, 100, 60), "square", 0.1, (-10, -30, 110, 90)),
    ],
)
def test_crop_window(edges: Any, mode: Any, pad: float, window: Any) -> None:
    assert crop_window(box(*edges), Size(60, 100), mode, pad) == window


@given(
    edges=st.tuples(*[st.floats(-50, 200, width=32)] * 4),
    size=st.builds(Size, st.integers(1, 150), st.integers(1, 150)),
    mode=st.sampled_from(["box", "square"]),
    pad=st.floats(0, 2),
)
def test_crop_window_holds_its_promises(edges: Any, size: Any, mode: Any, pad: float) -> None:
    x0, y0, x1, y1 = edges
    prompt = box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    window = crop_window(prompt, size, mode, pad)
    assert all(type(edge) is int for edge in window)
    left, top, right, bottom = window
    assert left < right
    assert top < bottom
    clipped = clip_box(prompt, size)
    tolerance = 2e-3
    assert left <= clipped[0] + tolerance
    assert top <= clipped[1] + tolerance
    assert right >= clipped[2] - tolerance
    assert bottom >= clipped[3] - tolerance
    if mode == "square":
        assert right - left == bottom - top
    for low, high, length in ((left, right, size.width), (top, bottom, size.height)):
        if mode == "box" or high - low <= length:
            assert low >= 0
            assert high <= length
        else:
            assert low <= 0
            assert high >= length


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((box(0, 0, 1, 1), Size(9, 9), "round", 0.0), "mode must be 'box' or 'square'"),
        ((box(0, 0, 1, 1), Size(9, 9), "box", -0.1), "pad must be"),
        ((box(0, 0, 1, 1), Size(9, 0), "box", 0.0), "size must be"),
        ((box(0, 0, np.nan, 1), Size(9, 9), "box", 0.0), "box must be finite"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        crop_window(*arguments)
