from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SHARED
from PIL import Image as pillow

import fgfast
from fgfast.errors import ImageRefusedError
from fgfast.io.encode import encode, encode_bilevel
from fgfast.io.names import twin_names


def read(data: bytes) -> pillow.Image:
    image = pillow.open(io.BytesIO(data))
    image.load()
    return image


def scene(channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (40, 60, channels), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_keep_every_pixel(suffix: str) -> None:
    np.testing.assert_array_equal(np.asarray(read(encode(scene(), suffix, 95)).convert("RGB")), scene())


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_kept(suffix: str) -> None:
    pixels = scene(4)
    pixels[..., 3] = np.where(pixels[..., 3] > 127, 255, 0)
    pixels[pixels[..., 3] == 0] = 0
    image = read(encode(pixels, suffix, 100))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("quality", [1, 80, 95, 100])
@pytest.mark.parametrize("seed", range(3))
def test_webp_hides_nothing_under_transparent_pixels(quality: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (61, 83, 4), dtype=np.uint8)
    x, y = np.meshgrid(np.arange(83), np.arange(61))
    subject = (x - 40) ** 2 / generator.integers(200, 900) + (y - 30) ** 2 / generator.integers(200, 600) < 1
    pixels[..., 3] = np.where(subject, 255, 0)
    pixels[~subject] = 0
    image = read(encode(pixels, ".webp", quality))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert not np.asarray(image.convert("RGB"))[~subject].any()


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_what_a_cutout_hides_is_black(suffix: str) -> None:
    """Case 06: an image of 200 x 160 with a red rectangle."""
    scene = np.random.default_rng(6).integers(84, 97, (160, 200, 3)).astype(np.uint8)
    scene[41:119, 37:151] = (220, 40, 40)
    settings = fgfast.Settings(background="transparent")
    for source in [scene, *(SHARED.parent / "cases" / "06-webp-hidden").glob("*.png")]:
        cutout = fgfast.cut_out(source, box=(37, 41, 151, 119), settings=settings)
        image = np.asarray(read(encode(cutout.pixels, suffix, 95)))
        hidden = image[..., 3] == 0
        assert hidden.mean() > 0.3 and (image[..., 3] == 255).mean() > 0.2
        assert not image[hidden].any()


def test_jpeg_is_444_at_the_asked_quality() -> None:
    image = read(encode(scene(), ".jpg", 95))
    from PIL import JpegImagePlugin

    assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
    buffer = io.BytesIO()
    pillow.fromarray(scene()).save(buffer, "JPEG", quality=95, subsampling=0)
    assert image.quantization == read(buffer.getvalue()).quantization


def test_jpeg_does_not_ring_far_from_the_subject() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[19:45, 19:45] = (250, 120, 30)
    decoded = np.asarray(read(encode(pixels, ".jpg", 95)))
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False  # the 8x8 blocks that the subject touches
    assert decoded[outside].max() == 0


def test_masks_are_black_and_white() -> None:
    bits = np.random.default_rng(2).random((31, 17)) > 0.5
    image = read(encode_bilevel(bits))
    assert image.mode == "1"
    np.testing.assert_array_equal(np.asarray(image), bits)


def test_names_change_only_with_the_format() -> None:
    keys = ["a/1.jpg", "a/2.JPG", "a/3.jpeg", "a/4.png", "a/5.gif", "a/6.tiff"]
    same = twin_names(keys, None)
    assert [same[k] for k in keys] == ["a/1.jpg", "a/2.JPG", "a/3.jpeg", "a/4.png", "a/5.png", "a/6.tiff"]
    png = twin_names(keys, ".png")
    assert [png[k] for k in keys] == ["a/1.png", "a/2.png", "a/3.png", "a/4.png", "a/5.png", "a/6.png"]
    assert twin_names(keys[:3], ".jpg") == {k: k for k in keys[:3]}


def test_same_stems_keep_apart() -> None:
    names = twin_names(["a.jpg", "a.png", "a.bmp", "b.jpg"], ".png")
    assert names == {"a.jpg": "a.jpg.png", "a.png": "a.png", "a.bmp": "a.bmp.png", "b.jpg": "b.png"}


@given(st.lists(st.from_regex(r"\A[ab]\.(jpg|png|gif)(\.png){0,2}\Z"), unique=True))
def test_names_are_always_unique(keys: list[str]) -> None:
    for suffix in (None, ".png", ".webp"):
        assert len(set(twin_names(keys, suffix).values())) == len(keys)


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501)])
def test_sides_that_a_format_cannot_have_are_refused(suffix: str, side: int) -> None:
    with pytest.raises(ImageRefusedError, match="choose png"):
        encode(np.zeros((1, side, 3), np.uint8), suffix, 95)
