"""Backgrounds from a folder of images: its files, their categories, and the splits that may use them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgfast.data_paths import DataPath, LinkOutError
from fgfast.datasets.folder_tree import walk
from fgfast.errors import DatasetError, UsageError

# Folders of Places that are no category: its archives', and those of splits in copies for ImageFolder. Its archives
# also sort categories by their first letter: data_large/f/forest/broadleaf.
_NO_CATEGORY = {"data_large", "data_large_standard", "data_256", "data_256_standard", "val_large", "val_256"}
_NO_CATEGORY |= {"train", "val", "test"}
# How many categories a message lists.
_LISTED = 12


@dataclass(frozen=True, slots=True)
class BackgroundFiles:
    """The images of a folder.

    Attributes:
        root: the folder.
        categories: name of each image, a POSIX path below the folder -> its category; in the order of the names.
        digest: SHA-256 of the names, hexadecimal.
    """

    root: DataPath
    categories: dict[str, str]
    digest: str


def category_of(name: str) -> str:
    """Return the category of an image of Places by its path: "data_large/f/forest/broadleaf/1.jpg" is forest/broadleaf.

    It is the path of its folder, without the folders of archives, splits and first letters above it; empty for an image
    in none.
    """
    folders = [folder for folder in name.split("/")[:-1] if folder not in _NO_CATEGORY]
    if len(folders) > 1 and len(folders[0]) == 1 and folders[1].startswith(folders[0]):
        folders = folders[1:]
    return "/".join(folders)


def background_files(folder: str, categories: Sequence[str] = (), follow_links: bool = False) -> BackgroundFiles:
    """List the images of a folder and of the folders in it; no file is opened.

    Args:
        folder: the folder.
        categories: the categories that are used; none for all.
        follow_links: whether links that lead out of the folder are followed.

    Raises:
        UsageError: it is not there, cannot be read, holds no image, or does not have one of the categories.
    """
    root = DataPath(str(Path(folder).expanduser().absolute()), follow=follow_links)
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}: --from takes set, colours, noise, a folder or places:FOLDER")
    try:
        tree = walk(root)
    except (LinkOutError, DatasetError, OSError) as error:
        raise UsageError(f"the backgrounds in {root} cannot be listed: {error}") from error
    found = {name: category_of(name) for name in tree.images if name not in tree.leaving}
    there = set(found.values())
    for category in categories:
        if category not in there:
            names = ", ".join(sorted(there)[:_LISTED]) or "none"
            more = ", ..." if len(there) > _LISTED else ""
            raise UsageError(f"{root} has no images of the category {category!r}. It has {names}{more}")
    kept = {name: category for name, category in found.items() if not categories or category in categories}
    if not kept:
        raise UsageError(f"{root} holds no image: --from takes a folder with images of backgrounds")
    return BackgroundFiles(root, kept, _digest(kept))


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
