"""What makes a mask doubtful, and what does not."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fgfast.ops.flags import CUT_FROM, SHORT_FROM, SHORT_PIXELS, flags, side_gap, straight_edge
from fgfast.ops.geometry import clip_box
from fgfast.records import Size

HEIGHT, WIDTH = 200, 300
BOX = np.array([50, 40, 250, 160], np.float32)


def blank() -> Any:
    return np.zeros((HEIGHT, WIDTH), np.bool_)


def ellipse() -> Any:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((x - 150) / 100) ** 2 + ((y - 100) / 60) ** 2 < 1


def rounded_rectangle(radius: int) -> Any:
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(image, (50 + radius, 40), (249 - radius, 159), 1, -1)
    cv2.rectangle(image, (50, 40 + radius), (249, 159 - radius), 1, -1)
    for x in (50 + radius, 249 - radius):
        for y in (40 + radius, 159 - radius):
            cv2.circle(image, (x, y), radius, 1, -1)
    return image.astype(np.bool_)


def disk(radius: float, x: float = 150, y: float = 100) -> Any:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def names(bits: Any, box: Any = BOX, banner_rows: int = 0) -> list[str]:
    found = flags(bits, box, banner_rows)
    assert all(type(number) is float and 0 <= number <= 1 for number in found.values())
    return [*found]


def test_a_good_mask_has_none() -> None:
    assert flags(ellipse(), BOX) == {}


def test_empty() -> None:
    bits = blank()
    assert flags(bits, BOX) == {"empty": 0.0}
    bits[100, 100:300:2] = True
    assert flags(bits, BOX) == {"empty": 100 / (200 * 120)}
    assert flags(np.zeros((0, 0), np.bool_), BOX) == {"empty": 0.0}


def test_full() -> None:
    assert flags(~blank(), BOX) == {"full": 1.0, "hugs the box": 1.0}
    whole = np.array([0, 0, WIDTH, HEIGHT], np.float32)
    assert "full" not in flags(~blank(), whole)


def test_banner_counts_neither_as_image_nor_as_mask() -> None:
    bits = ~blank()
    bits[-30:] = False
    assert "full" not in flags(bits, BOX)
    assert "full" in flags(bits, BOX, banner_rows=30)
    banner = blank()
    banner[-30:] = True
    assert flags(banner, BOX, banner_rows=30) == {"empty": 0.0}


def test_hugs_the_box() -> None:
    bits = blank()
    bits[40:160, 50:250] = True
    bits[60:70, 100:130] = False
    assert flags(bits, BOX) == {"hugs the box": 1 - 300 / (200 * 120)}


@pytest.mark.parametrize("radius", [12, 20])
def test_a_bus_does_not_hug_its_box(radius: int) -> None:
    bits = rounded_rectangle(radius)
    assert bits[40:160, 50:250].mean() > 0.95
    (number,) = flags(bits, BOX).values()  # its sides are straight, as if the box had cut it off
    assert names(bits) == ["cut off by the box"]
    assert number == pytest.approx((200 - 2 * radius) / 200, abs=0.1)


def test_fragments() -> None:
    bits = blank()
    for x in range(50, 250, 80):
        bits[40:160, x : x + 40] = True
    assert flags(bits, BOX)["fragments"] == pytest.approx(1 / 3)
    bits[100, 50:220] = True
    assert "fragments" not in flags(bits, BOX)


def test_leaves_the_box() -> None:
    bits = ellipse()
    area = int(bits.sum())
    bits[160:200, 50:250] = True
    bits[155:160, 140:160] = True
    assert names(bits) == ["leaves the box"]
    assert flags(bits, BOX)["leaves the box"] == pytest.approx(8000 / (area + 8000), abs=0.01)


def test_box_outside_the_image() -> None:
    assert flags(ellipse(), np.array([400, 400, 500, 500], np.float32)) == {"leaves the box": 1.0}


def of_side(bits: Any, box: Any, turns: int) -> tuple[Any, Any]:
    """A mask and its box turned by quarter turns: each side is tried as the left one is."""
    x0, y0, x1, y1 = box.tolist()
    for _ in range(turns):
        x0, y0, x1, y1 = y0, bits.shape[1] - x1, y1, bits.shape[1] - x0
        bits = np.rot90(bits)
    return bits, np.array([x0, y0, x1, y1], np.float32)


turned = pytest.mark.parametrize("turns", range(4))


@turned
@pytest.mark.parametrize("gap", [0, 4, 5, 11, 12, 40, 150])
def test_the_gap_is_that_of_the_side_which_the_mask_misses_most(gap: int, turns: int) -> None:
    rng = np.random.default_rng(gap)
    bits = blank()
    bits[40:160, 50 + gap : 250] = rng.random((120, 200 - gap)) < 0.7
    bits[40, 50 + gap : 250] = bits[159, 50 + gap : 250] = True
    bits[100, 50 + gap] = bits[100, 249] = True
    turned_bits, box = of_side(bits, BOX, turns)
    assert side_gap(turned_bits, box) == pytest.approx(gap / 200 if gap >= SHORT_PIXELS else 0)
    assert ("short of the box" in names(turned_bits, box)) == (gap / 200 >= SHORT_FROM)


def test_a_box_that_does_not_bound_the_subject_says_nothing_about_gaps() -> None:
    bits = disk(50)
    assert names(bits) == ["short of the box"]
    assert flags(bits, BOX, guess=True) == {}


def test_a_mask_that_is_nowhere_in_the_box_misses_it_altogether() -> None:
    bits = blank()
    bits[:30] = True
    assert side_gap(bits, BOX) == 1.0
    assert flags(bits, BOX) == {"leaves the box": 1.0, "short of the box": 1.0}
    assert side_gap(bits, np.array([400, 400, 500, 500], np.float32)) == 0.0


@turned
@pytest.mark.parametrize("depth", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("beyond", [0, 2])
def test_a_disk_that_its_box_cuts_off_is_flagged_with_the_chord(depth: float, beyond: int, turns: int) -> None:
    """`depth` of its diameter is cut off; the mask may end a little outside the box, as GrabCut's do."""
    radius, bits = 60, disk(60)
    x0 = 90 + round(depth * 2 * radius)
    bits[:, : x0 - beyond] = False
    box = np.array([x0, 40, 210, 160], np.float32)
    bits, box = of_side(bits, box, turns)
    chord = 2 * (depth * (1 - depth)) ** 0.5
    assert straight_edge(bits, box) == pytest.approx(chord, abs=0.07)
    assert flags(bits, box) == {"cut off by the box": straight_edge(bits, box)}


@pytest.mark.parametrize("off", [-0.06, -0.04, -0.02, 0, 0.02, 0.04])
def test_a_round_subject_is_not_cut_off_by_a_box_that_is_a_little_wrong(off: float) -> None:
    side = off * 120
    box = np.array([90 - side, 40 - side, 210 + side, 160 + side], np.float32)
    assert straight_edge(disk(60), box) < CUT_FROM
    assert "cut off by the box" not in flags(disk(60), box)


def test_the_end_of_the_image_cuts_nothing_off() -> None:
    bits = disk(60, x=0)
    box = clip_box(np.array([-60, 40, 60, 160], np.float32), Size(HEIGHT, WIDTH))
    assert bits[:, 0].sum() == 120
    assert flags(bits, box) == {}
    assert straight_edge(bits, np.array([1, 40, 60, 160], np.float32)) < CUT_FROM


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (5, 5, 6, 6), (5, 5, 5, 20), (0, 0, 300, 200), (-9, -9, 900, 900)])
def test_odd_boxes_have_numbers(box: tuple[float, ...]) -> None:
    corners = np.array(box, np.float32)
    for bits in (ellipse(), ~blank(), blank()):
        assert 0 <= straight_edge(bits, corners) <= 1
        assert 0 <= side_gap(bits, corners) <= 1
        names(bits, corners)
