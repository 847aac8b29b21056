"""A place to write to, and the errors of those that cannot be written to."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

from fgfast.errors import NameRefusedError, OutputFailedError, OutputRefusedError

# What the system answers about a path, and not about the disk: too long, a folder, below a file, with letters that the
# file system does not take.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)
# The bit of a Windows reparse tag that says: another name of something (winnt.h, IsReparseTagNameSurrogate).
_NAME_SURROGATE = 0x20000000


@dataclass(frozen=True, slots=True)
class Target:
    """A place to write to.

    Attributes:
        root: the folder that the user chose, or fgfast for its cache; links in its own path are the user's, and
            followed.
        name: POSIX path below the root, where no link is followed; empty for the root itself.
    """

    root: Path
    name: str = ""

    @classmethod
    def of(cls, root: Path, path: Path) -> Target:
        """Return the target of a path below `root`."""
        return cls(root, _posix(path.relative_to(root)))

    @classmethod
    def file(cls, path: Path) -> Target:
        """Return the target of a file that the user named, with all folders above it."""
        return cls(path.parent, path.name)

    def __truediv__(self, below: str | PurePath) -> Target:
        """Return the target below this one."""
        below = below if isinstance(below, str) else _posix(below)
        return Target(self.root, f"{self.name}/{below}" if self.name and below else self.name or below)

    @property
    def path(self) -> Path:
        """The path, for messages and for reading."""
        return self.root / self.name

    @property
    def parent(self) -> Target:
        """The folder that it is in; the root has none below itself."""
        return Target(self.root, self.name.rpartition("/")[0])


def _posix(path: PurePath) -> str:
    return "" if path == PurePath() else path.as_posix()


def link_refused(path: str | Path, root: str | Path) -> OutputRefusedError:
    """Return the error of a link in the place of a file or folder."""
    return OutputRefusedError(
        f"{path} is a link, which could lead out of {root}; nothing is written through it: remove it, or choose "
        "another folder"
    )


def failed(path: str | Path, error: OSError) -> OutputFailedError:
    """Return the error of a file or folder that the system does not let be written."""
    if error.errno in NAME_ERRORS:
        return NameRefusedError(f"cannot write {path}: {error.strerror or error}; choose another name")
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    advice = "make the folder writable" if denied else "free some space or repair the disk"
    return OutputFailedError(
        f"cannot write {path}: {error.strerror or error}. Finished images are kept: {advice}, then run the same "
        "command again"
    )


def is_link(found: os.stat_result) -> bool:
    """Whether the result of lstat is that of a link, or of what Windows calls a junction.

    Other reparse points of Windows stand for no other name: folders that OneDrive keeps in step are such.
    """
    return stat.S_ISLNK(found.st_mode) or bool(getattr(found, "st_reparse_tag", 0) & _NAME_SURROGATE)
