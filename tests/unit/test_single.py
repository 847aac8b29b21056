from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

import fgfast
from fgfast.errors import ImageBrokenError, ImageMissingError, UsageError
from fgfast.pipeline.choices import choose_segmenter

BOX = (36, 16, 94, 64)


def scene() -> np.ndarray:
    generator = np.random.default_rng(0)
    pixels = generator.integers(60, 110, (80, 120, 3), dtype=np.uint8)
    pixels[20:60, 40:90] = generator.integers(180, 230, (40, 50, 3), dtype=np.uint8)
    return pixels


def test_every_kind_of_input_gives_the_same_cutout(tmp_path: Path) -> None:
    pillow.fromarray(scene()).save(tmp_path / "x.png")
    reference = fgfast.cut_out(scene(), BOX)
    assert reference.mask.bits[25:55, 45:85].mean() > 0.95
    assert not reference.mask.bits[:10].any()
    assert reference.flags == () or "hugs the box" in reference.flags
    data = (tmp_path / "x.png").read_bytes()
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), data, pillow.fromarray(scene())):
        np.testing.assert_array_equal(fgfast.cut_out(image, BOX).pixels, reference.pixels)


def test_without_a_box_the_middle_is_taken() -> None:
    cutout = fgfast.cut_out(scene(), settings=fgfast.Settings(segmenter="box"))
    assert cutout.prompt.box.tolist() == [12, 8, 108, 72]
    assert cutout.flags == ()


def test_crop_and_transparency() -> None:
    settings = fgfast.Settings(segmenter="box", crop="square", background="transparent")
    cutout = fgfast.cut_out(scene(), BOX, settings=settings)
    assert cutout.pixels.shape == (58, 58, 4)
    x, y = cutout.offset
    np.testing.assert_array_equal(cutout.pixels[16 - y : 64 - y, 36 - x : 94 - x, :3], scene()[16:64, 36:94])


def test_exif_is_heeded_unless_told_otherwise() -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pillow.fromarray(scene()).save(buffer, "JPEG", exif=exif.tobytes())
    box = fgfast.Settings(segmenter="box")
    assert fgfast.cut_out(buffer.getvalue(), settings=box).size == (120, 80)
    assert fgfast.cut_out(buffer.getvalue(), settings=box, turn_exif=False).size == (80, 120)


@pytest.mark.parametrize("box", [(0, 0, 5), (5, 0, 5, 9), (0, float("nan"), 5, 9)])
def test_bad_boxes_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="four numbers"):
        fgfast.cut_out(scene(), box)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), 7])
def test_bad_images_are_refused(image: object) -> None:
    with pytest.raises(UsageError, match="must be"):
        fgfast.cut_out(image)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ImageMissingError, match=r"gone\.jpg"):
        fgfast.cut_out("gone.jpg")


def test_one_image_is_one_row_of_a_batch() -> None:
    settings = choose_segmenter(fgfast.Settings(segmenter="sam_vit_b", model_weights="random:0", batch=8))
    assert settings.spec("sam_vit_b", "cpu").batch == 1


@pytest.mark.parametrize("address", ["ftp://host/x.png", "s3://bucket/x.png", "file:///tmp/x.png"])
def test_addresses_of_other_kinds_are_named_as_such(address: str) -> None:
    with pytest.raises(ImageBrokenError, match=f"{address} cannot be read: only http and https addresses are"):
        fgfast.cut_out(address, BOX)
