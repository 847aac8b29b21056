"""Soft edges against slow oracles, and what is left of a magenta background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fgfast.bench.drawn import Drawn, drawn
from fgfast.ops.matting import PASSES, blur_fusion, feathered, interior, mixed
from fgfast.records import Bool, Float32, UInt8

NEW = np.array([30, 200, 60], np.uint8)
MAGENTA = np.array([255, 0, 255], np.float32)


def slow_feathered(bits: Bool, width: float) -> Float32:
    """Every pair of pixels is looked at."""
    height, width_ = bits.shape
    alpha = np.zeros(bits.shape)
    for y in range(height):
        for x in range(width_):
            others = np.argwhere(bits != bits[y, x])
            if not len(others):
                alpha[y, x] = float(bits[y, x])
                continue
            distance = min(((y - v) ** 2 + (x - u) ** 2) ** 0.5 for v, u in others) - 0.5
            alpha[y, x] = min(1, max(0, 0.5 + (distance if bits[y, x] else -distance) / width))
    return alpha.astype(np.float32)


def slow_fusion(pixels: UInt8, alpha: Float32, passes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The formulas of the paper, over the whole image, pixel by pixel, in float64."""
    image, a = pixels.astype(float), alpha.astype(float)[:, :, None]

    def blur(values: np.ndarray, side: int) -> np.ndarray:
        r = side // 2
        padded = np.pad(values, ((r, r), (r, r), (0, 0)), "reflect")
        out = np.empty_like(values)
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                out[y, x] = padded[y : y + side, x : x + side].mean(axis=(0, 1))
        return out

    f, b = image, image
    for side in passes:
        fm = blur(f * a, side) / np.maximum(blur(a, side), 1e-7)
        bm = blur(b * (1 - a), side) / np.maximum(blur(1 - a, side), 1e-7)
        f, b = np.clip(fm + a * (image - a * fm - (1 - a) * bm), 0, 255), bm
    return f, b


def test_an_alpha_of_bits_is_that_of_the_oracle() -> None:
    generator = np.random.default_rng(1)
    for shape in ((1, 1), (1, 9), (11, 14)):
        for part in (0.0, 0.2, 0.8, 1.0):
            bits = generator.random(shape) < part
            for width in (1.0, 2.5, 6.0):
                alpha = feathered(bits, width)
                assert alpha.dtype == np.float32 and np.abs(alpha - slow_feathered(bits, width)).max() < 1e-5
                assert ((alpha >= 0.5) == bits).all()


def test_there_is_no_outline_where_a_subject_leaves_the_image() -> None:
    bits = np.zeros((20, 20), np.bool_)
    bits[5:, :12] = True
    alpha = feathered(bits, 4)
    assert (alpha[10:, :8] == 1).all() and 0 < alpha[12, 12] < 0.5 and (alpha[:, 15:] == 0).all()


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_a_width_is_more_than_nothing(width: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        feathered(np.ones((2, 2), np.bool_), width)


def test_colours_are_those_of_the_oracle() -> None:
    generator = np.random.default_rng(2)
    for height, width in ((1, 1), (3, 40), (26, 31)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        bits = np.zeros((height, width), np.bool_)
        bits[height // 3 :, : 2 * width // 3] = True
        alpha = feathered(bits, 3)
        front, back = blur_fusion(pixels, alpha)
        slow_front, slow_back = slow_fusion(pixels, alpha, PASSES)
        soft = (alpha > 0) & (alpha < 1)
        assert np.abs(front - slow_front)[soft].max(initial=0) < 0.01
        assert np.abs(back - slow_back)[soft].max(initial=0) < 0.01
        assert (front[~soft] == pixels[~soft]).all() and (back[~soft] == pixels[~soft]).all()


def test_colours_of_the_inside_are_those_of_the_oracle() -> None:
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (26, 31, 3), dtype=np.uint8)
    bits = np.zeros((26, 31), np.bool_)
    bits[6:20, :18] = True
    bits[2, 20:] = True  # thinner than its soft edge
    alpha = feathered(bits, 4)
    (front, back), fused = interior(pixels, alpha), blur_fusion(pixels, alpha)
    for y, x in np.ndindex(26, 31):
        if not 0 < alpha[y, x] < 1:
            assert (front[y, x] == pixels[y, x]).all() and (back[y, x] == pixels[y, x]).all()
            continue
        for found, other, level in ((front, fused[0], 1), (back, fused[1], 0)):
            around = [(v, u) for v in range(y - 3, y + 4) for u in range(x - 3, x + 4)]
            # Mirrored at the border, as the blur is: -1 is 1, and 26 is 24.
            around = [(abs(v) if v < 26 else 50 - v, abs(u) if u < 31 else 60 - u) for v, u in around]
            sure = [pixels[place].astype(float) for place in around if alpha[place] == level]
            expected = np.mean(sure, axis=0) if len(sure) >= 2 else other[y, x]
            assert np.abs(found[y, x] - expected).max() < 0.01
    assert (front[2, 25] == fused[0][2, 25]).all()


def test_the_inside_does_not_depend_on_the_soft_pixels() -> None:
    bits = np.zeros((30, 40), np.bool_)
    bits[8:22, 10:30] = True
    alpha = feathered(bits, 4)
    pixels = np.random.default_rng(6).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    other = np.where(((alpha > 0) & (alpha < 1))[..., None], MAGENTA.astype(np.uint8), pixels)
    soft = (alpha > 0.5) & (alpha < 1)
    assert (interior(pixels, alpha)[0][soft] == interior(other, alpha)[0][soft]).all()
    assert (blur_fusion(pixels, alpha)[0][soft] != blur_fusion(other, alpha)[0][soft]).any()


def test_what_is_far_from_the_edge_does_not_count() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 300, 3), dtype=np.uint8)
    bits = np.zeros((40, 300), np.bool_)
    bits[10:30, 140:150] = True
    alpha = feathered(bits, 2)
    other = pixels.copy()
    other[:, :70] = 0
    assert (blur_fusion(pixels, alpha)[0][bits] == blur_fusion(other, alpha)[0][bits]).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_an_edge_both_are_the_image(value: float) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    front, back = blur_fusion(pixels, np.full((5, 6), value, np.float32))
    assert (front == pixels).all() and (back == pixels).all()


def test_mixing_is_a_weighted_mean() -> None:
    alpha = np.array([[0, 0.25, 1]], np.float32)
    front, back = np.full((1, 3, 3), 200, np.uint8), np.full((1, 3, 3), 100, np.uint8)
    assert mixed(front, alpha, back)[0, :, 0].tolist() == [100, 125, 200]
    assert mixed(front, alpha, NEW)[0, 0].tolist() == NEW.tolist()


def residue(scene: Drawn, pixels: UInt8) -> tuple[float, float]:
    """Mean and largest error in the edge band, the worst channel of each pixel, 0 to 255."""
    true = scene.on(NEW.astype(np.float32))
    band = (scene.alpha > 0.01) & (scene.alpha < 0.99)
    error = np.abs(pixels - true)[band].max(axis=-1)
    return float(error.mean()), float(error.max())


@pytest.mark.parametrize("blur", [0.0, 0.7, 1.2, 2.0])
def test_magenta_does_not_shine_through(blur: float) -> None:
    scene = drawn(blur)
    pixels = np.rint(scene.on(MAGENTA)).astype(np.uint8)
    bits = scene.alpha >= 0.5
    hard = residue(scene, np.where(bits[..., None], pixels, NEW))
    naive = residue(scene, mixed(pixels, scene.alpha, NEW))
    fused = residue(scene, mixed(blur_fusion(pixels, scene.alpha)[0], scene.alpha, NEW))
    assert fused[0] <= naive[0] / 10 and fused[1] < naive[1] and naive[0] < hard[0]


@pytest.mark.parametrize("blur", [0.0, 0.7, 1.2, 2.0])
def test_a_mask_of_bits_lets_little_of_the_old_background_through(blur: float) -> None:
    """What is left of it is what changes when the same subject lies on another background: magenta, or green."""
    scene = drawn(blur)
    on = [np.rint(scene.on(colour)).astype(np.uint8) for colour in (MAGENTA, 255 - MAGENTA)]
    bits, band = scene.alpha >= 0.5, (scene.alpha > 0.01) & (scene.alpha < 0.99)
    alpha = feathered(bits, 4)

    def left(make: Callable[[UInt8], UInt8]) -> float:
        first, second = (make(pixels).astype(float) for pixels in on)
        return float(np.abs(first - second)[band].max(axis=-1).mean())

    hard = left(lambda pixels: np.where(bits[..., None], pixels, NEW))
    naive = left(lambda pixels: mixed(pixels, alpha, NEW))
    fused = left(lambda pixels: mixed(blur_fusion(pixels, alpha)[0], alpha, NEW))
    inside = left(lambda pixels: mixed(interior(pixels, alpha)[0], alpha, NEW))
    assert inside < fused < hard < naive and inside < 0.4 * hard and fused < 0.5 * hard
