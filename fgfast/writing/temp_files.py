"""Files of a twin: written under temporary names, then committed many at a time, whole and durable.

A kill at any moment leaves, under each name, either the old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fgfast.errors import NameRefusedError, OutputRefusedError
from fgfast.writing.files import BINARY, NO_LINK, Folders
from fgfast.writing.target import failed

# For fewer files or folders than this, syncing each is cheaper than flushing the whole file system.
_FEW = 8
# Files synced in parallel where the file system cannot be flushed at once: the disk merges requests that wait together.
# 256 files on ext4 take 12 ms by syncfs, 28 ms in parallel, 860 ms one after the other.
_SYNCING = 16
# Folders that are held open between two files: per thread, those above an image and above its mask.
_HELD = 12


class TempFiles:
    """Writes files under temporary names below a root, unsynced; `commit` renames them. For any number of threads.

    The folders stay open between files, at most `_HELD` per thread that writes at the same time. They are closed with
    the object.

    Args:
        root: see `Target.root`.
    """

    def __init__(self, root: Path) -> None:
        """Open nothing yet."""
        self.root = root
        self._idle: deque[Folders] = deque()
        weakref.finalize(self, _close, self._idle)

    def write(self, name: str, data: bytes) -> tuple[str, int]:
        """Write the content of the file `name` to a temporary file in the same folder.

        Returns:
            The temporary file's name below the root, and the time of its last change in nanoseconds.

        Raises:
            OutputRefusedError: a folder on the way is a link.
            OutputFailedError: the disk is full, read-only or failing.
            NameRefusedError: the file system does not take the path.
        """
        try:
            folders = self._idle.pop()
        except IndexError:
            folders = Folders(self.root, make=True, most=_HELD)
        try:
            found = _write(folders, name, data)
        except BaseException:
            folders.close()  # one of them may be gone
            raise
        self._idle.append(folders)
        return found


def _close(idle: deque[Folders]) -> None:
    for folders in idle:
        folders.close()


def _write(folders: Folders, name: str, data: bytes) -> tuple[str, int]:
    """Write a temporary file; see `TempFiles.write`."""
    temp = None
    try:
        try:
            temp, handle = folders.new_temp(name)
        except FileNotFoundError:  # a folder was deleted while it was held
            folders.close()
            temp, handle = folders.new_temp(name)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)
        at, above = folders.at(temp)
        return temp, os.stat(at, dir_fd=above, follow_symlinks=False).st_mtime_ns  # some network disks set it at close
    except OSError as error:
        if temp is not None:
            with contextlib.suppress(OSError):
                folders.unlink(temp)
        raise failed(folders.root / name, error) from error


def commit(root: Path, temps: Sequence[tuple[str, str]], refused: dict[str, NameRefusedError] | None = None) -> None:
    """Sync temporary files, rename them, and sync the renames.

    Many files are synced at once, so that the disk's latency is paid once per batch and not once per image.

    Args:
        root: the folder that all names are below.
        temps: pairs of the name that `TempFiles.write` returned and the file's own name, in the same folder.
        refused: takes the error of each name that the file system does not take; without it such an error is raised.

    Raises:
        NameRefusedError: see `refused`.
        OutputRefusedError: a folder on the way is a link.
        OutputFailedError: the disk is full, read-only or failing.
    """
    name = temps[0][1] if temps else ""
    with Folders(root) as folders:
        try:
            _sync(folders, [temp for temp, _ in temps])
            for temp, name in temps:
                try:
                    folders.replace(temp, name)
                except OSError as error:
                    why = failed(root / name, error)
                    if refused is None or not isinstance(why, NameRefusedError):
                        raise
                    refused[name] = why
                    folders.unlink(temp)
            sync_folders(folders, {name.rpartition("/")[0] for _, name in temps})
        except (OSError, OutputRefusedError) as error:
            for temp, _ in temps:
                with contextlib.suppress(OSError, OutputRefusedError):
                    folders.unlink(temp)
            if isinstance(error, OutputRefusedError):
                raise
            raise failed(root / name, error) from error


def sync_folders(folders: Folders, names: Collection[str]) -> None:
    """Make the names of the files in these folders durable."""
    flush = _syncfs()
    if len(names) < _FEW or flush is None:
        for name in names:
            folders.sync(name)
    else:
        _flush(folders, names, flush)


def _sync(folders: Folders, names: Sequence[str]) -> None:
    """Wait until these files are on disk; many are flushed by one syncfs, where the system has it."""

    def sync(name: str, folders: Folders) -> None:
        at, above = folders.at(name)
        handle = os.open(at, os.O_RDWR | NO_LINK | BINARY, dir_fd=above)  # Windows syncs files open for writing only
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_some(some: Sequence[str]) -> None:
        with Folders(folders.root) as own:
            for name in some:
                sync(name, own)

    flush = _syncfs()
    if len(names) < _FEW:
        for name in names:
            sync(name, folders)
    elif flush is None:
        with ThreadPoolExecutor(_SYNCING) as pool:
            for _ in pool.map(sync_some, (names[n::_SYNCING] for n in range(_SYNCING))):
                pass
    else:
        _flush(folders, {name.rpartition("/")[0] for name in names}, flush)


def _flush(folders: Folders, names: Collection[str], flush: Callable[[int], int]) -> None:
    """Flush each file system that holds one of these folders."""
    seen: set[int] = set()
    for name in sorted(names):
        handle = folders.open(name)
        assert handle is not None  # Linux opens folders
        device = os.fstat(handle).st_dev
        if device not in seen and flush(handle) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        seen.add(device)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Return Linux's syncfs(2), which reports write errors since kernel 5.8, or None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    release = tuple(int(digits) for digits in re.findall(r"\d+", os.uname().release)[:2])
    library = ctypes.CDLL(None, use_errno=True)
    return library.syncfs if release >= (5, 8) and hasattr(library, "syncfs") else None
