"""Making folders, and deleting files and folders, never through a link."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from fgfast.errors import OutputRefusedError
from fgfast.writing.files import BY_FOLDER, TEMP_PREFIX, TEMP_SUFFIX, Folders, check_name
from fgfast.writing.target import Target, failed, link_refused


class Listing(NamedTuple):
    """What a folder holds, each in the order of names.

    Attributes:
        folder: the folder.
        folders, files, links: names in it; a link is neither a folder nor a file, wherever it leads.
    """

    folder: Target
    folders: list[str]
    files: list[str]
    links: list[str]


def make_folder(target: Target, mode: int = 0o777) -> None:
    """Create a folder, and those above it, where they are absent.

    Args:
        target: the folder.
        mode: of new folders, less the umask; those above the root have the usual one.

    Raises:
        OutputRefusedError: one of them is a link.
        OutputFailedError: the disk is full, read-only or failing.
        NameRefusedError: the file system does not take the path, or a file has its name.
    """
    try:
        with Folders(target.root, make=True, mode=mode) as folders:
            folders.open(target.name)
    except OSError as error:
        raise failed(target.path, error) from error


def rename(old: Target, new: Target) -> None:
    """Rename a file or a folder; a file or link in the place of the new name is replaced.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OSError: it cannot be renamed.
    """
    with Folders(old.root) as before, Folders(new.root) as after:
        (old_at, old_above), (new_at, new_above) = before.at(old.name), after.at(new.name)
        os.replace(old_at, new_at, src_dir_fd=old_above, dst_dir_fd=new_above)


def remove(target: Target) -> None:
    """Delete a file or a link, if it is there.

    Raises:
        OutputRefusedError: a folder on the way is a link.
        OSError: it is a folder, or cannot be deleted.
    """
    with contextlib.suppress(FileNotFoundError), Folders(target.root) as folders:
        folders.unlink(target.name)


def remove_folder(target: Target) -> bool:
    """Delete a folder, if it is there and empty; return whether it was.

    Raises:
        OutputRefusedError: a folder on the way is a link.
    """
    with contextlib.suppress(OSError), Folders(target.root) as folders:
        at, above = folders.at(target.name)
        os.rmdir(at, dir_fd=above)
        return True
    return False


def remove_tree(target: Target) -> None:
    """Delete a folder with all that it holds, links but not what they lead to. What cannot be deleted stays.

    Raises:
        OutputRefusedError: a folder on the way to it is a link.
    """
    found = list(walk(target))
    with Folders(target.root) as folders:
        for folder, _, files, links in reversed(found):
            for name in (*files, *links):
                with contextlib.suppress(OSError):
                    folders.unlink((folder / name).name)
            if folder.name:
                with contextlib.suppress(OSError):
                    at, above = folders.at(folder.name)
                    os.rmdir(at, dir_fd=above)


def walk(target: Target) -> Iterator[Listing]:
    """Yield a folder and all folders below it, each before those in it; what cannot be read is passed over.

    Raises:
        OutputRefusedError: a folder on the way to it is a link, or itself.
    """
    waiting = [target]
    with Folders(target.root) as opened:
        while waiting:
            folder = waiting.pop()
            found = Listing(folder, [], [], [])
            try:
                handle = opened.open(folder.name)
                with os.scandir(folder.path if handle is None else handle) as entries:
                    for entry in entries:
                        kind = found.links if entry.is_symlink() else found.files
                        (found.folders if entry.is_dir(follow_symlinks=False) else kind).append(entry.name)
            except OutputRefusedError:
                if folder is target:
                    raise
                continue
            except OSError:
                continue
            for names in found[1:]:
                names.sort()
            yield found
            waiting += [folder / name for name in reversed(found.folders)]


def refuse_links(targets: Iterable[Target]) -> None:
    """Raise OutputRefusedError where one of these, or anything below them, is a link."""
    for target in targets:
        for folder, _, _, links in walk(target):
            if links:
                raise link_refused((folder / links[0]).path, target.root)


def is_temp(name: str) -> bool:
    """Whether a file of this name is one that fgfast writes before it gets its own name."""
    return name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)


def sweep_temp_files(targets: Iterable[Target], flat: Iterable[Target] = (), folders: bool = False) -> int:
    """Delete the temporary files that a killed run left; return their number.

    Args:
        targets: folders that are searched with all folders below them.
        flat: folders that are searched alone.
        folders: delete folders that are called like one, too (`replacing_path`): where only fgfast makes folders. Else
            they are nobody's temporary file, and stay.
    """
    count = 0
    for found in (*map(walk, targets), *(islice(walk(target), 1) for target in flat)):
        for folder, below, files, links in found:
            for name in filter(is_temp, below if folders else ()):
                remove_tree(folder / name)
                count += 1
            for name in (*files, *links):
                if is_temp(name):
                    with contextlib.suppress(OSError):
                        remove(folder / name)
                        count += 1
    return count


def delete_files(root: Path, names: Iterable[str]) -> None:
    """Delete files, and the folders below `root` that this leaves empty.

    Absent files are ignored, and so are folders in the place of files, and files behind a link, which are not ours.

    Raises:
        OutputRefusedError: a name leads out of the root.
        OSError: a file cannot be deleted.
    """
    emptied: set[str] = set()
    with Folders(root) as folders:
        for name in names:
            check_name(name, root)
            try:
                folders.unlink(name)
            except OutputRefusedError:
                continue  # behind a link
            except OSError:
                if _is_file(folders, name):
                    raise
            emptied.add(name.rpartition("/")[0])
    for folder in sorted(emptied, key=lambda name: name.count("/"), reverse=True):
        while folder and remove_folder(Target(root, folder)):
            folder = folder.rpartition("/")[0]


def _is_file(folders: Folders, name: str) -> bool:
    """Whether there is something other than a folder."""
    try:
        at, above = folders.at(name)
        return not stat.S_ISDIR(os.stat(at, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def scratch_folder(prefix: str, inside: Target | Path | None = None, suffix: str = "") -> Iterator[Path]:
    """Make a folder with a random name, for this user alone, and delete it at the end.

    Args:
        prefix: the beginning of its name.
        inside: the folder that it is made in, which is made where it is absent; None takes the system's.
        suffix: the end of its name.

    Raises:
        OutputRefusedError: `inside` is below a link.
        OutputFailedError: the disk is full, read-only or failing.
    """
    place = Target(inside) if isinstance(inside, Path) else inside
    if place is not None:
        make_folder(place)
    try:
        folder = tempfile.TemporaryDirectory(suffix, prefix, dir=None if place is None else place.path)
    except OSError as error:
        raise failed(tempfile.gettempdir() if place is None else place.path, error) from error
    with folder as path:
        yield Path(path)


@contextlib.contextmanager
def scratch_file(folder: Target) -> Iterator[IO[bytes]]:
    """Open a file without a name, for reading and writing, on the disk of a folder; it is gone at the end."""
    make_folder(folder)
    with Folders(folder.root) as folders:
        temp, handle = folders.new_temp((folder / "scratch").name)
        try:
            if BY_FOLDER:
                folders.unlink(temp)
            with os.fdopen(handle, "w+b") as file:
                yield file
        finally:
            if not BY_FOLDER:
                with contextlib.suppress(OSError):
                    folders.unlink(temp)
