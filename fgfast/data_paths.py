"""Paths inside a data set, which a stranger may have made: they are not opened where a link leads out of it.

A `Path` is one that the user named, or that is fgfast's own, and its links are followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Folders below a data set's own, one in the other, that are looked into; each has a frame on the stack.
_DEEPEST = 200
# A name that is empty or ".", which PurePosixPath leaves out.
_NOT_PLAIN = re.compile(r"(?:^|/)\.?(?:/|\Z)")


class LinkOutError(OSError):
    """A link leads out of the data set that it is in."""


@dataclass(frozen=True, slots=True, eq=False)
class DataPath:
    """A file or folder inside a data set. It is used like a `Path`; fgfast itself opens it by `open_regular` alone.

    Attributes:
        top: the data set's own folder, which may be a link: the user named it.
        below: the POSIX path below it; empty for the folder itself.
        follow: whether links that lead out of the data set are followed.
    """

    top: str
    below: str = ""
    follow: bool = False

    def __truediv__(self, more: str | os.PathLike[str]) -> DataPath:
        below = f"{self.below}/{os.fspath(more)}".lstrip("/")
        if _NOT_PLAIN.search(below) is None:  # once or more per image: a PurePosixPath would write the same
            return DataPath(self.top, below, self.follow)
        return self._at(PurePosixPath(below))

    def _at(self, below: PurePosixPath) -> DataPath:
        return DataPath(self.top, str(below) if below.parts else "", self.follow)

    def __fspath__(self) -> str:
        # Once or more per image: a `Path` would take ten times as long.
        return _joined(self.top, self.below) if self.below and self.top != "." else self.below or self.top

    def __str__(self) -> str:
        return self.__fspath__()

    def __repr__(self) -> str:
        return f"DataPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return Path(self) == Path(other) if isinstance(other, (Path, DataPath)) else NotImplemented

    def __hash__(self) -> int:
        return hash(Path(self))

    def __lt__(self, other: DataPath) -> bool:
        return Path(self) < Path(other)

    @property
    def pure(self) -> PurePosixPath:
        """The path below the data set's folder."""
        return PurePosixPath(self.below)

    @property
    def name(self) -> str:
        """As of a `Path`."""
        return Path(self).name

    @property
    def stem(self) -> str:
        """As of a `Path`."""
        return Path(self).stem

    @property
    def suffix(self) -> str:
        """As of a `Path`."""
        return self.pure.suffix

    @property
    def parent(self) -> DataPath:
        """The folder; that of the data set's own folder is itself."""
        return self._at(self.pure.parent)

    def with_suffix(self, suffix: str) -> DataPath:
        """As of a `Path`."""
        return self._at(self.pure.with_suffix(suffix))

    @property
    def parts(self) -> tuple[str, ...]:
        """As of a `Path`."""
        return Path(self).parts

    def as_posix(self) -> str:
        """As of a `Path`."""
        return Path(self).as_posix()

    def relative_to(self, other: str | os.PathLike[str]) -> PurePosixPath:
        """As of a `Path`."""
        if isinstance(other, DataPath) and other.top == self.top:
            return self.pure.relative_to(other.below)
        return PurePosixPath(Path(self).relative_to(other).as_posix())

    def absolute(self) -> Path:
        """As of a `Path`."""
        return Path(self).absolute()

    def resolve(self) -> Path:
        """As of a `Path`: links are followed."""
        return Path(self).resolve()

    def stat(self) -> os.stat_result:
        """As of a `Path`: links are followed."""
        return os.stat(self)  # noqa: PTH116

    def exists(self) -> bool:
        """As of a `Path`: links are followed."""
        return Path(self).exists()

    def is_file(self) -> bool:
        """Whether something other than a folder is there.

        A named pipe, a device or a link that leads nowhere counts: what reads it says what is wrong, and an annotation
        that cannot be read never counts as none.
        """
        try:
            mode = os.lstat(self).st_mode
        except (OSError, ValueError):
            return False
        return not (Path(self).is_dir() if stat.S_ISLNK(mode) else stat.S_ISDIR(mode))

    def is_dir(self) -> bool:
        """As of a `Path`: links are followed."""
        return Path(self).is_dir()

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """As of a `Path`, for reading; raise LinkOutError where a link leads out of the data set."""
        if not set(mode) <= set("rbt"):
            raise ValueError(f"{self} is a file of a data set, which is opened for reading alone, not with {mode!r}")
        return Path(real_place(self)).open(mode, encoding=encoding, newline=newline)

    def read_bytes(self) -> bytes:
        """As of a `Path`; raise LinkOutError where a link leads out of the data set."""
        return Path(real_place(self)).read_bytes()

    def read_text(self, encoding: str | None = None) -> str:
        """As of a `Path`; raise LinkOutError where a link leads out of the data set."""
        return Path(real_place(self)).read_text(encoding)

    def iterdir(self) -> Iterator[DataPath]:
        """Yield what the folder holds; raise LinkOutError where a link leads out of the data set on the way to it."""
        real_place(self)
        return (self / path.name for path in Path(self).iterdir())

    def glob(self, pattern: str) -> Iterator[DataPath]:
        """Yield what a pattern matches; raise LinkOutError where a folder of it is out of the data set."""
        own = Path(self)
        for path in own.glob(pattern):
            found = self / path.relative_to(own).as_posix()
            real_place(found.parent)
            yield found


AnyPath = Path | DataPath
"""The path of a file that is read."""


def real_place(path: DataPath) -> str:
    """Return where a path is once its links are followed.

    Raises:
        LinkOutError: a link leads out of the data set, and such links are not followed.
    """
    return os.fspath(path) if path.follow else _real(path.top, path.below)


def forget_folders() -> None:
    """Look at the folders of data sets anew: what `real_place` finds is remembered, one call of the system a folder."""
    _real_folder.cache_clear()


def _real(top: str, name: str) -> str:
    if name.count("/") > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"it is more than {_DEEPEST} folders deep", name[:80])
    above, _, last = name.rpartition("/")
    return _followed(top, _real_folder(top, above), name, last) if last else _real_folder(top, "")


@lru_cache(1 << 16)
def _real_folder(top: str, name: str) -> str:
    return _real(top, name) if name else os.path.realpath(top)


def _joined(folder: str, below: str) -> str:
    return f"{folder}{below}" if folder.endswith(os.sep) else f"{folder}{os.sep}{below}"


def _followed(top: str, folder: str, name: str, last: str) -> str:
    """Return where `last` in a real folder leads; raise LinkOutError if that is out of the data set."""
    place = _joined(folder, last)
    if last != ".." and os.name == "posix":
        try:
            is_link = stat.S_ISLNK(os.lstat(place).st_mode)
        except (OSError, ValueError):  # opening it tells what is wrong
            return place
        if not is_link:
            return place
    real = os.path.realpath(place)
    if Path(real).is_relative_to(_real_folder(top, "")):
        return real
    raise LinkOutError(
        errno.EXDEV,
        f"the link {name} leads out of the data set, to {_kind(real)}; copy what it leads to into its place, or follow "
        "such links with --follow-links",
        str(Path(top, name)),
    )


def kind_of(mode: int) -> str:
    """Return what a mode of `os.stat_result` is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def _kind(place: str) -> str:
    try:
        return kind_of(Path(place).stat().st_mode)
    except OSError:
        return "something that is not there or cannot be read"
