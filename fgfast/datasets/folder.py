"""A plain folder of images: `<split>/<class>/<file>`, `<class>/<file>`, or flat."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fgfast.datasets.annotation_files import boxes_from, copy_file
from fgfast.datasets.box_tables import FILES, TableRow, read_table, rewrite_table
from fgfast.datasets.layout import Dataset, ImagePlacements
from fgfast.datasets.loaders import IMAGE_FOLDER_SUFFIXES, image_folder_line, load_line
from fgfast.errors import DatasetError, UsageError
from fgfast.records import Sample, no_boxes

# torchvision datasets/folder.py, IMG_EXTENSIONS; then further formats that Pillow reads.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
        *(".gif", ".avif", ".jp2", ".jpe", ".jfif", ".mpo", ".qoi"),
    )
)
# First-level folders that are splits, ignoring case; every other one is a class.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Return the keys of the images and of the other files, each sorted, skipping hidden files and loops of links."""
    images: list[str] = []
    others: list[str] = []
    top = root.stat()
    pending = [("", frozenset(((top.st_dev, top.st_ino),)))]
    while pending:
        below, above = pending.pop()
        for entry in os.scandir(root / below):
            key = f"{below}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                here = Path(entry.path).stat()
                if (here.st_dev, here.st_ino) not in above:
                    pending.append((f"{key}/", above | {(here.st_dev, here.st_ino)}))
            elif PurePosixPath(entry.name).suffix.lower() in SUFFIXES and _can_be_key(key):
                images.append(key)
            else:
                others.append(key)
    return sorted(images), sorted(others)


def _can_be_key(key: str) -> bool:
    """Whether a path can be a key: UTF-8 without backslashes, as ledger and URLs require."""
    return "\\" not in key and not any("\ud800" <= letter <= "\udfff" for letter in key)


def _place(key: str) -> tuple[str, str]:
    """Return a key's (split, class); folders below a class belong to that class."""
    folders = PurePosixPath(key).parts[:-1]
    split = SPLITS.get(folders[0].lower(), "") if folders else ""
    if split:
        folders = folders[1:]
    return split, folders[0] if folders else ""


@dataclass(frozen=True, eq=False)
class Folder(Dataset):
    """A folder of images.

    Attributes:
        ignored: number of files that are neither images nor lists of boxes.
        tables: the lists of boxes, relative to the root.
    """

    ignored: int
    tables: tuple[str, ...]

    name = "folder"
    title = "a folder of images"
    how_to_get = "Give your own folder of images: --dataset PATH, or --dataset folder --root PATH."
    expected = "an image"
    usual_folders = ()
    subject = ()
    turn_exif = True

    @property
    def folder(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name or "folder"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether `path` is a folder."""
        return path.is_dir()

    @classmethod
    def open(cls, root: Path, labels: str | None = None) -> Dataset:
        """Read the folder at `root`, which is not searched for elsewhere; see `Dataset.open`."""
        if not root.is_dir():
            raise UsageError(f"{root.absolute()} is not a folder. {cls.how_to_get}")
        return super().open(root, labels)

    @classmethod
    def _read(cls, root: Path, labels: str | None) -> Folder:
        """Walk the tree and read the lists of boxes; the samples are sorted by key."""
        try:
            images, others = _walk(root)
        except OSError as error:
            raise DatasetError(root, f"cannot be read: {error}") from error
        tables = tuple(key for key in others if _is_table(key))
        rows: dict[str, TableRow] = {}
        for table in tables:
            for row in read_table(root, table):
                first = rows.get(row.key)
                rows[row.key] = replace(first, boxes=first.boxes + row.boxes) if first else row
        listed = {key for key in rows if PurePosixPath(key).suffix.lower() in SUFFIXES}
        samples = []
        for key in sorted({*images, *listed}):
            split, label = _place(key)
            found = rows.get(key)
            boxes = boxes_from(found.path, found.boxes, found.number) if found else no_boxes()
            samples.append(Sample(key, root / key, label, split, boxes))
        if not samples:
            raise UsageError(
                f"no image in {root.absolute()} ({len(others)} other files). Expected "
                f"<split>/<class>/<file>, <class>/<file> or <file> with one of {' '.join(sorted(SUFFIXES))}."
            )
        classes = tuple(sorted({sample.label for sample in samples if sample.label}))
        return cls(root, classes, tuple(samples), len(others) - len(tables), tables)

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for ImageFolder, or for Hugging Face's imagefolder.

        The latter reads its lists, images without classes, and suffixes that ImageFolder does not know.
        """
        there = [sample for sample in self.samples if sample.key in placements]
        unknown = any(not p.key.lower().endswith(IMAGE_FOLDER_SUFFIXES) for p in placements.values())
        if unknown or not any(s.label for s in there) or any("metadata." in table for table in self.tables):
            return load_line("datasets", "load_dataset", "imagefolder", data_dir=twin)
        order = list(dict.fromkeys(SPLITS.values()))
        first = min(
            (sample for sample in there if sample.label),
            key=lambda sample: order.index(sample.split) if sample.split else -1,
        )
        below = f"{PurePosixPath(first.key).parts[0]}/" if first.split else ""
        beside = [sample for sample in there if sample.split == first.split and sample.key.startswith(below)]
        folders = {
            folder.removeprefix(below).partition("/")[0] for folder in self.image_folders() if folder.startswith(below)
        }
        return image_folder_line(twin / below, folders - {""}, {sample.label for sample in beside})

    def _write(self, out: Path, placements: ImagePlacements) -> list[Path]:
        """Write the lists of boxes."""
        if self._unchanged(placements):
            return [copy_file(self.root / table, out / table) for table in self.tables]
        return [rewrite_table(self.root, table, out / table, placements) for table in self.tables]


def _is_table(key: str) -> bool:
    """Whether a key is a list of boxes: boxes.csv at the root, metadata.csv or .jsonl there or in a split folder."""
    *folders, name = PurePosixPath(key).parts
    in_split = len(folders) == 1 and folders[0].lower() in SPLITS
    return name in FILES and (not folders or (in_split and name != "boxes.csv"))
