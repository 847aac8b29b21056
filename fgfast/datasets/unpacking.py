"""Unpacks tar archives of data sets: plain files and folders, within limits; any other archive is refused whole."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fgfast.errors import DownloadError
from fgfast.writing import Target, create, make_folder

# The largest data set here, Aircraft, has 2.8 GB in 10,000 files; the longest, CUB, some 24,000 members.
MOST_BYTES = 16 << 30
"""Bytes that an archive may hold, its own headers included."""
MOST_MEMBERS = 200_000
"""Files and folders that an archive may hold."""
# tarfile reads whatever a header claims to hold in one piece: names and comments, whose size may be anything.
_MOST_AT_ONCE = 1 << 20
_COPY = 1 << 16
_LONGEST_NAME = 4096


class _TooMuchError(Exception):
    """An archive holds more than is unpacked."""


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar archive, plain or gzipped, of plain files and folders.

    Nothing is written before every member has been looked at.

    Args:
        archive: the file.
        into: the folder, which is made.

    Raises:
        DownloadError: it is damaged, holds anything else (links, devices, paths that leave the folder), or too much.
    """
    try:
        with _opened(archive) as tar:
            members = list(_checked(archive, tar))
            make_folder(Target(into))
            for member in members:
                _write(tar, member, Target(into) / PurePosixPath(member.name))
    except _TooMuchError as error:
        raise DownloadError(f"{archive} is not unpacked: {error}. Remove it and get the official one.") from error
    # ValueError and its kind: what tarfile makes of numbers and texts that are none.
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DownloadError(f"{archive} cannot be unpacked: {error}. Remove it and try again.") from error


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive so that no read, and not all reads together, take more than the limits."""
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.open(file) if packed else file as content:
            limited: Any = _Limited(content)
            with tarfile.open(fileobj=limited, mode="r:") as tar:
                yield tar


class _Limited:
    """A file that refuses to be read further, or in larger pieces, than an archive of a data set needs."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise _TooMuchError(f"a header in it claims to hold {size:,} bytes; at most {_MOST_AT_ONCE:,} are read")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """The one who opened the file closes it."""

    def _check(self, position: int) -> None:
        if position > MOST_BYTES:
            raise _TooMuchError(f"it holds more than {MOST_BYTES:,} bytes, which no data set here has")


def _checked(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members; raise at the first that is not safe to unpack."""
    files: set[str] = set()
    for number, member in enumerate(tar):
        if number >= MOST_MEMBERS:
            raise _TooMuchError(f"it holds more than {MOST_MEMBERS:,} files and folders, which no data set here has")
        if problem := _problem(member, files):
            raise DownloadError(
                f"{archive} is not safe to unpack: {member.name[:200]!r}: {problem}. Nothing was unpacked."
            )
        yield member


def _problem(member: tarfile.TarInfo, files: set[str]) -> str:
    """Return why a member is not unpacked; empty where it is. `files` are the names of the files before it."""
    if len(member.name) > _LONGEST_NAME:  # each folder of a path is looked up
        return f"its path has {len(member.name):,} letters"
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        return "its path leaves the folder"
    if not member.name.isprintable():
        return "its name has control characters"
    if not (member.isfile() or member.isdir()) or member.issparse():
        return "it is a link or a device, or a file with holes"
    if member.size > MOST_BYTES:
        return f"it claims to have {member.size:,} bytes"
    if files.intersection((str(path), *map(str, path.parents))):
        return "a file of that name came before"
    if member.isfile():
        files.add(str(path))
    return ""


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Target) -> None:
    if member.isdir():
        make_folder(target)
        return
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    with source, os.fdopen(create(target), "wb") as file:
        shutil.copyfileobj(source, file, _COPY)
