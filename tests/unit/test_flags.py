"""What makes a mask doubtful, and what does not."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fgfast.ops.flags import flags

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


def test_a_good_mask_has_none() -> None:
    assert flags(ellipse(), BOX) == ()


def test_empty() -> None:
    bits = blank()
    assert flags(bits, BOX) == ("empty",)
    bits[100, 100:300:2] = True
    assert flags(bits, BOX) == ("empty",)
    assert flags(np.zeros((0, 0), np.bool_), BOX) == ("empty",)


def test_full() -> None:
    assert flags(~blank(), BOX) == ("full", "hugs the box")
    whole = np.array([0, 0, WIDTH, HEIGHT], np.float32)
    assert "full" not in flags(~blank(), whole)


def test_banner_counts_neither_as_image_nor_as_mask() -> None:
    bits = ~blank()
    bits[-30:] = False
    assert "full" not in flags(bits, BOX)
    assert "full" in flags(bits, BOX, banner_rows=30)
    banner = blank()
    banner[-30:] = True
    assert flags(banner, BOX, banner_rows=30) == ("empty",)


def test_hugs_the_box() -> None:
    bits = blank()
    bits[40:160, 50:250] = True
    assert flags(bits, BOX) == ("hugs the box",)


@pytest.mark.parametrize("radius", [12, 20])
def test_a_bus_does_not_hug_its_box(radius: int) -> None:
    bits = rounded_rectangle(radius)
    assert bits[40:160, 50:250].mean() > 0.95
    assert flags(bits, BOX) == ()


def test_fragments() -> None:
    bits = blank()
    for x in range(60, 240, 60):
        bits[60:140, x : x + 40] = True
    assert flags(bits, BOX) == ("fragments",)
    bits[100, 60:220] = True
    assert flags(bits, BOX) == ()


def test_leaves_the_box() -> None:
    bits = ellipse()
    bits[160:200, 50:250] = True
    bits[155:160, 140:160] = True
    assert flags(bits, BOX) == ("leaves the box",)


def test_box_outside_the_image() -> None:
    assert flags(ellipse(), np.array([400, 400, 500, 500], np.float32)) == ("leaves the box",)
