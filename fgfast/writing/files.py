"""Folders and files below a chosen folder, opened by their names, never through a link."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from pathlib import Path

from fgfast.errors import NameRefusedError, OutputRefusedError
from fgfast.writing.target import is_link, link_refused

# Temporary files carry this prefix and suffix; a resumed run deletes those that a killed one left.
TEMP_PREFIX, TEMP_SUFFIX = ".fgfast-", ".part"
_temp_numbers = itertools.count()
# Names tried for a temporary file, where somebody has taken the first ones.
_TRIED = 1000
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
    parts = name.split("/")
    strange = os.name == "nt" and ("\\" in name or ":" in name)
    if strange or "" in parts or "." in parts or ".." in parts:
        raise OutputRefusedError(f"{name!r} is no path inside {root}; nothing is written or deleted there")
    try:
        unusable = "\0" in name or not (name.isascii() or os.fsencode(name))
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
        most: folders that are held open at once.
    """

    def __init__(self, root: Path, make: bool = False, mode: int = 0o777, most: int = _HELD) -> None:
        """Open nothing yet."""
        self.root = root
        self._make, self._mode, self._most = make, mode, most
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
        if len(self._open) >= self._most:
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
        above = self.open(folder)
        for _ in range(_TRIED):
            temp = f"{folder}{slash}{TEMP_PREFIX}{os.getpid()}-{next(_temp_numbers)}{TEMP_SUFFIX}"
            at = temp[len(folder) + len(slash) :] if BY_FOLDER else os.path.join(self.root, temp)  # noqa: PTH118
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
