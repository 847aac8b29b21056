"""A plain folder of images: `<split>/<class>/<file>`, `<class>/<file>`, or flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import Box, boxes_from, copy_file
from fgfast.datasets.box_forms import fold
from fgfast.datasets.box_tables import is_table, read_table, rewrite_table
from fgfast.datasets.folder_tree import SPLITS, can_be_key, class_folders, place, split_folders, walk
from fgfast.datasets.layout import Dataset, ImagePlacements
from fgfast.datasets.loaders import IMAGE_FOLDER_SUFFIXES, image_folder_line, load_line, own_line
from fgfast.datasets.table_names import Keys
from fgfast.errors import DatasetError, UsageError
from fgfast.image_formats import suffix_of, suffixes, why_unread
from fgfast.records import Sample
from fgfast.writing import Target

# Number of files that are passed over, and named.
_NAMED = 5
# Folded names of columns that may hold the images' classes or splits.
_NOT_USED = ("label", "labels", "class", "classname", "classid", "category", "species", "split", "subset", "fold")
# Suffixes of files that may hold annotations.
_LISTS = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".mat", ".parquet")


@dataclass(frozen=True)
class Table:
    """A list of boxes.

    Attributes:
        key: its path relative to the root.
        unmovable: columns that cannot follow a crop.
        respelled: whether it spells names of images otherwise than their files.
        sized: whether it declares the sizes of images.
        unused: columns that may hold classes or splits, which are those of the folders alone.
    """

    key: str
    unmovable: tuple[str, ...]
    respelled: bool
    sized: bool
    unused: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Folder(Dataset):
    """A folder of images.

    Attributes:
        tables: the lists of boxes.
        folders: the class folders, those without images included.
        passed_over: number of files that are neither images nor lists of boxes.
        remarks: sentences about what was passed over, or might have been taken for something else.
    """

    tables: tuple[Table, ...]
    folders: tuple[str, ...]
    passed_over: int
    remarks: tuple[str, ...]

    name = "folder"
    title = "a folder of images"
    how_to_get = "Give your own folder of images: --dataset PATH, or --dataset folder --root PATH."
    expected = "an image"
    usual_folders = ()
    subject = ()
    turn_exif = True

    @property
    def folder(self) -> str:
        """The folder's own name; that of the link, where it was reached by one."""
        name = self.root.absolute().name
        return (self.root.resolve().name if name == ".." else name) or "folder"

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether `path` is a folder."""
        return path.is_dir()

    @classmethod
    def open(cls, root: Path, labels: str | None = None, follow_links: bool = False) -> Dataset:
        """Read the folder at `root`, which is not searched for elsewhere; see `Dataset.open`."""
        if not root.is_dir():
            raise UsageError(f"{root.absolute()} is not a folder. {cls.how_to_get}")
        return super().open(root, labels, follow_links)

    @classmethod
    def _read(cls, root: DataPath, labels: str | None) -> Folder:
        """Walk the tree and read the lists of boxes; the samples are sorted by key."""
        try:
            tree = walk(root)
        except OSError as error:
            raise DatasetError(error.filename or root, f"cannot be read: {error.strerror or error}") from error
        tables: list[Table] = []
        boxes: dict[str, dict[Box, None]] = {}
        keys = Keys((*tree.images, *tree.others))
        for key in filter(is_table, tree.others):
            tables.append(_read_table(root, key, keys, boxes))
        found = sorted({*tree.images, *boxes})
        passed_over = [key for key in tree.others if key not in boxes and not is_table(key)]
        if not found:
            expected = "Expected <split>/<class>/<file>, <class>/<file> or <file> with one of"
            others = "; ".join(_about_passed_over(passed_over))
            raise UsageError(f"no image in {root.absolute()}. {expected} {' '.join(sorted(suffixes()))}. {others}")
        if len(tree.leaving) == len(tree.images) == len(found):
            raise DatasetError(
                root, "every image is a link that leads out of the data set; follow such links with --follow-links"
            )
        splits, remark = split_folders(root, found)
        folders = class_folders(tree, splits, found)
        samples = []
        for key in found:
            split, label = place(key, splits)
            samples.append(Sample(key, root / key, label, split, boxes_from(root / key, boxes.get(key, ()))))
        classes = {sample.label for sample in samples if sample.label} | {f.rpartition("/")[2] for f in folders}
        remarks = (
            remark,
            _about_leaving(tree.leaving),
            _about_unused(tables, samples),
            *_about_passed_over(passed_over, found),
        )
        return cls(
            root,
            tuple(sorted(classes)),
            tuple(samples),
            tuple(tables),
            folders,
            len(passed_over),
            tuple(filter(None, remarks)),
        )

    def notes(self, cropped: bool) -> tuple[str, ...]:
        """Return what was passed over, and which columns a crop leaves out."""
        lost = [f"{table.key} ({', '.join(table.unmovable)})" for table in self.tables if table.unmovable]
        if not cropped or not lost:
            return self.remarks
        return (*self.remarks, f"columns that cannot follow a crop are left out of the twin: {'; '.join(lost)}")

    def image_folders(self) -> set[str]:
        """Return the folders of the images, and the class folders of the tree."""
        return super().image_folders() | set(self.folders)

    @cached_property
    def _keys(self) -> Keys:
        return Keys(sample.key for sample in self.samples)

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for ImageFolder, or for Hugging Face's imagefolder.

        The latter reads its lists, images without classes, and suffixes that ImageFolder does not know.
        """
        there = [sample for sample in self.samples if sample.key in placements]
        unknown = any(not p.key.lower().endswith(IMAGE_FOLDER_SUFFIXES) for p in placements.values())
        labelled, why_not = any(s.label for s in there), self._why_hugging_face_fails(there)
        metadata = any(map(_is_metadata, self.tables))
        if unknown or not labelled or (metadata and not why_not):
            if why_not:
                return own_line(twin, why_not)
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

    def _why_hugging_face_fails(self, there: Iterable[Sample]) -> str:
        """Return why Hugging Face's imagefolder loads neither the data set nor its twin, "" where it does."""
        metadata = [table.key for table in self.tables if _is_metadata(table)]
        if len({suffix_of(key) for key in metadata}) > 1:
            return "imagefolder refuses metadata files of different formats, as in the data set"
        splits = {sample.key.partition("/")[0] for sample in there if sample.split}
        described = splits & {key.partition("/")[0] for key in metadata}
        if described and described != splits:
            return "imagefolder refuses splits without metadata beside one that has it, as in the data set"
        return ""

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the lists of boxes."""
        same, written = self._unchanged(placements), []
        for table in self.tables:
            source, target = self.root / table.key, out / table.key
            if same and not table.respelled and not (table.sized and self._resized(table.key, placements)):
                written.append(copy_file(source, target))
            else:
                written.append(rewrite_table(self.root, table.key, target, placements, self._keys))
        return written

    def _resized(self, table: str, placements: ImagePlacements) -> bool:
        """Whether a table declares other sizes than those of the twin's images."""
        return any(row.resized(placements[row.key]) for row in read_table(self.root, table, self._keys))


def _read_table(root: AnyPath, key: str, keys: Keys, boxes: dict[str, dict[Box, None]]) -> Table:
    """Read a list, and add its boxes to those of the images, each once; every image that it names gets an entry."""
    unmovable, unused, respelled, sized = set[str](), dict[str, None](), False, False
    for row in read_table(root, key, keys):
        boxes.setdefault(row.key, {}).update(dict.fromkeys(row.boxes))
        for image in row.images[1:]:
            boxes.setdefault(image.key, {})
        unmovable |= row.unmovable
        unused.update((column, None) for column, value in row.fields.items() if fold(column) in _NOT_USED and value)
        respelled, sized = respelled or row.respelled, sized or row.size is not None
    return Table(key, tuple(sorted(unmovable)), respelled, sized, tuple(unused))


def _is_metadata(table: Table) -> bool:
    return PurePosixPath(table.key).name.lower().startswith("metadata.")


def _about_leaving(keys: Collection[str]) -> str:
    """Return a sentence about images that are links out of the data set, "" without any."""
    if not keys:
        return ""
    return (
        f"{_files(list(keys))} not read, and will fail: links that lead out of the data set ({_some(sorted(keys))}); "
        "follow such links with --follow-links"
    )


def _about_unused(tables: Iterable[Table], samples: Iterable[Sample]) -> str:
    """Return a sentence that names columns of classes or splits where no folder tells these, "" without any."""
    unused = [f"{table.key} ({', '.join(table.unused)})" for table in tables if table.unused]
    if not unused or any(sample.label or sample.split for sample in samples):
        return ""
    return f"columns are not used for classes or splits, which are those of folders alone: {'; '.join(unused)}"


def _about_passed_over(names: Sequence[str], images: Iterable[str] = ()) -> tuple[str, ...]:
    """Return sentences with the number of files, the first names, and what would read some of them.

    Args:
        names: the files that are passed over.
        images: keys of the images; a text file with the name of an image may describe it, as YOLO's do.
    """
    if not names:
        return ()
    stems = {PurePosixPath(key).stem for key in images}
    lists = [n for n in names if suffix_of(n) in _LISTS or (suffix_of(n) == ".txt" and PurePosixPath(n).stem in stems)]
    unnamed = [name for name in names if not can_be_key(name)]
    others = [name for name in names if can_be_key(name)]
    said = []
    if others:
        said.append(f"{_files(others)} passed over, neither images by their suffix nor lists of boxes: {_some(others)}")
    if unnamed:
        why = "names with a backslash, or not in UTF-8, are not taken; rename them"
        said.append(f"{_files(unnamed)} passed over for the name: {_some(unnamed)}; {why}")
    if lists:
        read = "boxes are read from boxes.csv, metadata.csv, metadata.jsonl and metadata.parquet only"
        said.append(f"{_files(lists)} not read, though annotations may be in them ({_some(lists)}): {read}")
    kinds = Counter(why for name in names if (why := why_unread(name)) and "pip install" in why)
    return (*said, *(f"{count:,} of the files passed over: {why}" for why, count in kinds.items()))


def _files(names: Sequence[str]) -> str:
    return "1 file is" if len(names) == 1 else f"{len(names):,} files are"


def _some(names: Sequence[str]) -> str:
    some = ", ".join(name if name.isprintable() else ascii(name) for name in names[:_NAMED])
    return f"{some}, ..." if len(names) > _NAMED else some
