"""Files below a chosen folder: new, whole and durable, never through a link.

A kill at any moment leaves, under each name, either the old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fgfast.errors import NameRefusedError, OutputRefusedError
from fgfast.writing.target import Target, failed, is_link, link_refused

# Temporary files carry this prefix and suffix; a resumed run deletes those that a killed one left.
TEMP_PREFIX, TEMP_SUFFIX = ".fgfast-", ".part"
_temp_numbers = itertools.count()
# Names tried for a temporary file, where somebody has taken the first ones.
_TRIED = 1000
# For fewer files or folders than this, syncing each is cheaper than flushing the whole file system.
_FEW = 8
# Files synced in parallel where the file system cannot be flushed at once: the disk merges requests that wait together.
# 256 files on ext4 take 12 ms by syncfs, 28 ms in parallel, 860 ms one after the other.
_SYNCING = 16
# Folders that are held open at once, far fewer than a process may have.
_HELD = 64

# Whether files are opened from the folder above them, as on POSIX. Elsewhere paths are checked, then used.
BY_FOLDER = {os.open, os.mkdir, os.unlink, os.rmdir, os.stat, os.rename} <= os.supports_dir_fd
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | NO_LINK
BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK | BINARY
_LINKS = (errno.ELOOP, errno.ENOTDIR, getattr(errno, "EMLINK", errno.ELOOP))


def check_name(name: str, root: Path) -> None:
    """Check a name below a root, whoever it comes from.

    Raises:
        OutputRefusedError: it leads out of the root.
        NameRefusedError: no file system takes it.
    """
    strange = os.name == "nt" and ("\\" in name or ":" in name)
    if strange or any(part in ("", ".", "..") for part in name.split("/")):
        raise OutputRefusedError(f"{name!r} is no path inside {root}; nothing is written or deleted there")
    try:
        unusable = b"\0" in os.fsencode(name)
    except UnicodeEncodeError:
        unusable = True
    if unusable:
        raise NameRefusedError(f"cannot write {name!r}: no file can have this name; choose another name")


class Folders(contextlib.AbstractContextManager["Folders"]):
    """Folders below a root, each opened once from the one above it, and never through a link; for one thread.

    Where the system opens nothing by the folder above it (Windows), each folder is checked instead.

    Args:
        root: see `Target.root`.
        make: create the folders that are absent.
        mode: of new folders, less the umask; folders above the root have the usual one.
    """

    def __init__(self, root: Path, make: bool = False, mode: int = 0o777) -> None:
        """Open nothing yet."""
        self.root = root
        self._make, self._mode = make, mode
        self._open: dict[str, int | None] = {}

    def at(self, name: str) -> tuple[str, int | None]:
        """Return a path and the handle of the folder that it is relative to, as the functions of `os` take them.

        The handle holds until the next call.

        Raises:
            OutputRefusedError: a folder on the way is a link, or the name leads out of the root.
            NameRefusedError: no file system takes the name.
            OSError: a folder on the way is absent, or cannot be opened.
        """
        check_name(name, self.root)
        folder, _, last = name.rpartition("/")
        handle = self.open(folder)
        return (last, handle) if BY_FOLDER else (os.path.join(self.root, name), None)  # noqa: PTH118

    def open(self, folder: str) -> int | None:
        """Return the handle of a folder, "" for the root; it holds until the next call. See `at`."""
        if folder in self._open:
            return self._open[folder]
        if folder:
            check_name(folder, self.root)
        if len(self._open) >= _HELD:
            self.close()
        above = ""
        handle = self._open[above] if above in self._open else self._enter_root()
        for part in folder.split("/") if folder else ():
            whole = f"{above}/{part}" if above else part
            if whole not in self._open:
                self._open[whole] = self._enter(part, handle, whole)
            above, handle = whole, self._open[whole]
        return handle

    def _enter_root(self) -> int | None:
        if self._make:
            os.makedirs(self.root, self._mode, exist_ok=True)  # noqa: PTH103
        flags = _FOLDER & ~getattr(os, "O_NOFOLLOW", 0)
        self._open[""] = os.open(self.root, flags) if BY_FOLDER else None
        return self._open[""]

    def _enter(self, name: str, above: int | None, whole: str) -> int | None:
        at = name if BY_FOLDER else os.path.join(self.root, whole)  # noqa: PTH118
        if self._make:
            with contextlib.suppress(FileExistsError):
                try:
                    return self._checked(at, above, whole)
                except FileNotFoundError:
                    os.mkdir(at, self._mode, dir_fd=above)
        return self._checked(at, above, whole)

    def _checked(self, at: str, above: int | None, whole: str) -> int | None:
        """Open a folder, or where that is not possible check that it is one."""
        if BY_FOLDER:
            try:
                return os.open(at, _FOLDER, dir_fd=above)
            except OSError as error:
                if error.errno in _LINKS and is_link(os.stat(at, dir_fd=above, follow_symlinks=False)):
                    raise link_refused(f"{self.root}/{whole}", self.root) from None
                raise
        found = os.lstat(at)
        if is_link(found):
            raise link_refused(at, self.root)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), at)
        return None

    def sync(self, folder: str) -> None:
        """Make the names in a folder durable (on POSIX a rename is part of the folder)."""
        handle = self.open(folder)
        if handle is not None:
            os.fsync(handle)

    def new_temp(self, name: str, mode: int = 0o666) -> tuple[str, int]:
        """Create a temporary file in the folder of `name`; return its name below the root, and its handle."""
        check_name(name, self.root)
        folder, slash, _ = name.rpartition("/")
        for _ in range(_TRIED):
            temp = f"{folder}{slash}{TEMP_PREFIX}{os.getpid()}-{next(_temp_numbers)}{TEMP_SUFFIX}"
            at, above = self.at(temp)
            with contextlib.suppress(FileExistsError):
                return temp, os.open(at, NEW, mode, dir_fd=above)
        raise FileExistsError(errno.EEXIST, "all names of temporary files are taken", temp)

    def replace(self, old: str, new: str) -> None:
        """Rename a file over another one in the same folder; a link in that place is replaced, not followed."""
        (new_at, _), (old_at, above) = self.at(new), self.at(old)
        os.replace(old_at, new_at, src_dir_fd=above, dst_dir_fd=above)

    def unlink(self, name: str) -> None:
        """Delete a file or a link."""
        at, above = self.at(name)
        os.unlink(at, dir_fd=above)

    def close(self) -> None:
        """Close all folders."""
        for handle in self._open.values():
            if handle is not None:
                os.close(handle)
        self._open.clear()

    def __exit__(self, *exc: object) -> None:
        self.close()


def write_temp(target: Target, data: bytes) -> tuple[str, int]:
    """Write the content of `target` to a temporary file in the same folder, unsynced; `commit` renames it.

    Returns:
        The temporary file's name below the root, and the time of its last change in nanoseconds.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OutputFailedError: the disk is full, read-only or failing.
        NameRefusedError: the file system does not take the path.
    """
    temp = None
    with Folders(target.root, make=True) as folders:
        try:
            temp, handle = folders.new_temp(target.name)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            finally:
                os.close(handle)
            at, above = folders.at(temp)
            return temp, os.stat(at, dir_fd=above, follow_symlinks=False).st_mtime_ns
        except OSError as error:
            if temp is not None:
                with contextlib.suppress(OSError):
                    folders.unlink(temp)
            raise failed(target.path, error) from error


def commit(root: Path, temps: Sequence[tuple[str, str]], refused: dict[str, NameRefusedError] | None = None) -> None:
    """Sync temporary files, rename them, and sync the renames.

    Many files are synced at once, so that the disk's latency is paid once per batch and not once per image.

    Args:
        root: the folder that all names are below.
        temps: pairs of the name that `write_temp` returned and the file's own name, in the same folder.
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
