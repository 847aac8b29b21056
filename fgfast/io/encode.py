"""Encoding images. PNG by an encoder of our own: filter, deflate, chunks (ISO/IEC 15948).

libpng, libspng and Pillow spend nearly all of their time in zlib. ISA-L's deflate (package `isal`) does the same work
about ten times as fast; `bench/encoders.py` measures it. Where `isal` is not installed, the standard library's zlib
is used; the pixels are the same, the files' bytes are not. run.json names the one in use.
"""

from __future__ import annotations

import importlib.metadata
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import ImageRefusedError
from fgfast.records import Bool, UInt8

# Suffixes that the format "same" keeps; images of other kinds (GIF, AVIF, ...) become PNG.
_PILLOW_FORMATS = {".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SAME_SUFFIXES = (*JPEG_SUFFIXES, ".png", *_PILLOW_FORMATS)
FORMAT_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# Largest sides in pixels (libwebp's WEBP_MAX_DIMENSION, libjpeg's JPEG_MAX_DIMENSION).
_LARGEST_SIDE = {".webp": 16383, ".jpg": 65500}

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _RGBA = 0, 2, 6
# PNG's filters 0 and 2: a row unchanged, or minus the row above. On cut-outs "up" gives smaller files than "left" and
# costs one subtraction; libpng's choice among all five saves 2 to 4 % and takes as long as the rest together. Masks of
# one bit are smallest unfiltered: runs of whole bytes.
_NONE, _UP = 0, 2
# ISA-L's level 2 is 1 % smaller than level 1 in the same time; level 3 takes longer and gives larger files.
_ISAL_LEVEL = 2
# zlib's level 1 on images gives 5 % larger files than level 3 in 3/4 of the time.
_ZLIB_LEVEL = 1
# A chunk's length has 31 bits; this is the largest power of two below that.
_MOST_IN_CHUNK = 1 << 30

Checksum = Callable[[Any, int], int]
Deflate = Callable[[Any], bytes]


def encode(pixels: UInt8, suffix: str, quality: int) -> bytes:
    """Encode an image.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 4) RGBA uint8; only PNG and WebP have alpha.
        suffix: the format, one of `SAME_SUFFIXES`.
        quality: 1..100 for JPEG (4:4:4, so that colours do not bleed over the cut) and WebP. WebP is lossless at 100,
            and always with alpha, because its lossy coding leaves the subject's colours under transparent pixels.
    """
    limit = _LARGEST_SIDE.get(suffix, _LARGEST_SIDE[".jpg"] if suffix in JPEG_SUFFIXES else None)
    if limit is not None and max(pixels.shape[:2]) > limit:
        raise ImageRefusedError(
            "too large", f"{suffix} images have sides of at most {limit}, not {max(pixels.shape[:2])}; choose png"
        )
    if suffix in JPEG_SUFFIXES:
        return _encode_jpeg(pixels, quality)
    if suffix == ".png":
        return encode_png(pixels)
    import PIL.Image as pillow

    buffer = io.BytesIO()
    options: dict[str, object] = {}
    if suffix == ".webp":
        lossless = quality == 100 or pixels.shape[2] == 4
        # Without "exact" the encoder chooses the colours of transparent pixels, and smaller files.
        options = {"lossless": True, "exact": True} if lossless else {"quality": quality}
    pillow.fromarray(pixels).save(buffer, _PILLOW_FORMATS[suffix], **options)
    return buffer.getvalue()


def _encode_jpeg(pixels: UInt8, quality: int) -> bytes:
    """Encode (H, W, 3) uint8 RGB with OpenCV, which releases the GIL; like every alternative it wraps libjpeg-turbo."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ValueError(f"OpenCV cannot encode JPEG from an array of shape {pixels.shape}")
    return bytes(data.tobytes())


def encode_png(pixels: UInt8) -> bytes:
    """Encode (H, W, 3) RGB or (H, W, 4) RGBA uint8 as a PNG with eight bits per channel."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    filtered = _rows(_UP, rows.shape)
    filtered[:1, 1:] = rows[:1]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return _file(width, height, 8, _RGBA if channels == 4 else _RGB, filtered)


def encode_grey(levels: UInt8) -> bytes:
    """Encode (H, W) uint8 as a grey PNG with eight bits per pixel."""
    filtered = _rows(_UP, levels.shape)
    filtered[:1, 1:] = levels[:1]
    np.subtract(levels[1:], levels[:-1], out=filtered[1:, 1:])
    return _file(levels.shape[1], levels.shape[0], 8, _GREY, filtered)


def encode_bilevel(bits: Bool) -> bytes:
    """Encode (H, W) bool as a PNG with one bit per pixel; white is True."""
    height, width = bits.shape
    packed = np.packbits(bits, axis=1)
    filtered = _rows(_NONE, packed.shape)
    filtered[:, 1:] = packed
    return _file(width, height, 1, _GREY, filtered)


def deflater() -> str:
    """Name the deflater in use, with its version: "isal 1.9.1" or "zlib 1.3.1"."""
    return _deflater()[0]


def _rows(kind: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Allocate filtered rows, (H, 1 + N) uint8: each row begins with its filter's number."""
    filtered = np.empty((shape[0], 1 + shape[1]), np.uint8)
    filtered[:, 0] = kind
    return filtered


def _file(width: int, height: int, depth: int, colour: int, filtered: NDArray[np.uint8]) -> bytes:
    if not filtered.size or not width:
        raise ValueError(f"a PNG needs at least one pixel, not {width} x {height}")
    _, deflate, crc32 = _deflater()
    data = memoryview(deflate(filtered))
    pieces = [data[start : start + _MOST_IN_CHUNK] for start in range(0, len(data), _MOST_IN_CHUNK)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks: list[tuple[bytes, bytes | memoryview]] = [
        (b"IHDR", header),
        *((b"IDAT", p) for p in pieces),
        (b"IEND", b""),
    ]
    parts: list[bytes | memoryview] = [_SIGNATURE]
    for kind, content in chunks:
        length, check = struct.pack(">I", len(content)), struct.pack(">I", crc32(content, crc32(kind, 0)))
        parts += [length, kind, content, check]
    return b"".join(parts)


@cache
def _deflater() -> tuple[str, Deflate, Checksum]:
    """Return name and version, deflate, CRC-32; both functions release the GIL."""
    try:
        from isal import isal_zlib
    except ImportError:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}", lambda data: zlib.compress(data, _ZLIB_LEVEL), zlib.crc32
    name = f"isal {importlib.metadata.version('isal')}"
    return name, lambda data: isal_zlib.compress(data, _ISAL_LEVEL), isal_zlib.crc32
