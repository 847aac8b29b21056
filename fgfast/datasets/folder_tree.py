"""The tree of a folder of images: its files, and what its folders are: splits, or classes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fgfast.data_paths import AnyPath, DataPath, LinkOutError, real_place
from fgfast.errors import DatasetError
from fgfast.image_formats import format_of, suffix_of, suffixes

# First-level folders that are splits, ignoring case, where no class folder is beside them.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Files in folders that links show a second time, and more often: each may show others, so that few links would show any
# number. All entries: each takes some 300 bytes. Folders in each other.
_FOLDER = 100  # what a folder counts, in files
_MOST_REPEATED, _MOST_ENTRIES, _DEEPEST = 1_000_000, 50_000_000, 200
# Files that Windows leaves in folders; hidden there.
_SYSTEM_FILES = ("Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Tree:
    """The visible content of a folder.

    Attributes:
        images: keys of the files whose suffix is that of an image that is read, sorted.
        others: paths of the other files, sorted; they may hold bytes that are not UTF-8.
        folders: paths of the folders, sorted.
        leaving: images that are links out of the data set, which are not followed.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    leaving: frozenset[str] = frozenset()


def walk(root: DataPath) -> Tree:
    """Walk a folder, skipping hidden files and folders. Links are followed, except those that form loops.

    Raises:
        LinkOutError: a folder is a link that leads out of the data set, and such links are not followed.
        DatasetError: links show the same folders too many times, or there is more than is read.
        OSError: a folder cannot be read.
    """
    read = suffixes()
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    leaving: set[str] = set()
    top = _identity(root)
    seen, repeated = {top}, 0
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (top,))]
    while pending:
        below, above = pending.pop()
        again = above[-1] in seen and bool(below)
        seen.add(above[-1])
        with os.scandir(root / below) as entries:
            for entry in entries:
                key = f"{below}{entry.name}"
                if entry.name.startswith(".") or entry.name in _SYSTEM_FILES:
                    continue
                repeated += _FOLDER if again and entry.is_dir() else again
                _refuse_endless(root, repeated, len(images) + len(others) + len(folders), len(above))
                if entry.is_dir():
                    if (here := _identity(root / key, entry.is_symlink())) not in above:
                        folders.append(key)
                        pending.append((f"{key}/", (*above, here)))
                elif suffix_of(entry.name) in read and can_be_key(key):
                    images.append(key)
                    if entry.is_symlink() and _leaves(root / key):
                        leaving.add(key)
                else:
                    others.append(key)
    return Tree(tuple(sorted(images)), tuple(sorted(others)), tuple(sorted(folders)), frozenset(leaving))


def _identity(folder: DataPath, is_link: bool = False) -> tuple[int, int]:
    """Return what tells a folder from all others; raise LinkOutError where it may not be read."""
    if is_link:
        real_place(folder)
    found = folder.stat()
    return found.st_dev, found.st_ino


def _leaves(path: DataPath) -> bool:
    try:
        real_place(path)
    except LinkOutError:
        return True
    return False


def _refuse_endless(root: DataPath, repeated: int, entries: int, depth: int) -> None:
    """Raise DatasetError where a walk would not end, or not fit into memory."""
    if repeated > _MOST_REPEATED:
        problem = f"its links show the same folders again and again, with more than {_MOST_REPEATED:,} files"
    elif entries > _MOST_ENTRIES:
        problem = f"it has more than {_MOST_ENTRIES:,} files; convert it in parts"
    elif depth > _DEEPEST:
        problem = f"its folders are nested more than {_DEEPEST} deep"
    else:
        return
    raise DatasetError(root, problem)


def can_be_key(key: str) -> bool:
    """Whether a path can be a key: UTF-8 without backslashes, as ledger and URLs require."""
    return "\\" not in key and (key.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in key))


def _first(keys: Iterable[str]) -> set[str]:
    """Return the first-level folders of keys."""
    return {key.partition("/")[0] for key in keys if "/" in key}


def split_folders(root: AnyPath, keys: Collection[str]) -> tuple[dict[str, str], str]:
    """Return which first-level folders are splits, and a sentence where a folder might have been taken for one.

    They are splits where all first-level folders with images have names of splits. One with such a name beside class
    folders is a class, provided that its images are in it and not in folders below it.

    Args:
        root: the data set's folder, for the message.
        keys: keys of all images.

    Raises:
        DatasetError: splits and other folders are beside each other.
    """
    folders = _first(keys)
    named = {name: SPLITS[name.lower()] for name in sorted(folders) if name.lower() in SPLITS}
    others = sorted(folders - named.keys())
    if not named or not others:
        return named, ""
    beside = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
    deeper = any(key.count("/") > 1 and key.partition("/")[0] in named for key in keys)
    if deeper or len(set(named.values())) > 1:
        raise DatasetError(
            root,
            f"the first-level folders {', '.join(named)} have names of splits, unlike {beside} beside them: "
            "put every image into a split (train, val, test), or rename the folders that are classes",
        )
    (name,) = named
    return {}, f"the folder {name} is a class like {beside} beside it, not a split"


def place(key: str, splits: Mapping[str, str]) -> tuple[str, str]:
    """Return a key's (split, class); folders below a class belong to that class."""
    folders = [name for name in key.split("/") if name not in ("", ".")][:-1]
    split = splits.get(folders[0], "") if folders else ""
    if split:
        folders = folders[1:]
    return split, folders[0] if folders else ""


def class_folders(tree: Tree, splits: Mapping[str, str], keys: Iterable[str]) -> tuple[str, ...]:
    """Return the folders that loaders number as classes, though none of their files may be an image that is read.

    A folder counts at the level of the classes where images are in it, where it is empty, where all that could be
    images in it are of formats that are not read here, or where another split has a class of its name.
    """
    level = 2 if splits else 1
    found = [
        f for f in tree.folders if f.count("/") == level - 1 and (level == 1 or f.partition("/")[0].lower() in SPLITS)
    ]
    with_images = {"/".join(key.split("/")[:level]) for key in keys if key.count("/") >= level}
    with_others: dict[str, bool] = {}
    for other in tree.others:
        folder = "/".join(other.split("/")[:level])
        with_others[folder] = with_others.get(folder, False) or format_of(other) is not None
    names = {folder.rpartition("/")[2] for folder in with_images}
    return tuple(f for f in found if f in with_images or with_others.get(f, True) or f.rpartition("/")[2] in names)
