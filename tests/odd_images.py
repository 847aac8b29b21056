"""Generated image files of every kind that a data set may hold, whole and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image as pillow

SIZE = (83, 61)


def make_image(size: tuple[int, int] = SIZE, mode: str = "RGB") -> pillow.Image:
    """Smooth colours with sharp edges, so that interpolated chroma shows."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rgb = np.stack([x * 5 + y, 255 - y * 3, ((x // 7 + y // 9) % 2) * 200], 2).astype(np.uint8)
    return pillow.fromarray(rgb).convert(mode)


def encoded(image: pillow.Image, format: str = "JPEG", **options: object) -> bytes:
    """The file's content."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_exif(orientation: int, **options: object) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = pillow.Exif()
    exif[0x0112] = orientation
    return encoded(make_image(), exif=exif.tobytes(), **options)


def sampled(chroma: str) -> bytes:
    """A JPEG with this chroma subsampling."""
    return bytes(simplejpeg.encode_jpeg(np.asarray(make_image()), 90, "RGB", chroma))


def segment(marker: int, body: bytes) -> bytes:
    """A JPEG's segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def behind_soi(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments inserted before its own."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def profile(size: int) -> list[bytes]:
    """Segments of a colour profile of this many bytes."""
    most = 65_000
    count = -(-size // most)
    return [segment(0xE2, b"ICC_PROFILE\0" + bytes([n + 1, count]) + b"\x80" * most) for n in range(count)]


def patched(jpeg: bytes, marker: int, offset: int, new: bytes) -> bytes:
    """A JPEG with bytes replaced in the first segment of this marker, counted from the marker's 0xff."""
    at = jpeg.index(bytes([0xFF, marker])) + offset
    return jpeg[:at] + new + jpeg[at + len(new) :]


def plain() -> dict[str, bytes]:
    """JPEGs that every decoder must read."""
    whole = encoded(make_image(), quality=90)
    return {
        "4:2:0": whole,
        "4:4:4": sampled("444"),
        "4:2:2": sampled("422"),
        "4:4:0": sampled("440"),
        "grey": encoded(make_image(mode="L")),
        "grey from Adobe": behind_soi(encoded(make_image(mode="L")), segment(0xEE, b"Adobe\0d\0\0\0\0\0")),
        "from Adobe": behind_soi(whole, segment(0xEE, b"Adobe\0d\0\0\0\0\1")),
        "progressive": encoded(make_image(), progressive=True),
        "progressive, grey": encoded(make_image(mode="L"), progressive=True),
        "restarts": encoded(make_image(), restart_marker_blocks=2),
        "restarts, grey": encoded(make_image(mode="L"), restart_marker_rows=1),
        "optimised": encoded(make_image(), optimize=True, quality=30),
        "best quality": encoded(make_image(), quality=100, subsampling=0),
        "comment": encoded(make_image(), comment=b"\xff\xd9 no end"),
        "colour profile": encoded(make_image(), icc_profile=b"\xff\xda" * 40_000),
        "1x1": encoded(make_image((1, 1))),
        "one row": encoded(make_image((70, 1))),
        "one column": encoded(make_image((1, 70))),
        "bytes behind the end": whole + b"\xff\xd8 something else",
        "broken EXIF": behind_soi(whole, segment(0xE1, b"Exif\0\0II*\0\xff\xff\0\0")),
        "EXIF behind a large profile": behind_soi(with_exif(6), *profile(200_000)),
        **{f"EXIF orientation {n}": with_exif(n) for n in range(10)},
    }


def odd() -> dict[str, bytes]:
    """Files that are left to the CPU decoder: other kinds, and damage that shows in the file's structure."""
    whole = encoded(make_image(), quality=90)
    progressive = encoded(make_image(), progressive=True)
    restarts = encoded(make_image(), restart_marker_blocks=2)
    cmyk = encoded(make_image(mode="CMYK"))
    grey16 = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024).astype(np.uint16)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    return {
        "4:1:1": sampled("411"),
        "CMYK": cmyk,
        "YCCK": patched(cmyk, 0xEE, 15, b"\2"),
        "RGB": encoded(make_image(), keep_rgb=True),
        "RGB by Adobe": behind_soi(whole, segment(0xEE, b"Adobe\0d\0\0\0\0\0")),
        "cut Adobe": behind_soi(whole, segment(0xEE, b"Adobe\0d")),
        "12 bits declared": patched(whole, 0xC0, 4, b"\x0c"),
        "arithmetic declared": patched(whole, 0xC0, 1, b"\xc9"),
        "lossless declared": patched(whole, 0xC0, 1, b"\xc3"),
        "no rows": patched(whole, 0xC0, 5, b"\0\0"),
        "two frames": behind_soi(whole, whole[whole.index(b"\xff\xc0") :][:19]),
        "no Huffman tables": whole.replace(b"\xff\xc4", b"\xff\xfe"),
        "no frame": whole[:2] + whole[whole.index(b"\xff\xc4") :],
        "junk between segments": whole[:2] + b"junk" + whole[2:],
        "half": whole[: len(whole) // 2],
        "no end marker": whole[:-2],
        "half an end marker": whole[:-1],
        "progressive, half": progressive[: len(progressive) // 2],
        "progressive, last scan missing": progressive[: progressive.rindex(b"\xff\xda")] + b"\xff\xd9",
        "progressive, DC missing": progressive.replace(b"\xff\xda\x00\x0c\x03", b"\xff\xfe\x00\x0c\x03"),
        "restart missing": restarts.replace(b"\xff\xd3", b""),
        "restart out of turn": restarts.replace(b"\xff\xd1", b"\xff\xd4"),
        "restart without interval": whole[:-40] + b"\xff\xd0" + whole[-40:],
        "turned by XMP": behind_soi(whole, segment(0xE1, xmp)),
        "turned by XMP behind a large profile": behind_soi(whole, *profile(200_000), segment(0xE1, xmp)),
        "no bytes": b"",
        "two bytes": b"\xff\xd8",
        "zeros": bytes(1000),
        "page": b"<html>404 not found</html>",
        "bomb": patched(whole, 0xC0, 5, struct.pack(">HH", 30_000, 30_000)),
        "PNG": encoded(make_image(), "PNG"),
        "PNG with alpha": encoded(make_image(mode="RGBA"), "PNG"),
        "PNG, 16 bits": encoded(pillow.fromarray(grey16), "PNG"),
        "PNG, half": encoded(make_image(), "PNG")[:500],
        "PNG bomb": _png_bomb(),
        "WebP": encoded(make_image(), "WEBP"),
        "GIF, animated": encoded(make_image(), "GIF", save_all=True, append_images=[make_image(mode="L")]),
        "TIFF": encoded(make_image(), "TIFF"),
    }


def damaged() -> dict[str, bytes]:
    """JPEGs that look plain: only undoing the Huffman code shows the damage."""
    whole = encoded(make_image(), quality=90)
    at = whole.index(b"\xff\xda") + 60
    tables = whole.index(b"\xff\xc4") + 5
    return {
        "half, with an end": whole[: len(whole) // 2] + b"\xff\xd9",
        "hole": whole[:at] + whole[at + 200 :],
        "bits flipped": whole[:at] + bytes(b ^ 4 if b < 0xF0 else b for b in whole[at : at + 9]) + whole[at + 9 :],
        "senseless tables": whole[:tables] + b"\xff" * 16 + whole[tables + 16 :],
    }


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """JPEGs with a few bytes changed, inserted, removed, or with the end cut off."""
    generator = np.random.default_rng(seed)
    whole = [encoded(make_image(), progressive=p, restart_marker_blocks=2 * r) for p in (0, 1) for r in (0, 1)]
    for _ in range(count):
        data = bytearray(whole[generator.integers(len(whole))])
        # Half of them in the header.
        at = int(generator.integers(2, 650 if generator.random() < 0.5 else len(data)))
        new = generator.integers(0, 256, 4, np.uint8).tobytes()
        kind = generator.integers(4)
        if kind == 0:
            data[at : at + 1] = new[:1]
        elif kind == 1:
            data[at:at] = new
        elif kind == 2:
            del data[at : at + new[0]]
        else:
            data[at:] = b"\xff\xd9"
        yield bytes(data)


def _png_bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    rest = chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest
