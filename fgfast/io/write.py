"""Pixels to image files, and files to disk so that a kill at any moment leaves whole ones only."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath

from fgfast.errors import ImageRefusedError, OutputFailedError
from fgfast.io.png import encode_bilevel, encode_png
from fgfast.records import Bool, UInt8

# Temporary files carry this prefix and suffix; a resumed run sweeps away those that a killed one left.
_PART_PREFIX, _PART_SUFFIX = ".fgfast-", ".part"
_part_numbers = itertools.count()
# Below so many files or folders, syncing each is cheaper than flushing the whole file system.
_FEW = 8
# Where the file system cannot be flushed at once, so many files are synced side by side: a disk writes what waits
# together. 256 files on ext4: 12 ms by syncfs, 28 ms so, 860 ms one after the other.
_SYNCING = 16

# Suffixes that are written as they are; images of other kinds (GIF, AVIF, ...) become PNG under "same".
_PILLOW_FORMATS = {".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SAME_SUFFIXES = (*JPEG_SUFFIXES, ".png", *_PILLOW_FORMATS)
FORMAT_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# Sides that the formats cannot exceed (libwebp's WEBP_MAX_DIMENSION, libjpeg's JPEG_MAX_DIMENSION).
_LARGEST_SIDE = {".webp": 16383, ".jpg": 65500}


def encode(pixels: UInt8, suffix: str, quality: int) -> bytes:
    """Encode an image.

    Args:
        pixels: (H, W, 3) RGB or (H, W, 4) RGBA uint8; alpha is for PNG and WebP only.
        suffix: one of `SAME_SUFFIXES`; says the format.
        quality: 1..100 for JPEG (4:4:4, so that colours do not bleed over the cut) and WebP (100 is lossless).
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
        options = {"lossless": True} if quality == 100 else {"quality": quality}
    pillow.fromarray(pixels).save(buffer, _PILLOW_FORMATS[suffix], **options)
    return buffer.getvalue()


def encode_mask(bits: Bool) -> bytes:
    """(H, W) bool to a PNG of one bit a pixel: white is subject."""
    return encode_bilevel(bits)


def _encode_jpeg(pixels: UInt8, quality: int) -> bytes:
    """RGB to JPEG with OpenCV, which lets other threads run meanwhile; all libraries are libjpeg-turbo inside."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ValueError(f"OpenCV cannot encode JPEG from an array of shape {pixels.shape}")
    return bytes(data.tobytes())


def twin_names(keys: Iterable[str], suffix: str | None) -> dict[str, str]:
    """The key of each image in the twin.

    Args:
        keys: keys of all samples of the data set, so that names do not depend on what is selected.
        suffix: the new suffix, or None to keep each one that can be written (others become ".png").

    Returns:
        key -> key in the twin. Where two images would get one name (a.jpg and a.bmp, both to PNG), those whose name
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


def write_part(path: Path, data: bytes) -> Path:
    """Write the content of `path` under a temporary name in the same folder, unsynced; `settle` gives it its name.

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
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise _failed(path, error) from error
    return part


def settle(parts: Sequence[tuple[str | Path, str | Path]]) -> None:
    """Make written parts durable, give them their names, and make the names durable.

    A kill at any moment leaves, under each name, either the old file or the whole new one. Many files are synced at
    once, so that a disk's latency is paid once a batch and not once an image.

    Args:
        parts: pairs of what `write_part` returned and the file's own path.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    path = parts[0][1] if parts else Path()
    try:
        folders = [Path(folder) for folder in {os.path.dirname(path) for _, path in parts}]  # noqa: PTH120
        _sync([part for part, _ in parts], os.O_RDWR, folders)
        for part, path in parts:
            os.replace(part, path)
        sync_folders(folders)
    except OSError as error:
        for part, _ in parts:
            with contextlib.suppress(OSError):
                Path(part).unlink(missing_ok=True)
        raise _failed(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Write one file, durably, in the way of `write_part` and `settle`."""
    settle([(write_part(path, data), path)])


def _failed(path: str | Path, error: OSError) -> OutputFailedError:
    return OutputFailedError(
        f"cannot write {path}: {error.strerror or error}. Nothing finished is lost: make room or mend the disk, "
        "then start the same command again"
    )


def _sync(paths: Collection[str | Path], flags: int, folders: Collection[Path]) -> None:
    """Wait until these files or folders are on disk: one syncfs for many, where the system has it.

    Args:
        paths: all of one kind.
        flags: how to open them: Windows syncs only what is open for writing, POSIX opens no folder for that.
        folders: at least one on each file system that holds some of them.
    """

    def sync(path: str | Path) -> None:
        with _opened(path, flags) as handle:
            os.fsync(handle)

    syncfs = _syncfs()
    if len(paths) < _FEW:
        for path in paths:
            sync(path)
    elif syncfs is None:
        with ThreadPoolExecutor(_SYNCING) as pool:
            for _ in pool.map(sync, paths):
                pass
    else:
        for folder in {folder.stat().st_dev: folder for folder in folders}.values():
            with _opened(folder, os.O_RDONLY) as handle:
                if syncfs(handle) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def _opened(path: str | Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Linux's syncfs(2), which reports write errors since kernel 5.8; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    library = ctypes.CDLL(None, use_errno=True)
    return library.syncfs if release >= (5, 8) and hasattr(library, "syncfs") else None


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names of files in these folders durable (POSIX: a rename lives in the folder)."""
    if os.name == "posix":
        each = sorted(set(folders))
        _sync(each, os.O_RDONLY, each)


def sweep_parts(root: Path) -> int:
    """Delete the temporary files that a killed run left below `root`; returns how many."""
    parts = list(root.rglob(f"{_PART_PREFIX}*{_PART_SUFFIX}"))
    for part in parts:
        part.unlink(missing_ok=True)
    return len(parts)
