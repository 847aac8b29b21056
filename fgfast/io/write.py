"""Encoding images, and writing files so that a kill at any moment leaves only whole ones."""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
from typing import IO

from fgfast.errors import ImageRefusedError, NameRefusedError, OutputFailedError
from fgfast.io.png import encode_png
from fgfast.records import UInt8

# Temporary files carry this prefix and suffix; a resumed run deletes those that a killed one left.
_TEMP_PREFIX, _TEMP_SUFFIX = ".fgfast-", ".part"
_temp_numbers = itertools.count()
# For fewer files or folders than this, syncing each is cheaper than flushing the whole file system.
_FEW = 8
# Files synced in parallel where the file system cannot be flushed at once: the disk merges requests that wait together.
# 256 files on ext4 take 12 ms by syncfs, 28 ms in parallel, 860 ms one after the other.
_SYNCING = 16

# What the system answers about a path, and not about the disk: too long, a folder, below a file, with letters that the
# file system does not take.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)

# Suffixes that the format "same" keeps; images of other kinds (GIF, AVIF, ...) become PNG.
_PILLOW_FORMATS = {".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM"}
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SAME_SUFFIXES = (*JPEG_SUFFIXES, ".png", *_PILLOW_FORMATS)
FORMAT_SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# Largest sides in pixels (libwebp's WEBP_MAX_DIMENSION, libjpeg's JPEG_MAX_DIMENSION).
_LARGEST_SIDE = {".webp": 16383, ".jpg": 65500}


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


def twin_names(keys: Iterable[str], suffix: str | None) -> dict[str, str]:
    """Map each sample's key to its key in the twin.

    Args:
        keys: keys of all samples of the data set, so that names do not depend on the selection.
        suffix: the new suffix, or None to keep every suffix that can be written (others become ".png").

    Returns:
        key -> key in the twin. Where two images would get the same name (a.jpg and a.bmp, both to PNG), or an image the
        name of a folder, the renamed ones keep their whole old name and get the suffix appended.
    """
    wanted = {key: _renamed(key, suffix) for key in keys}
    folders = _folders(wanted)
    taken = folders | {key for key, name in wanted.items() if name == key}
    holders = Counter(wanted.values())
    for key, name in wanted.items():
        if name == key:
            continue
        if holders[name] > 1 or name in folders:
            name = key + PurePosixPath(name).suffix
        while name in taken:
            name += PurePosixPath(name).suffix
        taken.add(name)
        wanted[key] = name
    return wanted


def _folders(keys: Iterable[str]) -> set[str]:
    """Return every folder above the keys, as POSIX paths."""
    found: set[str] = set()
    for folder in {key.rpartition("/")[0] for key in keys}:
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _renamed(key: str, suffix: str | None) -> str:
    old = PurePosixPath(key).suffix
    new = suffix or (old if old.lower() in SAME_SUFFIXES else ".png")
    if old.lower() == new.lower() or (old.lower() in JPEG_SUFFIXES and new in JPEG_SUFFIXES):
        return key
    return key[: len(key) - len(old)] + new


def write_temp(path: Path, data: bytes) -> Path:
    """Write the content of `path` to a temporary file in the same folder, unsynced; `commit` renames it to `path`.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
        NameRefusedError: the file system does not take the path.
    """
    temp = path.parent / f"{_TEMP_PREFIX}{os.getpid()}-{next(_temp_numbers)}{_TEMP_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        try:
            handle = os.open(temp, flags, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temp, flags, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise _failed(path, error) from error
    return temp


def commit(temps: Sequence[tuple[str | Path, str | Path]], refused: dict[str, NameRefusedError] | None = None) -> None:
    """Sync temporary files, rename them, and sync the renames.

    A kill at any moment leaves, under each name, either the old file or the whole new one. Many files are synced at
    once, so that the disk's latency is paid once per batch and not once per image.

    Args:
        temps: pairs of the path that `write_temp` returned and the file's own path.
        refused: takes the error of each path that the file system does not take; without it such an error is raised.

    Raises:
        NameRefusedError: see `refused`.
        OutputFailedError: the disk is full, read-only or failing.
    """
    path = temps[0][1] if temps else Path()
    try:
        folders = [Path(folder) for folder in {os.path.dirname(path) for _, path in temps}]  # noqa: PTH120
        _sync([temp for temp, _ in temps], os.O_RDWR, folders)
        for temp, path in temps:
            try:
                os.replace(temp, path)
            except OSError as error:
                failed = _failed(path, error)
                if refused is None or not isinstance(failed, NameRefusedError):
                    raise
                refused[str(path)] = failed
                Path(temp).unlink()
        sync_folders(folders)
    except OSError as error:
        for temp, _ in temps:
            with contextlib.suppress(OSError):
                Path(temp).unlink(missing_ok=True)
        raise _failed(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Write one file durably: `write_temp`, then `commit`."""
    commit([(write_temp(path, data), path)])


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path`, whole and durable, once the block ends without an error.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    temp = write_temp(path, b"")
    try:
        with temp.open("wb") as out:
            yield out
    except BaseException as error:
        temp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _failed(path, error) from error
        raise
    commit([(temp, path)])


def _failed(path: str | Path, error: OSError) -> OutputFailedError:
    if error.errno in NAME_ERRORS:
        return NameRefusedError(f"cannot write {path}: {error.strerror or error}; choose another name")
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    advice = "make the folder writable" if denied else "free some space or repair the disk"
    return OutputFailedError(
        f"cannot write {path}: {error.strerror or error}. Finished images are kept: {advice}, then run the same "
        "command again"
    )


def _sync(paths: Collection[str | Path], flags: int, folders: Collection[Path]) -> None:
    """Wait until these files or folders are on disk; many are flushed by one syncfs, where the system has it.

    Args:
        paths: files only, or folders only.
        flags: flags to open them with: Windows syncs only files open for writing, POSIX opens no folder for writing.
        folders: at least one folder on each file system that holds some of `paths`.
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
    """Return Linux's syncfs(2), which reports write errors since kernel 5.8, or None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    release = tuple(int(digits) for digits in re.findall(r"\d+", os.uname().release)[:2])
    library = ctypes.CDLL(None, use_errno=True)
    return library.syncfs if release >= (5, 8) and hasattr(library, "syncfs") else None


def sync_folders(folders: Iterable[Path]) -> None:
    """Make the names of the files in these folders durable (on POSIX a rename is part of the folder)."""
    if os.name == "posix":
        each = sorted(set(folders))
        _sync(each, os.O_RDONLY, each)


def sweep_temp_files(root: Path) -> int:
    """Delete the temporary files that a killed run left below `root`; return their number."""
    temps = list(root.rglob(f"{_TEMP_PREFIX}*{_TEMP_SUFFIX}"))
    for temp in temps:
        temp.unlink(missing_ok=True)
    return len(temps)
