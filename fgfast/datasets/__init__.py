"""Data sets: one module per layout, opened by name or by path.

dataset = open_dataset("cub")                  # searches $FGFAST_DATA, ./data and the current folder
dataset = open_dataset("cub", root=Path("~"))  # the data set's folder or its parent
dataset = open_dataset("holiday/images")       # a path, opened with the layout that recognises it
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fgfast.data_paths import DataPath
from fgfast.datasets.archives import held, refusal
from fgfast.datasets.layout import Dataset, locate, understood
from fgfast.errors import DatasetError, DatasetNotFoundError, UnknownNameError, UsageError
from fgfast.transfer import is_address

__all__ = [
    "Dataset",
    "Finding",
    "find",
    "layout_named",
    "names",
    "open_dataset",
    "search_folders",
    "survey",
]

# Name -> class in the module of that name; modules are imported on demand.
_CLASSES = {
    "cub": "Cub",
    "cars": "Cars",
    "aircraft": "Aircraft",
    "waterbirds": "Waterbirds",
    "pets": "Pets",
    "dogs": "Dogs",
    "flowers": "Flowers",
    "folder": "Folder",
}
# The layout that recognises any folder.
_ANY = "folder"


@dataclass(frozen=True, slots=True)
class Finding:
    """One known data set, and its folder on this machine.

    Attributes:
        name: the data set's name for `--dataset`.
        title: its full name.
        path: its folder; None where it was not found.
        images: number of listed images; None where counting is slow, or where its lists are broken.
        how_to_get: sentences that tell a person how to obtain the data set.
    """

    name: str
    title: str
    path: Path | None
    images: int | None
    how_to_get: str


def names() -> tuple[str, ...]:
    """Return the names of all layouts."""
    return tuple(_CLASSES)


def layout_named(name: str) -> type[Dataset]:
    """Return the adapter of that name; raise UnknownNameError where there is none."""
    if name not in _CLASSES:
        raise UnknownNameError("data set", name, _CLASSES)
    module = importlib.import_module(f"fgfast.datasets.{name}")
    return cast("type[Dataset]", getattr(module, _CLASSES[name]))


def search_folders() -> tuple[Path, ...]:
    """Return the folders that are searched for data sets: those of $FGFAST_DATA, ./data, the current folder."""
    named = [Path(text).expanduser() for text in os.environ.get("FGFAST_DATA", "").split(os.pathsep) if text]
    return (*named, Path("data"), Path())


def find(name: str, search: Sequence[Path] | None = None) -> Path:
    """Return the folder of the data set `name`; raise DatasetNotFoundError where it is not in the searched folders."""
    layout = layout_named(name)
    if name == _ANY:
        raise UsageError(f"a folder of images is not searched for. {layout.how_to_get}")
    folders = search_folders() if search is None else tuple(search)
    for folder in folders:
        found = locate(layout, folder)
        if found is not None:
            return found
    searched = "\n  ".join(
        dict.fromkeys(str((folder / usual).absolute()) for folder in folders for usual in layout.usual_folders)
    )
    raise DatasetNotFoundError(
        f"{layout.title} was not found. Searched for {layout.expected} in:\n  {searched}\n"
        f"Give its folder with --root DIR, or its parent folder in FGFAST_DATA. {layout.how_to_get}"
    )


def open_dataset(
    name: str,
    root: str | Path | None = None,
    labels: str | None = None,
    search: Sequence[Path] | None = None,
    follow_links: bool = False,
) -> Dataset:
    """Open a data set.

    Args:
        name: one of `names()`, or the path of a folder, which is opened with the layout that recognises it.
        root: the data set's folder or its parent; None searches for it.
        labels: the label list to use (aircraft: variant, family, manufacturer).
        search: folders to search instead of `search_folders()`.
        follow_links: follow links that lead out of the data set's folder.
    """
    if not name:
        raise UsageError(f"the data set has no name: give one of {', '.join(names())}, or a folder")
    for given in (name, str(root or "")):
        address = re.sub(r":/+", "://", given, count=1)  # a Path has lost a slash
        if is_address(address) and not Path(given).exists():
            raise UsageError(
                f"{address} is an address, and addresses are not read as data sets: download the data set, and give "
                "its folder"
            )
    if name in _CLASSES:
        place = find(name, search) if root is None else Path(root).expanduser()
        return _open(layout_named(name), place, labels, follow_links)
    path = Path(name).expanduser()
    if path.is_file():
        raise refusal(path)
    if not path.is_dir():
        if "/" in name or os.sep in name:
            raise DatasetNotFoundError(f"there is no folder {path.absolute()}. Known names: {', '.join(names())}.")
        raise UnknownNameError("data set", name, _CLASSES)
    if root is not None:
        raise UsageError(f"{name!r} is already a folder; omit --root {root}, or give a name to --dataset.")
    # The layout of any folder comes last in the table, and recognises every folder.
    layouts = (layout_named(known) for known in _CLASSES)
    return _open(next(layout for layout in layouts if layout.recognises(path)), path, labels, follow_links)


def _open(layout: type[Dataset], path: Path, labels: str | None, follow_links: bool) -> Dataset:
    """Open a data set; where there is an archive or a table in place of images, the error says what it is."""
    if path.is_file():
        raise refusal(path)
    try:
        return layout.open(path, labels, follow_links)
    except UsageError as error:
        if layout.name == _ANY and path.is_dir() and (what := held(path)):
            raise UsageError(f"{error} {what}") from None
        raise


def survey(search: Sequence[Path] | None = None) -> list[Finding]:
    """Search for every data set; only short lists are read."""
    findings = []
    for name in _CLASSES:
        layout, path, images = layout_named(name), None, None
        try:
            path = None if name == _ANY else find(name, search)
            if path:
                with understood(path):
                    images = layout.count(DataPath(str(path)))
        except (DatasetNotFoundError, DatasetError):
            pass
        findings.append(Finding(name, layout.title, path, images, layout.how_to_get))
    return findings
