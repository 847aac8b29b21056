from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from PIL import Image as pillow

from fgfast.io import encode as png
from fgfast.io.encode import deflater, encode_bilevel, encode_grey, encode_png
from fgfast.io.provenance import versions

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (33, 17), (64, 200)]


@pytest.fixture(params=["isal", "zlib"])
def each_deflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "isal" and find_spec("isal") is None:
        pytest.skip("isal is not installed")
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)  # as where it is not installed
    png._deflater.cache_clear()
    yield request.param
    png._deflater.cache_clear()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def read(data: bytes) -> np.ndarray:
    with pillow.open(io.BytesIO(data)) as image:
        image.verify()  # checks every chunk's sum
    return np.asarray(pillow.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", SHAPES)
def test_grey_pixels_come_back(shape: tuple[int, int]) -> None:
    levels = noise(*shape)
    np.testing.assert_array_equal(read(encode_grey(levels)), levels)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_pixel_is_kept(shape: tuple[int, int], channels: int, each_deflater: str) -> None:
    pixels = noise(*shape, channels)
    data = encode_png(pixels)
    np.testing.assert_array_equal(read(data), pixels)
    swap = cv2.COLOR_BGRA2RGBA if channels == 4 else cv2.COLOR_BGR2RGB
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(cv2.cvtColor(decoded, swap), pixels)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 8), (5, 7), (300, 500)])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_every_bit_is_kept(shape: tuple[int, int], density: float, each_deflater: str) -> None:
    bits = np.random.default_rng(shape).random(shape) < density
    data = encode_bilevel(bits)
    decoded = read(data)
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, bits)
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(grey, bits * np.uint8(255))


def test_arrays_that_are_not_contiguous_keep_every_pixel(each_deflater: str) -> None:
    pixels = noise(30, 40, 4)
    np.testing.assert_array_equal(read(encode_png(pixels[::-2, 3:20, :3])), pixels[::-2, 3:20, :3])
    np.testing.assert_array_equal(read(encode_bilevel((pixels[..., 0] > 90).T)), (pixels[..., 0] > 90).T)


ENCODERS = [lambda h, w: encode_png(noise(h, w, 3)), lambda h, w: encode_bilevel(noise(h, w) > 9)]


@pytest.mark.parametrize("make", ENCODERS, ids=["image", "mask"])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(make: Callable[[int, int], bytes], shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"not {shape[1]} x {shape[0]}"):
        make(*shape)


def test_data_beyond_a_chunks_length_go_into_several(each_deflater: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(40, 50, 3)
    monkeypatch.setattr(png, "_MOST_IN_CHUNK", 1000)
    data = encode_png(pixels)
    assert data.count(b"IDAT") == -(-len(zlib.compress(pixels.tobytes(), 1)) // 1000) >= 6
    np.testing.assert_array_equal(read(data), pixels)


def test_the_same_image_gives_the_same_bytes_in_every_thread(each_deflater: str) -> None:
    pixels = [noise(120, 90 + n, 3) for n in range(4)]
    once = [encode_png(p) for p in pixels]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(encode_png, pixels)) == once


def test_a_black_background_costs_next_to_nothing(each_deflater: str) -> None:
    pixels = np.zeros((400, 500, 3), np.uint8)
    pixels[100:140, 200:240] = noise(40, 40, 3)
    assert 40 * 40 * 3 < len(encode_png(pixels)) < pixels.nbytes / 50


def test_the_deflater_is_named(each_deflater: str) -> None:
    assert deflater().split()[0] == each_deflater
    assert versions()["deflate"] == deflater()
