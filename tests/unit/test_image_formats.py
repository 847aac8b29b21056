"""The formats of image files: suffixes, plugins of Pillow, and the reason where one is missing."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from fgfast import image_formats
from fgfast.errors import ImageBrokenError
from fgfast.io.decode import FORMATS, decode

HEIC = b"\0\0\0\x18ftypheic" + bytes(60)
JXL = b"\xff\x0a" + bytes(60)

without_plugins = pytest.mark.skipif(
    any(importlib.util.find_spec(f.module) for f in image_formats.IMAGE_FORMATS if f.package),
    reason="plugins of Pillow for HEIF or JPEG XL are installed",
)


def encoded(format: str, **options: object) -> bytes:
    pixels = np.kron(np.array([[0, 255], [128, 60]], np.uint8), np.ones((20, 30), np.uint8))
    buffer = io.BytesIO()
    pillow.fromarray(pixels).convert("RGB").save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.apng", "PNG"),
        ("a.avifs", "AVIF"),
        ("a.tga", "TGA"),
        ("a.TGA", "TGA"),
        ("a.ico", "ICO"),
        ("a.pbm", "PPM"),
        ("a.j2k", "JPEG2000"),
    ],
)
def test_further_formats_are_read(name: str, format: str) -> None:
    if format not in image_formats.pillow_formats() and format not in pillow.SAVE:
        pytest.skip(f"this Pillow has no {format}")
    data = encoded(format, **({"sizes": [(60, 40)]} if format == "ICO" else {}))
    pixels = decode(data, name, False).pixels
    assert pixels.shape == (40, 60, 3)
    assert abs(int(pixels[10, 40, 0]) - 255) < 8
    assert abs(int(pixels[30, 10, 0]) - 128) < 8
    assert image_formats.suffix_of(name) in image_formats.suffixes()


def test_a_format_without_signature_is_read_by_its_suffix_only() -> None:
    with pytest.raises(ImageBrokenError) as failure:
        decode(encoded("TGA"), "a.jpg", False)
    assert failure.value.reason == "not an image"
    assert "TGA" not in FORMATS


@without_plugins
@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (HEIC, "IMG_0001.HEIC", "pip install pillow-heif"),
        (HEIC, "renamed.jpg", "pip install pillow-heif"),
        (JXL, "a.jxl", "pip install pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a", "pip install pillow-jxl-plugin"),
        (b"8BPS" + bytes(60), "a.psd", "files that end in .psd are not read; convert it to PNG or JPEG"),
        (b"text", "notes.txt", "files that end in .txt are not read"),
    ],
)
def test_what_is_not_read_is_unsupported_with_the_way_out(data: bytes, name: str, says: str) -> None:
    with pytest.raises(ImageBrokenError, match=says) as failure:
        decode(data, name, False)
    assert failure.value.reason == "unsupported"


@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_what_is_no_image_is_none(name: str) -> None:
    with pytest.raises(ImageBrokenError) as failure:
        decode(b"text", name, False)
    assert failure.value.reason == "not an image"


def test_a_plugin_that_is_installed_is_used(tmp_path: Path) -> None:
    """A stand-in for pillow-heif, whose images are BMPs behind HEIC's signature."""
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import BmpImagePlugin, Image\n"
        "import io\n"
        "def opened(file, name):\n"
        "    file.seek(72)\n"
        "    return BmpImagePlugin.BmpImageFile(io.BytesIO(file.read()))\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', opened, lambda start: start[4:12] == b'ftypheic')\n"
    )
    (tmp_path / "a.heic").write_bytes(HEIC + encoded("BMP"))
    asked = (
        "from pathlib import Path\n"
        "from fgfast.datasets import open_dataset\n"
        "from fgfast.io.decode import decode\n"
        "(sample,) = open_dataset('folder', Path('.')).samples\n"
        "print(sample.key, *decode(Path(sample.path).read_bytes(), sample.key, True).pixels.shape)\n"
    )
    path = os.pathsep.join((str(tmp_path), *sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a.heic 40 60 3\n", "")
