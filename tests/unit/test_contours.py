"""Outlines along pixel edges, numbers of a silhouette, Fourier descriptors, edges inside: on drawn and random masks."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as coco_mask
from skimage.measure import moments_central, moments_hu, moments_normalized, perimeter_crofton

from fgfast.ops import contours, fourier, inside, silhouette
from fgfast.records import Bool, Size

MASKS = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def even_odd(rings: list[contours.Points], size: Size) -> Bool:
    """The pixels whose middles an odd number of edges of columns lies left of."""
    crossed = np.zeros(size, np.int64)
    for ring in rings:
        for (xs, ys), (xe, ye) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            if xs == xe:
                crossed[min(ys, ye) : max(ys, ye), xs:] += 1
    return crossed % 2 == 1


def noisy(seed: int, size: Size, sigma: float) -> Bool:
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma) > 0.5)


def check_outlines(bits: Bool) -> None:
    found = contours.parts(bits)
    rings = [ring for part in found for ring in (part.outer, *part.holes)]
    assert np.array_equal(even_odd(rings, Size(*bits.shape)), bits)
    assert len(found) == cv2.connectedComponents(bits.view(np.uint8), connectivity=8)[0] - 1
    outer = contours.twice_areas([part.outer for part in found])
    holes = contours.twice_areas([hole for part in found for hole in part.holes])
    assert (outer > 0).all() and (holes < 0).all() and outer.sum() + holes.sum() == 2 * np.count_nonzero(bits)
    for ring in rings:
        assert (np.count_nonzero(np.diff(ring, axis=0, append=ring[:1]), axis=1) == 1).all()
    polygons = [contours.joined(part, bits).ravel().tolist() for part in found]
    if polygons:
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *bits.shape)))
        assert np.array_equal(drawn.astype(np.bool_), bits)


@given(MASKS)
def test_outlines_give_the_mask_back(bits: Bool) -> None:
    check_outlines(bits)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_of_larger_masks_give_them_back(seed: int) -> None:
    check_outlines(noisy(seed, Size(90, 120), 2))


def test_edge_cases_of_outlines() -> None:
    assert contours.parts(np.zeros((4, 5), np.bool_)) == []
    one = np.zeros((4, 5), np.bool_)
    one[2, 3] = True
    assert contours.parts(one)[0].outer.tolist() == [[3, 2], [4, 2], [4, 3], [3, 3]]
    whole = np.ones((4, 5), np.bool_)
    assert contours.parts(whole)[0].outer.tolist() == [[0, 0], [5, 0], [5, 4], [0, 4]]
    # Touching at a corner: one part, whose outline passes the corner twice.
    two = np.eye(2, dtype=np.bool_)
    assert [len(part.outer) for part in contours.parts(two)] == [8]


def test_many_holes_are_joined_without_recursion() -> None:
    bits = np.ones((2401, 3), np.bool_)
    bits[1::2, 1] = False
    (part,) = contours.parts(bits)
    assert len(part.holes) == 1200
    drawn = coco_mask.decode(coco_mask.frPyObjects([contours.joined(part, bits).ravel().tolist()], *bits.shape))
    assert np.array_equal(drawn[..., 0].astype(np.bool_), bits)


@given(MASKS)
def test_perimeter_is_crofton_s(bits: Bool) -> None:
    assert silhouette.perimeter(bits) == pytest.approx(perimeter_crofton(np.pad(bits, 1), 4), abs=1e-9)


def drawn_ellipse(turn: float, half: tuple[int, int] = (140, 60), at: tuple[int, int] = (210, 190)) -> Bool:
    canvas = np.zeros((400, 420), np.uint8)
    fine = 4
    points = cv2.ellipse2Poly((0, 0), (half[0] * fine, half[1] * fine), round(turn), 0, 360, 1)
    cv2.fillPoly(canvas, [points.astype(np.int32) + np.int32(fine) * np.array(at, np.int32)], 1, shift=2)
    return canvas.astype(np.bool_)


@pytest.mark.parametrize("turn", [0, 20, 45, 90, 160])
def test_numbers_of_an_ellipse(turn: int) -> None:
    bits = drawn_ellipse(turn)
    found = silhouette.ellipse(bits)
    assert found.major == pytest.approx(280, rel=0.01) and found.minor == pytest.approx(120, rel=0.015)
    assert found.eccentricity == pytest.approx(math.sqrt(1 - (60 / 140) ** 2), abs=0.004)
    assert math.cos(2 * (found.orientation - math.radians(turn))) == pytest.approx(1, abs=0.001)
    # Ramanujan's second approximation of an ellipse's perimeter.
    h = (80 / 200) ** 2
    assert silhouette.perimeter(bits) == pytest.approx(
        math.pi * 200 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h))), rel=0.03
    )
    corners = contours.parts(bits)[0].outer
    assert 0.98 < np.count_nonzero(bits) / silhouette.hull_area(corners) <= 1


def test_numbers_of_one_pixel_and_of_all() -> None:
    one = np.zeros((9, 9), np.bool_)
    one[4, 7] = True
    found = silhouette.ellipse(one)
    assert (found.x, found.y, found.eccentricity) == (7.5, 4.5, 0.0)
    assert silhouette.hull_area(contours.parts(one)[0].outer) == 1
    whole = np.ones((30, 40), np.bool_)
    assert silhouette.ellipse(whole)[:2] == (20, 15)
    assert silhouette.hull_area(contours.parts(whole)[0].outer) == 1200


def test_hu_moments() -> None:
    bits = noisy(1, Size(60, 80), 6)
    again = moments_hu(moments_normalized(moments_central(bits.T.astype(np.float64))))
    found = silhouette.hu_moments(bits)
    assert np.allclose(found, again, rtol=1e-6, atol=1e-15)
    assert np.allclose(silhouette.hu_moments(np.rot90(bits).copy()), found, rtol=1e-6, atol=1e-15)
    assert np.allclose(
        silhouette.hu_moments(bits[:, ::-1].copy()), found * [1, 1, 1, 1, 1, 1, -1], rtol=1e-6, atol=1e-15
    )


def test_middles_of_pixel_edges() -> None:
    ring = contours.parts(np.ones((1, 2), np.bool_))[0].outer
    assert fourier.middles(ring).tolist() == [[0.5, 0], [1.5, 0], [2, 0.5], [1.5, 1], [0.5, 1], [0, 0.5]]


def bird_outline() -> Any:
    """A bird's side view, (N, 2) float64, clockwise."""
    t = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    r = 90 + 25 * np.cos(t) + 14 * np.cos(2 * t + 0.4) + 9 * np.sin(3 * t) + 5 * np.cos(7 * t + 1)
    return np.stack([1.6 * r * np.cos(t), r * np.sin(t)], axis=1)


@pytest.mark.parametrize("turn", range(0, 360, 24))
def test_normalised_descriptors_do_not_depend_on_place_size_turn_and_start(turn: int) -> None:
    pytest.importorskip("pyefd")
    points = bird_outline()
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    moved = np.roll(points @ np.array([[c, s], [-s, c]]) * (0.3 + turn / 90) + [1e3, -77], 7 * turn, axis=0)
    one, other = fourier.descriptors(points, 40), fourier.descriptors(moved, 40)
    assert np.allclose(one.normalised, other.normalised, atol=1e-9)
    assert one.normalised[0, 0] == pytest.approx(1) and one.normalised[0, 3] == pytest.approx(one.roundness)
    assert not np.allclose(one.harmonics, other.harmonics, atol=1)
    assert np.allclose(
        np.array(other.centre) - [1e3, -77], one.centre @ np.array([[c, s], [-s, c]]) * (0.3 + turn / 90)
    )


@pytest.mark.parametrize("turn", [0, 37, 90, 145, 200, 290])
def test_descriptors_of_turned_masks_are_alike(turn: int) -> None:
    """Drawn on a grid of pixels, the same bird has nearly the same descriptors, and another shape has others."""
    pytest.importorskip("pyefd")
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    found = []
    for points in (
        bird_outline(),
        1.4 * bird_outline() @ np.array([[c, s], [-s, c]]),
        1.2 * bird_outline()[::-1] * [1, 1.4],
    ):
        canvas = np.zeros((700, 700), np.uint8)
        cv2.fillPoly(canvas, [np.rint(points * 16 + 350 * 16).astype(np.int32)], 1, shift=4)
        (part,) = contours.parts(canvas.astype(np.bool_))
        found.append(fourier.descriptors(fourier.middles(part.outer), 40).normalised)
    same, other = (float(np.abs(found[0] - f).max()) for f in found[1:])
    assert same < 0.02 < 0.05 < other


def test_an_outline_is_rebuilt() -> None:
    pytest.importorskip("pyefd")
    canvas = np.zeros((400, 500), np.uint8)
    cv2.fillPoly(canvas, [np.rint(bird_outline() + np.array([250, 200])).astype(np.int32)], 1)
    cv2.line(canvas, (100, 200), (30, 350), 1, 9)  # a thin tail
    ring = contours.parts(canvas.astype(np.bool_))[0].outer
    found = fourier.descriptors(fourier.middles(ring), 40)
    ious = [fourier.rebuilt_iou(ring, found, order) for order in (2, 10, 40, None)]
    assert ious[0] < ious[1] < ious[2] == ious[3] and ious[2] >= 0.98


def test_descriptors_of_one_pixel_are_numbers() -> None:
    pytest.importorskip("pyefd")
    ring = contours.parts(np.ones((1, 1), np.bool_))[0].outer
    found = fourier.descriptors(fourier.middles(ring), 40)
    assert np.isfinite(found.normalised).all() and found.roundness == pytest.approx(1)
    assert fourier.rebuilt_iou(ring, found) == 1


@given(MASKS.filter(np.any), st.integers(0, 9))
def test_colours_are_carried_out_from_the_nearest_pixel(bits: Bool, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*bits.shape, 3), dtype=np.uint8)
    found = inside.carried_out(pixels, bits)
    assert np.array_equal(found[bits], pixels[bits])
    ys, xs = np.nonzero(bits)
    for y, x in np.ndindex(*bits.shape):
        away = np.hypot(ys - y, xs - x)
        # The distance of OpenCV's mask of 5 x 5 is exact to 2 % (Borgefors, 1986).
        near = away <= away.min() * 1.02 + 1e-9
        assert (pixels[ys[near], xs[near]] == found[y, x]).all(axis=1).any()


@pytest.mark.parametrize("method", ["canny", "gradient"])
@pytest.mark.parametrize("outline", [False, True])
def test_edges_do_not_depend_on_the_background(method: inside.Method, outline: bool) -> None:
    generator = np.random.default_rng(3)
    bits = noisy(5, Size(120, 150), 12)
    bits[:40, :50] = True  # at the border
    pixels = cv2.GaussianBlur(generator.integers(0, 256, (120, 150, 3), dtype=np.uint8), (0, 0), 0.9)
    other = pixels.copy()
    other[~bits] = generator.integers(0, 256, (int((~bits).sum()), 3), dtype=np.uint8)
    found = inside.edges(pixels, bits, method, 100, 200, outline)
    assert np.array_equal(found, inside.edges(other, bits, method, 100, 200, outline))
    assert found[bits].any() and not found[~bits].any()
    rim = bits & ~cv2.erode(bits.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(np.bool_)
    flat = inside.edges(np.full_like(pixels, 90), bits, method, 100, 200, outline)
    assert flat.any() == outline and not flat[bits & ~rim].any()


def test_gradient_of_a_step_is_its_height() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, 10:] = 60
    found = inside.edges(pixels, np.ones((20, 20), np.bool_), "gradient", 0, 0, outline=False)
    assert (found[:, 9:11] == 60).all() and not found[:, :9].any() and not found[:, 11:].any()


def test_an_empty_mask_has_no_edges() -> None:
    assert not inside.edges(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.bool_), "canny", 1, 2, True).any()
