"""Files: only regular ones are read, so that nothing blocks or never ends. Stamps tell whether a file changed.

A `DataPath` is a path inside a data set, and is not opened where a link leads out of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fgfast.data_paths import DataPath, kind_of, real_place

# Where the system's own files are: they have no size, some block, and some never end.
_KERNEL = ("/proc", "/sys")
_CHUNK = 1 << 20
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class FileStamp(NamedTuple):
    """What a file held when it was read or written.

    Attributes:
        size: in bytes.
        mtime_ns: time of its last change, in nanoseconds.
        sha256: SHA-256 of its bytes, 32 bytes.
    """

    size: int
    mtime_ns: int
    sha256: bytes

    @classmethod
    def of(cls, path: Path | DataPath, data: bytes) -> FileStamp:
        """Return the stamp of a file that was just read or written, with this content."""
        return cls(len(data), path.stat().st_mtime_ns, hashlib.sha256(data).digest())


class NotAFileError(OSError):
    """The path leads to a folder, a named pipe, a socket, a device, or a file of the system's own."""


class FileTooLargeError(OSError):
    """The file has more bytes than the caller reads."""


def open_regular(path: os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. Whatever else is there, the answer comes at once.

    Args:
        path: the file; links in a `DataPath` are followed inside the data set only, unless it says otherwise.

    Raises:
        FileNotFoundError: there is nothing.
        NotAFileError: it is no regular file.
        LinkOutError: a link leads out of the data set.
        OSError: it cannot be read.
    """
    place, more = os.fspath(path), 0
    if isinstance(path, DataPath) and not path.follow:
        place, more = real_place(path), _NO_LINKS
    try:
        _check(path, os.stat(place))  # noqa: PTH116 - before it is opened: some devices act then, and a socket cannot be
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file can have this name: {error}", place) from None
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(place, flags | more), "rb")
    try:
        _check(path, os.fstat(file.fileno()))  # another file may have taken its place
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: os.PathLike[str], limit: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        limit: the most bytes that are read; None reads any number.

    Raises:
        FileTooLargeError: it has more than `limit` bytes.
        OSError: see `open_regular`.
    """
    with open_regular(path) as file:
        return _content(file, path, os.fstat(file.fileno()).st_size, limit)


def _check(path: os.PathLike[str], found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAFileError(errno.EINVAL, f"it is {kind_of(found.st_mode)}, not a file", str(path))
    if found.st_dev in _kernel_devices():
        raise NotAFileError(errno.EINVAL, "it is a view of the system's own state, not a file on a disk", str(path))


@cache
def _kernel_devices() -> frozenset[int]:
    """Return the device numbers of the file systems that show the kernel's state."""
    folders = [folder for folder in _KERNEL if os.path.ismount(folder)]
    return frozenset(Path(folder).stat().st_dev for folder in folders)


def _content(file: BinaryIO, path: os.PathLike[str], size: int, limit: int | None) -> bytes:
    """Read to the end; raise FileTooLargeError as soon as there are more bytes than `limit`."""
    too_large = FileTooLargeError(errno.EFBIG, f"it has more than {limit or 0:,} bytes", str(path))
    if limit is not None and size > limit:
        raise too_large
    pieces = [file.read(size + 1)]
    total = len(pieces[0])
    while total > size:  # it grows, or its file system does not know its size
        if limit is not None and total > limit:
            raise too_large
        pieces.append(file.read(_CHUNK))
        if not pieces[-1]:
            break
        total += len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
