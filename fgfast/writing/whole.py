"""Files that are written in one piece, whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fgfast.writing.files import BINARY, NEW, NO_LINK, TEMP_PREFIX, TEMP_SUFFIX, Folders
from fgfast.writing.removal import rename, scratch_folder
from fgfast.writing.target import Target, failed


def create(target: Target) -> int:
    """Create a file that must not exist, with the folders above it; return its handle, open for writing.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OSError: it exists, or cannot be created.
    """
    with Folders(target.root, make=True) as folders:
        at, above = folders.at(target.name)
        return os.open(at, NEW, 0o666, dir_fd=above)


def write_file(target: Target, data: bytes, sync: bool = True, mode: int = 0o666) -> None:
    """Write one file, whole; see `replacing`."""
    with replacing(target, sync, mode) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(target: Target, sync: bool = True, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `target`, whole, once the block ends without an error.

    Args:
        target: the file. A link in its place is replaced, not followed.
        sync: wait until the file is on disk. False is for the tens of thousands of small files beside single images,
            where waiting for each would take longer than the run; a resumed run writes them again.
        mode: of the new file, less the umask.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OutputFailedError: the disk is full, read-only or failing.
        NameRefusedError: the file system does not take the path.
    """
    temp = handle = None
    with Folders(target.root, make=True) as folders:
        try:
            temp, handle = folders.new_temp(target.name, mode)
            with os.fdopen(handle, "wb", closefd=False) as file:
                yield file
            if sync:
                os.fsync(handle)
            os.close(handle)
            handle = None
            folders.replace(temp, target.name)
            temp = None
            if sync:
                folders.sync(target.name.rpartition("/")[0])
        except OSError as error:
            raise failed(target.path, error) from error
        finally:
            if handle is not None:
                os.close(handle)
            if temp is not None:
                with contextlib.suppress(OSError):
                    folders.unlink(temp)


@contextlib.contextmanager
def replacing_path(target: Target, sync: bool = False) -> Iterator[Path]:
    """Yield a path in a folder of our own, for a library that opens its file itself; the file replaces `target`.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OutputFailedError: the disk is full, read-only or failing.
    """
    name = target.name.rpartition("/")[2]
    with scratch_folder(TEMP_PREFIX, target.parent, TEMP_SUFFIX) as folder:
        yield folder / name
        try:
            with Folders(folder) as folders:
                at, above = folders.at(name)
                handle = os.open(at, os.O_RDWR | NO_LINK | BINARY, dir_fd=above)
                try:
                    if sync:
                        os.fsync(handle)
                finally:
                    os.close(handle)
            rename(Target(folder, name), target)
        except OSError as error:
            raise failed(target.path, error) from error
