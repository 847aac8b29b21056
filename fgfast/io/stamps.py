"""Whether files still hold what was read from them or written to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from fgfast.data_paths import AnyPath
from fgfast.files import FileStamp, open_regular
from fgfast.machine import available_cores

FileState = Literal["same", "missing", "differs", "unreadable"]

T = TypeVar("T")

# Files compared per task of the pool, and tasks waiting at once.
_PER_TASK, _WAITING = 64, 64
_BLOCK = 1 << 20


def state(path: AnyPath, expected: FileStamp, read: bool) -> FileState:
    """Compare a file with its stamp.

    A file of the same size and time is taken for the same, unless `read`: then, and where only the time differs, its
    content is hashed.
    """
    try:
        if not path.is_file():
            return "missing" if not path.exists() else "differs"
        found = path.stat()
        if found.st_size != expected.size:
            return "differs"
        if not read and found.st_mtime_ns == expected.mtime_ns:
            return "same"
        return "same" if _hashed(path) == expected.sha256 else "differs"
    except OSError:
        return "unreadable"


def described(path: AnyPath) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256, in hexadecimal, of a file."""
    return path.stat().st_size, _hashed(path).hex()


def _hashed(path: AnyPath) -> bytes:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def states(files: Iterable[tuple[T, AnyPath, FileStamp]], read: bool) -> Iterator[tuple[T, FileState]]:
    """Yield the name and the state of each (name, path, stamp), in order, compared on one thread per core."""

    def compare(some: list[tuple[T, AnyPath, FileStamp]]) -> list[tuple[T, FileState]]:
        return [(name, state(path, expected, read)) for name, path, expected in some]

    with ThreadPoolExecutor(available_cores()) as pool:
        waiting = []
        for some in _pieces(files):
            waiting.append(pool.submit(compare, some))
            if len(waiting) == _WAITING:
                yield from waiting.pop(0).result()
        for done in waiting:
            yield from done.result()


def _pieces(files: Iterable[tuple[T, AnyPath, FileStamp]]) -> Iterator[list[tuple[T, AnyPath, FileStamp]]]:
    some: list[tuple[T, AnyPath, FileStamp]] = []
    for file in files:
        some.append(file)
        if len(some) == _PER_TASK:
            yield some
            some = []
    if some:
        yield some
