"""Every image that Pillow or NumPy can hold has one result, whichever way it comes in, or is refused as unsupported."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import SHARED
from PIL import Image as pillow
from PIL import ImageOps, TiffImagePlugin

import fgfast
from fgfast.errors import ImageBrokenError, ImageRefusedError, SampleError, UsageError
from fgfast.io import pixels as rule
from fgfast.io.decode import as_image, decode
from fgfast.records import UInt8

CASES = SHARED.parent / "cases"
HEIGHT, WIDTH = 48, 64
# A ramp of 16 bits: the value at row r, column c is 256 c + r.
RAMP = (np.arange(WIDTH)[None] * 1024 + np.arange(HEIGHT)[:, None] * 7).astype(np.uint16)


def colours() -> pillow.Image:
    """Smooth colours, so that modes with few of them are comparable."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return pillow.fromarray(np.stack([x * 3 + 20, y * 4 + 10, 200 - x - y], 2).astype(np.uint8))


def in_mode(mode: str) -> pillow.Image:
    """The colours, or for 16 bits the ramp, in a mode of Pillow."""
    if mode.startswith("I;16"):
        image = pillow.frombytes(mode, (WIDTH, HEIGHT), RAMP.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
        assert image.mode == mode
        return image
    if mode == "I":
        return pillow.fromarray(RAMP.astype(np.int32))
    if mode == "F":
        return pillow.fromarray((RAMP / 65535).astype(np.float32))
    by = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    image = colours() if by is None else colours().convert(by)
    if by:
        image.putalpha(128)
    return image.convert(mode)


def right(mode: str) -> UInt8 | None:
    """The result for a mode, computed without the code under test; None for unsupported."""
    if mode.startswith("I;16"):
        return np.repeat((RAMP // 256).astype(np.uint8)[:, :, None], 3, 2)
    if mode in ("I", "F"):
        return None
    if mode in ("1", "L", "LA", "La"):
        return np.asarray(colours().convert("1" if mode == "1" else "L").convert("RGB"))
    return np.asarray(colours())


# Largest difference in grey levels: alpha that was multiplied in loses a bit, colour spaces round, palettes quantise.
ROUNDING = {"La": 2, "RGBa": 2, "HSV": 4, "LAB": 24, "YCbCr": 4, "P": 60, "PA": 60}


@pytest.mark.parametrize("mode", pillow.MODES)
def test_every_mode_of_pillow_has_a_result_or_is_unsupported(mode: str) -> None:
    image, wanted = in_mode(mode), right(mode)
    if wanted is None:
        with pytest.raises(ImageBrokenError, match="the given image cannot be used") as caught:
            as_image(image, True)
        assert caught.value.reason == "unsupported"
        return
    found = as_image(image, True).pixels
    assert found.shape == (HEIGHT, WIDTH, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.abs(found.astype(int) - wanted).max() <= ROUNDING.get(mode, 0)
    assert image.mode == mode, "the caller's image has changed"


def saved(image: pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ways(data: bytes, folder: Path) -> dict[str, object]:
    """One file's content as everything that `cut_out` takes."""
    path = folder / "x"
    path.write_bytes(data)
    loaded = pillow.open(io.BytesIO(data))
    loaded.load()
    return {
        "path": path,
        "text": str(path),
        "bytes": data,
        "view": memoryview(data),
        "opened": pillow.open(io.BytesIO(data)),
        "loaded": loaded,
        "copied": loaded.copy(),
    }


def answer(image: object, turn: bool) -> object:
    try:
        return as_image(image, turn).pixels.tolist()
    except SampleError as error:
        return error.reason


KINDS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: saved(colours(), "PNG"),
    "PNG, 16 bits": lambda: saved(in_mode("I;16"), "PNG"),
    "PNG, palette": lambda: saved(colours().convert("P"), "PNG", transparency=3),
    "PNG, alpha": lambda: saved(in_mode("RGBa").convert("RGBA"), "PNG"),
    "JPEG": lambda: saved(colours(), "JPEG"),
    "JPEG, CMYK": lambda: saved(in_mode("CMYK"), "JPEG"),
    "WebP": lambda: saved(colours(), "WEBP"),
    "GIF": lambda: saved(colours(), "GIF"),
    "TIFF, 16 bits": lambda: saved(in_mode("I;16"), "TIFF"),
    "TIFF, 16 bits, big-endian": lambda: saved(in_mode("I;16B"), "TIFF"),
    "TIFF, float": lambda: saved(in_mode("F"), "TIFF"),
    "TIFF, int32": lambda: saved(in_mode("I"), "TIFF"),
    "TIFF, LAB": lambda: saved(in_mode("LAB"), "TIFF"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow's own conversion, for comparison
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", [False, True])
def test_all_ways_in_agree(kind: str, turn: bool, tmp_path: Path) -> None:
    answers = {way: answer(image, turn) for way, image in ways(KINDS[kind](), tmp_path).items()}
    assert all(found == answers["bytes"] for found in answers.values()), [*answers]
    if "float" in kind or "int32" in kind:
        assert answers["bytes"] == "unsupported"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_pillow_image_is_turned_as_its_file_is(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = pillow.Exif()
    exif[0x0112] = orientation
    data = saved(colours(), kind, exif=exif.tobytes())
    for turn in (False, True):
        found = [np.array(answer(image, turn)) for image in ways(data, tmp_path).values()]
        assert all(np.array_equal(one, found[0]) for one in found)
        assert found[0].shape[0] == (WIDTH if turn and orientation > 4 else HEIGHT)
    upright = ImageOps.exif_transpose(pillow.open(io.BytesIO(data)))
    np.testing.assert_array_equal(as_image(upright, True).pixels, np.asarray(upright.convert("RGB")))


@pytest.mark.parametrize("before", [True, False], ids=["before the pixels", "behind them"])
def test_the_orientation_of_a_png_is_found_on_both_sides_of_its_pixels(before: bool) -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    data = saved(colours(), "PNG")
    at = data.index(b"IDAT" if before else b"IEND") - 4
    data = data[:at] + chunk + data[at:]
    for image in (data, pillow.open(io.BytesIO(data))):
        np.testing.assert_array_equal(as_image(image, True).pixels, np.rot90(np.asarray(colours()), -1))
        np.testing.assert_array_equal(as_image(image, False).pixels, np.asarray(colours()))


def test_a_tiff_is_turned_once() -> None:
    exif = pillow.Exif()
    exif[0x0112] = 6
    data = saved(colours(), "TIFF", exif=exif)
    wanted = np.rot90(np.asarray(colours()), -1)
    for image in (data, pillow.open(io.BytesIO(data))):
        np.testing.assert_array_equal(as_image(image, True).pixels, wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", bool])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_arrays_follow_the_rule(dtype: object, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 65536, shape).astype(dtype)
    one = (array.astype(int) // 256 ** (array.dtype.itemsize - 1)).astype(np.uint8)
    wanted = one * 255 if array.dtype == bool else one
    wanted = wanted if wanted.ndim == 3 else np.stack([wanted] * 3, 2)
    np.testing.assert_array_equal(as_image(array, True).pixels, wanted)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16", "I;16B"])
def test_the_array_of_a_pillow_image_is_that_image(mode: str) -> None:
    image = in_mode(mode)
    np.testing.assert_array_equal(as_image(np.asarray(image), True).pixels, as_image(image, True).pixels)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4), np.int8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"an array must be \(H, W, 3\) RGB"):
        as_image(array, True)


def test_the_limit_of_pixels_holds_for_every_way_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rule, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    given = {**ways(KINDS["PNG"](), tmp_path), "array": np.asarray(colours())}
    for image in given.values():
        with pytest.raises(ImageRefusedError, match=f"{WIDTH}x{HEIGHT}"):
            as_image(image, True)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_broken(size: tuple[int, int]) -> None:
    assert answer(pillow.new("RGB", size), True) == "broken"


def tiff(array: np.ndarray, bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of one channel with these tags (TIFF 6.0)."""
    height, width = array.shape
    data = array.tobytes()
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
        (339, 3, sample_format),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("dtype", "bits", "sample_format"),
    [
        (np.int8, 8, 2),
        (np.int16, 16, 2),
        (np.int32, 32, 2),
        (np.uint32, 32, 1),
        (np.float16, 16, 3),
        (np.float32, 32, 3),
        (np.float64, 64, 3),
        (np.uint64, 64, 1),
        (np.int64, 64, 2),
    ],
)
@pytest.mark.parametrize("value", [1, 100, 200])
def test_numbers_of_unknown_range_are_never_grey_levels(
    dtype: type[np.generic], bits: int, sample_format: int, value: int, tmp_path: Path
) -> None:
    data = tiff(np.full((HEIGHT, WIDTH), value % 128, dtype), bits, sample_format)
    with pytest.raises(ImageBrokenError, match=r"x\.tif") as caught:
        decode(data, "x.tif", True)
    assert caught.value.reason == "unsupported"
    assert answer(data, False) == "unsupported"


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_where_the_file_says_so(bits: int, photometric: int) -> None:
    grey = RAMP if bits == 16 else (RAMP >> 8).astype(np.uint8)
    found = decode(tiff(grey, bits, photometric=photometric), "x", True).pixels[..., 0]
    level = (RAMP >> 8).astype(np.uint8)
    np.testing.assert_array_equal(found, level if photometric else 255 - level)


def test_twelve_bits_are_not_dark() -> None:
    values = (np.arange(HEIGHT * WIDTH) % 4096).reshape(HEIGHT, WIDTH)
    a, b = values[:, ::2], values[:, 1::2]
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 2).astype(np.uint8).reshape(HEIGHT, -1)
    data = tiff(packed, 12).replace(
        struct.pack("<HHII", 256, 4, 1, packed.shape[1]), struct.pack("<HHII", 256, 4, 1, WIDTH)
    )
    np.testing.assert_array_equal(decode(data, "x", True).pixels[..., 0], (values >> 4).astype(np.uint8))


@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_netpbm_is_scaled_by_its_own_maximum(most: int) -> None:
    values = np.linspace(0, most, HEIGHT * WIDTH).round().astype(int).reshape(HEIGHT, WIDTH)
    data = f"P5 {WIDTH} {HEIGHT} {most}\n".encode() + values.astype(np.uint8 if most < 256 else ">u2").tobytes()
    found = as_image(data, True).pixels[..., 0].astype(int)
    assert np.abs(found - values * 255 / most).max() <= 1
    opened = as_image(pillow.open(io.BytesIO(data)), True).pixels[..., 0]
    np.testing.assert_array_equal(found, opened)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_sixteen_bits_keep_their_upper_eight(channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    for suffix in (".png", ".tif"):
        ok, data = cv2.imencode(suffix, deep)
        assert ok
        np.testing.assert_array_equal(
            decode(data.tobytes(), "x", True).pixels, (deep[..., 2::-1] >> 8).astype(np.uint8)
        )


def test_a_kind_that_pillow_does_not_read_is_unsupported_and_junk_is_not_an_image() -> None:
    jpeg = bytearray(saved(colours(), "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    assert answer(bytes(jpeg), True) == "unsupported"
    assert answer(b"<html>404 not found</html>", True) == "not an image"
    assert answer(b"II*\0" + bytes(100), True) != "unsupported"


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not here")
def test_the_cases_of_sixteen_and_thirty_two_bits() -> None:
    settings = fgfast.Settings(segmenter="box")
    deep = CASES / "07-pil-16bit" / "x16.png"
    for image in (deep, str(deep), deep.read_bytes(), pillow.open(deep), np.asarray(pillow.open(deep))):
        assert fgfast.cut_out(image, box=(0, 0, 64, 48), settings=settings).pixels[24, 32].tolist() == [130] * 3
    refused = [CASES / "07-pil-16bit" / "xf.tif", *(CASES / "17-int32-tiff").glob("*.tif")]
    assert len(refused) == 4
    for path in refused:
        for image in (path, path.read_bytes(), pillow.open(path)):
            with pytest.raises(SampleError) as caught:
                fgfast.cut_out(image, box=(0, 0, 64, 48), settings=settings)
            assert caught.value.reason == "unsupported"


def test_tags_of_a_damaged_tiff_do_no_harm() -> None:
    image = pillow.open(io.BytesIO(tiff(RAMP, 16)))
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    image.load()
    image.tag_v2[339] = ()
    np.testing.assert_array_equal(as_image(image, True).pixels[..., 0], (RAMP >> 8).astype(np.uint8))
