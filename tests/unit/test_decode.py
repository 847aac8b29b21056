"""Every odd file has one defined outcome, and decoded pixels equal those of the usual loader."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from layouts import SHARED
from PIL import Image as pillow
from PIL import ImageOps, PngImagePlugin

from fgfast.errors import ImageBrokenError, ImageMissingError, ImageRefusedError, SampleError
from fgfast.io.decode import MAX_TEXT_CHUNK, decode, read_bytes
from fgfast.io.pixels import MAX_PIXELS

ODD = SHARED / "oddfiles"
needs_odd_files = pytest.mark.skipif(not ODD.is_dir(), reason=f"{ODD} is not here")


def make_image(mode: str = "RGB", size: tuple[int, int] = (37, 23)) -> pillow.Image:
    ramp = np.add.outer(np.arange(size[1]) * 5, np.arange(size[0]) * 3) % 256
    rgb = np.stack([ramp, ramp.T.copy().reshape(ramp.shape), 255 - ramp], 2).astype(np.uint8)
    return pillow.fromarray(rgb).convert(mode)


def encoded(image: pillow.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def as_loaders_see(data: bytes) -> np.ndarray:
    return np.asarray(pillow.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "JPEG", {"quality": 90}),
        ("RGB", "JPEG", {"quality": 90, "subsampling": 0, "progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("L", "PNG", {}),
        ("1", "PNG", {}),
        ("P", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {}),
        ("CMYK", "TIFF", {}),
    ],
)
def test_pixels_are_what_the_usual_loader_shows(mode: str, format: str, options: dict) -> None:
    data = encoded(make_image(mode), format, **options)
    decoded = decode(data, "x", turn_exif=False)
    np.testing.assert_array_equal(decoded.pixels, as_loaders_see(data))


def test_sixteen_bits_keep_the_upper_eight() -> None:
    grey = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024).astype(np.uint16)
    decoded = decode(encoded(pillow.fromarray(grey), "PNG"), "x", turn_exif=False)
    np.testing.assert_array_equal(decoded.pixels[..., 0], (grey >> 8).astype(np.uint8))


def test_animations_show_their_first_frame() -> None:
    frames = [make_image("RGB"), ImageOps.invert(make_image("RGB"))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode(data, "x", False).pixels, np.asarray(frames[0]))


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_plain_folders_only(orientation: int, format: str) -> None:
    exif = pillow.Exif()
    exif[0x0112] = orientation
    data = encoded(make_image(), format, exif=exif.tobytes())
    stored = as_loaders_see(data)
    np.testing.assert_array_equal(decode(data, "x", turn_exif=False).pixels, stored)
    turned = np.asarray(ImageOps.exif_transpose(pillow.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "x", turn_exif=True).pixels, turned)
    assert (turned.shape == stored.shape) == (orientation not in (5, 6, 7, 8))


@pytest.mark.parametrize("whole", [True, False], ids=["clean", "with a warning"])
def test_xmp_turns_jpegs_as_it_does_other_formats(whole: bool) -> None:
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    data = encoded(make_image(), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:]
    if not whole:
        data = data[:-60] + b"\xff\xd9"
    stored, turned = (decode(data, "x", turn_exif).pixels for turn_exif in (False, True))
    np.testing.assert_array_equal(turned, np.rot90(stored, -1))


def reason(data: bytes) -> str:
    with pytest.raises(SampleError, match=r"x\.jpg") as caught:
        decode(data, "x.jpg", turn_exif=False)
    return caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_truncated_images_fail(format: str) -> None:
    data = encoded(make_image("RGB", (200, 150)), format)
    assert reason(data[: len(data) * 2 // 3]) in ("truncated", "broken", "not an image")


def test_a_truncated_jpeg_is_called_truncated() -> None:
    data = encoded(make_image("RGB", (200, 150)), "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated"


def test_a_file_that_is_not_an_image_is_refused() -> None:
    assert reason(b"<html>404 not found</html>") == "not an image"


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ImageMissingError, match=r"gone\.jpg"):
        read_bytes(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageBrokenError, match="no bytes"):
        read_bytes(tmp_path / "empty.jpg")
    with pytest.raises(ImageBrokenError, match="cannot be read"):
        read_bytes(tmp_path)


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_by_their_header() -> None:
    assert MAX_PIXELS < 30_000 * 30_000
    jpeg = bytearray(encoded(make_image(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    for data in (bomb_png(30_000, 30_000), bytes(jpeg)):
        with pytest.raises(ImageRefusedError, match=r"too many|30000x30000"):
            decode(data, "x", turn_exif=False)


@needs_odd_files
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged metadata
def test_every_odd_file_has_one_outcome() -> None:
    rows = list(csv.DictReader((ODD / "index.csv").open()))
    assert len(rows) > 100
    outcomes: dict[str, int] = {}
    for row in rows:
        data = read_bytes(ODD / row["file"])
        for turn in (False, True):
            try:
                decoded = decode(data, row["file"], turn)
            except SampleError as error:
                outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
                known = row["pillow_load"] != "ok" or row["format"] in ("FITS", "PSD")
                if not known:
                    pytest.fail(f"{row['file']}: {error}")
                continue
            assert row["pillow_load"] == "ok", f"{row['file']} decoded although Pillow could not"
            if not turn and not row["mode"].startswith("I"):
                np.testing.assert_array_equal(decoded.pixels, as_loaders_see(data), err_msg=row["file"])
    assert set(outcomes) <= {"truncated", "broken", "not an image", "too large", "unsupported"}
    assert min(outcomes[kind] for kind in ("truncated", "broken", "not an image", "too large")) > 0


@needs_odd_files
@pytest.mark.parametrize("number", [2, 3, 4])
def test_real_images_turned_by_exif_look_alike(number: int) -> None:
    folder = ODD / "exif_orientation" / "recurser"
    upright = decode(read_bytes(folder / "Portrait_1.jpg"), "1", True).pixels.astype(int)
    turned = decode(read_bytes(folder / f"Portrait_{number}.jpg"), "n", True).pixels.astype(int)
    # A large digit in the middle differs between the files; the rest is the same scene.
    assert np.abs(turned - upright).mean() < 12


def test_png_with_a_long_profile_or_text_is_read_and_pillow_keeps_its_bounds() -> None:
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    texts = PngImagePlugin.PngInfo()
    texts.add_text("note", "x" * 3_000_000, zip=True)
    image = make_image()
    for options in ({"pnginfo": texts}, {"icc_profile": bytes(3_000_000)}):
        decoded = decode(encoded(image, "PNG", **options), "x", turn_exif=True)
        np.testing.assert_array_equal(decoded.pixels, np.asarray(image))
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def test_png_with_a_text_beyond_the_bound_is_broken() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("note", "x" * (MAX_TEXT_CHUNK + 1), zip=True)
    with pytest.raises(ImageBrokenError):
        decode(encoded(make_image(), "PNG", pnginfo=texts), "x", turn_exif=True)
