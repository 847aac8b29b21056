"""Pixels to picture files, and files to disk so that a kill at any moment leaves whole ones only."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from fgfast.errors import OutputFailedError
from fgfast.records import Bool, UInt8

# Temporary files carry this prefix and suffix; a resumed run sweeps away those that a killed one left.
_PART_PREFIX, _PART_SUFFIX = ".fgfast-", ".part"
_part_numbers = itertools.count()

# Suffixes that are written as they are; pictures of other kinds (GIF, AVIF, ...) become PNG under "same".
_PILLOW_FORMATS = {".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SAME_SUFFIXES = (*JPEG_SUFFIXES, ".png", *_PILLOW_FORMATS)
FORMAT_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# zlib level of PNGs: on cut-outs level 3 is within some percent of level 9's size at a fraction of its time.
_PNG_LEVEL = 3



def encode(pixels: UInt8, suffix: str, quality: int) -> bytes:
    """Encode a picture.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 4) RGBA uint8; alpha is for PNG and WebP only.
        suffix: one of `SAME_SUFFIXES`; says the format.
        quality: 1..100 for JPEG (4:4:4, so that colours do not bleed over the cut) and WebP (100 is lossless).
    """
    if suffix in JPEG_SUFFIXES:
        import simplejpeg

        return bytes(simplejpeg.encode_jpeg(pixels, quality, "RGB", "444"))
    if suffix == ".png":
        return _encode_png(pixels)
    import PIL.Image as pillow

    buffer = io.BytesIO()
    options: dict[str, object] = {}
    if suffix == ".webp":
        options = {"lossless": True} if quality == 100 else {"quality": quality}
    pillow.fromarray(pixels).save(buffer, _PILLOW_FORMATS[suffix], **options)
    return buffer.getvalue()


def encode_mask(bits: Bool) -> bytes:
    """(H, W) bool to an 8-bit grey PNG: 255 subject, 0 background."""
    return _encode_png(bits.astype(np.uint8) * np.uint8(255))


def _encode_png(pixels: UInt8) -> bytes:
    import cv2

    if pixels.ndim == 3:
        swap = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        pixels = cv2.cvtColor(pixels, swap)  # type: ignore[assignment]
    ok, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    if not ok:
        raise OutputFailedError(f"OpenCV could not encode a PNG of shape {pixels.shape}")
    return data.tobytes()


def twin_names(keys: Iterable[str], suffix: str | None) -> dict[str, str]:
    """The key of each picture in the twin.

    Args:
        keys: keys of all samples of the data set, so that names do not depend on what is selected.
        suffix: the new suffix, or None to keep each one that can be written (others become ".png").

    Returns:
        key -> key in the twin. Where two pictures would get one name (a.jpg and a.bmp, both to PNG), those whose name
        changed keep their whole old name and get the suffix appended.
    """
    wanted = {key: _renamed(key, suffix) for key in keys}
    taken = {key for key, name in wanted.items() if name == key}
    holders = Counter(wanted.values())
    for key, name in wanted.items():
        if name == key:
            continue
        if holders[name] > 1:
            name = key + PurePosixPath(name).suffix
        while name in taken:
            name += PurePosixPath(name).suffix
        taken.add(name)
        wanted[key] = name
    return wanted


def _renamed(key: str, suffix: str | None) -> str:
    old = PurePosixPath(key).suffix
    new = suffix or (old if old.lower() in SAME_SUFFIXES else ".png")
    if old.lower() == new.lower() or (old.lower() in JPEG_SUFFIXES and new in JPEG_SUFFIXES):
        return key
    return key[: len(key) - len(old)] + new


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves either the old one, or the whole new one.

    Written to a temporary name in the same folder, synced, renamed. Call `sync_folders` before relying on the name.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    part = path.parent / f"{_PART_PREFIX}{os.getpid()}-{next(_part_numbers)}{_PART_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        try:
            handle = os.open(part, flags, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(part, flags, 0o666)
        with open(handle, "wb", buffering=0) as file:
            file.write(data)
            os.fsync(handle)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OutputFailedError(
            f"cannot write {path}: {error.strerror or error}. Nothing finished is lost: make room or mend the disk, "
            "then start the same command again"
        ) from error


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names of files written below these folders durable (POSIX: a rename lives in the folder)."""
    if os.name != "posix":
        return
    for folder in sorted(set(folders)):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep_parts(root: Path) -> int:
    """Delete the temporary files that a killed run left below `root`; returns how many."""
    parts = list(root.rglob(f"{_PART_PREFIX}*{_PART_SUFFIX}"))
    for part in parts:
        part.unlink(missing_ok=True)
    return len(parts)
