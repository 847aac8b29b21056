"""Files that are opened in place: lock files, the ledger, a download that is resumed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import IO

from fgfast.errors import OutputRefusedError
from fgfast.writing.files import BINARY, NEW, NO_LINK, Folders
from fgfast.writing.target import Target, failed, is_link, link_refused


def held(target: Target) -> os.stat_result:
    """Create an empty file where there is none, and check it; return what lstat tells about it.

    What opens the file afterwards by its path is to call `check_same` then.

    Raises:
        OutputRefusedError: it is a link, another name of a file that may be anywhere, or no file at all.
        OutputFailedError: the disk is full, read-only or failing.
    """
    try:
        with Folders(target.root, make=True) as folders:
            at, above = folders.at(target.name)
            try:
                found = os.stat(at, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):  # another process is faster
                    os.close(os.open(at, NEW, 0o666, dir_fd=above))
                found = os.stat(at, dir_fd=above, follow_symlinks=False)
    except OSError as error:
        raise failed(target.path, error) from error
    _check(target, found)
    return found


def check_in_place(target: Target) -> os.stat_result | None:
    """Return what lstat tells about a file that may be opened in place, None where there is none.

    Raises:
        OutputRefusedError: see `held`.
        OutputFailedError: the folder cannot be read.
    """
    try:
        with Folders(target.root) as folders:
            at, above = folders.at(target.name)
            found = os.stat(at, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(target.path, error) from error
    _check(target, found)
    return found


def check_same(target: Target, before: os.stat_result) -> None:
    """Raise OutputRefusedError unless a path still leads to the file that `held` or `check_in_place` saw."""
    found = check_in_place(target)
    if found is None or (found.st_dev, found.st_ino) != (before.st_dev, before.st_ino):
        raise OutputRefusedError(f"{target.path} was replaced while it was opened: is another program writing there?")


def append(target: Target, keep: bool) -> IO[bytes]:
    """Open a file for writing at its end, with the folders above it; `keep` keeps what it holds.

    Raises:
        OutputRefusedError: see `held`.
        OutputFailedError: the disk is full, read-only or failing.
    """
    held(target)
    try:
        with Folders(target.root) as folders:
            at, above = folders.at(target.name)
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | NO_LINK | BINARY
            file = os.fdopen(os.open(at, flags, dir_fd=above), "ab")
    except OSError as error:
        raise failed(target.path, error) from error
    try:
        _check(target, os.fstat(file.fileno()))
        if not keep:
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def locked(target: Target, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is absent and stays. The system releases it when we die.

    Args:
        target: the file.
        timeout: seconds to wait; negative for any time.

    Raises:
        filelock.Timeout: another process holds it.
        OutputRefusedError: see `held`.
        OutputFailedError: the disk is full, read-only or failing.
    """
    from filelock import FileLock, Timeout

    held(target)  # not every version of filelock refuses links
    lock = FileLock(target.path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise failed(target.path, error) from error
    try:
        yield
    finally:
        lock.release()


def _check(target: Target, found: os.stat_result) -> None:
    """Raise OutputRefusedError unless this is a file with one name."""
    if is_link(found):
        raise link_refused(target.path, target.root)
    if not stat.S_ISREG(found.st_mode):
        raise OutputRefusedError(f"{target.path} is not a file: remove it, or choose another folder")
    if found.st_nlink > 1:
        raise OutputRefusedError(
            f"{target.path} is one file with {found.st_nlink} names (hard links), and may be anybody's; nothing is "
            "written into it: remove it, or choose another folder"
        )
