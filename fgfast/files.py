"""Files: only regular ones are read, so that nothing blocks or never ends. Stamps tell whether a file changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Where the system's own files are: they have no size, some block, and some never end.
_KERNEL = ("/proc", "/sys")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CHUNK = 1 << 20


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
    def of(cls, path: Path, data: bytes) -> FileStamp:
        """Return the stamp of a file that was just read or written, with this content."""
        return cls(len(data), path.stat().st_mtime_ns, hashlib.sha256(data).digest())


class NotAFileError(OSError):
    """The path leads to a folder, a named pipe, a socket, a device, or a file of the system's own."""


class FileTooLargeError(OSError):
    """The file has more bytes than the caller reads."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed. Whatever else is there, the answer comes at once.

    Raises:
        FileNotFoundError: there is nothing.
        NotAFileError: it is no regular file.
        OSError: it cannot be read.
    """
    _check(path, path.stat())  # before it is opened: some devices act then, and a socket cannot be
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check(path, os.fstat(file.fileno()))  # another file may have taken its place
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, limit: int | None = None) -> bytes:
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


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise NotAFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    if found.st_dev in _kernel_devices():
        raise NotAFileError(errno.EINVAL, "it is a view of the system's own state, not a file on a disk", str(path))


@cache
def _kernel_devices() -> frozenset[int]:
    """Return the device numbers of the file systems that show the kernel's state."""
    folders = [folder for folder in _KERNEL if os.path.ismount(folder)]
    return frozenset(Path(folder).stat().st_dev for folder in folders)


def _content(file: BinaryIO, path: Path, size: int, limit: int | None) -> bytes:
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
