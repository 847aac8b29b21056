"""CUB-200-2011: text files with one line per image, linked by image ids.

https://www.vision.caltech.edu/datasets/cub_200_2011/
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import (
    Box,
    boxes_from,
    copy_file,
    fields_of,
    keep_lines,
    move_box,
    move_point,
    number_text,
    numbers_of,
    read_lines,
    rewrite_lines,
    safe_key,
    unique_samples,
)
from fgfast.datasets.layout import Dataset, ImagePlacement, ImagePlacements, NamedParts, folders_in, understood
from fgfast.datasets.loaders import image_folder_line
from fgfast.errors import DatasetError
from fgfast.mask_source import MaskKind
from fgfast.records import Float32, Sample, no_boxes
from fgfast.writing import Target

# Files without entries for single images, and files whose lines begin with the image id.
_WHOLE = ("README", "classes.txt", "parts/parts.txt", "attributes.txt", "attributes/*.txt")
_BY_ID = ("image_class_labels.txt", "train_test_split.txt", "attributes/image_attribute_labels.txt")


def _table(path: AnyPath) -> dict[str, tuple[int, str]]:
    """Read `id rest` lines as id -> (line number, rest); ids are unique."""
    table: dict[str, tuple[int, str]] = {}
    for number, text in read_lines(path):
        ident, _, rest = text.partition(" ")
        if not rest.strip():
            raise DatasetError(path, f"expected <id> <value>, got {text!r}", number)
        if ident in table:
            raise DatasetError(path, f"id {ident!r} is listed twice; each id has one line", number)
        table[ident] = (number, rest.strip())
    return table


def _optional(path: AnyPath) -> dict[str, tuple[int, str]]:
    return _table(path) if path.is_file() else {}


def _corners(path: AnyPath, number: int, fields: list[str]) -> Box:
    """Convert the file's x y width height to x0 y0 x1 y1."""
    x, y, width, height = numbers_of(path, number, fields)
    return x, y, x + width, y + height


def boxes_by_name(root: AnyPath) -> dict[str, Float32]:
    """Map `<class>/<file>.jpg` to its box, (1, 4) float32, in a CUB folder; Waterbirds uses these boxes."""
    boxes = _optional(root / "bounding_boxes.txt")
    return {name: _box(root, boxes, ident) for ident, (_, name) in _table(root / "images.txt").items()}


def names_by_id(root: AnyPath, names: Collection[str]) -> dict[str, str]:
    """Map image id to `<class>/<file>.jpg` in a CUB folder, of these names; Waterbirds has CUB's names."""
    return {ident: name for ident, (_, name) in _table(root / "images.txt").items() if name in names}


def _box(root: AnyPath, boxes: dict[str, tuple[int, str]], ident: str) -> Float32:
    if ident not in boxes:
        return no_boxes()
    path, (number, text) = root / "bounding_boxes.txt", boxes[ident]
    fields = fields_of(path, number, text, ("x", "y", "width", "height"))
    return boxes_from(path, [_corners(path, number, fields)], number)


def _keypoints(path: AnyPath) -> dict[str, Float32]:
    """Map image id to its visible parts, (N, 2) float32 x y in pixels; empty where there is no such file."""
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, ...]]] = {}
    for number, text in read_lines(path):
        ident, _, x, y, visible = fields_of(path, number, text, ("id", "part", "x", "y", "visible"))
        own = found.setdefault(ident, [])
        if visible != "0":
            own.append(tuple(numbers_of(path, number, (x, y))))
    return {ident: np.array(points, np.float32).reshape(-1, 2) for ident, points in found.items()}


def named_parts(root: AnyPath, keys: Mapping[str, str]) -> NamedParts | None:
    """Read parts/parts.txt and parts/part_locs.txt of a CUB folder; None where it has no part_locs.txt.

    Args:
        root: CUB's folder.
        keys: image id of CUB -> key of the sample.

    Raises:
        DatasetError: a line is malformed, names an unknown part, or a part of an image is listed twice.
    """
    path = root / "parts" / "part_locs.txt"
    if not path.is_file():
        return None
    listed = root / "parts" / "parts.txt"
    table = {ident: name for ident, (_, name) in _table(listed).items()}
    if len(set(table.values())) < len(table):
        raise DatasetError(listed, "two parts have the same name; each part has a name of its own")
    column = {ident: index for index, ident in enumerate(table)}
    points: dict[str, Float32] = {}
    seen: set[tuple[str, str]] = set()
    for number, text in read_lines(path):
        ident, part, x, y, visible = fields_of(path, number, text, ("id", "part", "x", "y", "visible"))
        if part not in column:
            raise DatasetError(path, f"part {part!r} is not in parts.txt", number)
        if visible not in ("0", "1"):
            raise DatasetError(path, f"expected visible 1 or 0, got {visible!r}", number)
        if (ident, part) in seen:
            raise DatasetError(path, f"part {part} of image id {ident} is listed twice; each has one line", number)
        seen.add((ident, part))
        if ident in keys:
            own = points.setdefault(keys[ident], np.zeros((len(table), 3), np.float32))
            own[column[part]] = (*numbers_of(path, number, (x, y)), float(visible))
    return NamedParts(tuple(table.values()), points)


def segmentations(
    root: DataPath, samples: Iterable[Sample], below: str = ""
) -> tuple[MaskKind, dict[str, AnyPath]] | None:
    """Return the masks of segmentations/ in or beside a CUB folder, `<class>/<file>.png`, by key; see `Dataset.masks`.

    Args:
        root: CUB's folder.
        samples: the samples; Waterbirds has CUB's names.
        below: the folder of the keys' images.
    """
    beside = DataPath(str(root.absolute().parent / "segmentations"), follow=root.follow)
    folder = next((f for f in (root / "segmentations", beside) if f.is_dir()), None)
    if folder is None:
        return None
    names = {sample.key: Path(sample.key.removeprefix(below)).with_suffix(".png") for sample in samples}
    return "levels", {key: folder / name for key, name in names.items()}


@dataclass(frozen=True, eq=False)
class Cub(Dataset):
    """CUB-200-2011.

    Attributes:
        ids: image id of the data set -> key.
    """

    ids: dict[str, str]

    name = "cub"
    title = "CUB-200-2011"
    how_to_get = "`fgfast datasets --download cub` fetches it (1.2 GB) from CaltechDATA."
    masks_from = (
        "Its masks come as a separate archive, segmentations.tgz of https://data.caltech.edu/records/w9d68-gec53: "
        "unpack it into the data set's folder or beside it."
    )
    expected = "images.txt and image_class_labels.txt"
    markers = ("images.txt", "image_class_labels.txt")
    usual_folders = ("CUB_200_2011", "CUB-200-2011", "cub", "CUB")
    subject = ("bird",)

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the lines of images.txt."""
        return len(read_lines(root / "images.txt"))

    @classmethod
    def _read(cls, root: DataPath, labels: str | None) -> Cub:
        """Read the lists; boxes and splits may be absent."""
        names = {ident: name for ident, (_, name) in _table(root / "classes.txt").items()}
        class_of = _table(root / "image_class_labels.txt")
        boxes, splits = _optional(root / "bounding_boxes.txt"), _optional(root / "train_test_split.txt")
        points = _keypoints(root / "parts" / "part_locs.txt")
        listing, samples, ids = root / "images.txt", [], {}
        for ident, (number, name) in _table(listing).items():
            ids[ident] = key = safe_key(listing, name, number, "images")
            if ident not in class_of:
                raise DatasetError(root / "image_class_labels.txt", f"no line for image id {ident}")
            line, label = class_of[ident]
            if label not in names:
                raise DatasetError(root / "image_class_labels.txt", f"class {label!r} is not in classes.txt", line)
            split = cls._split(root, splits, ident)
            box, seen = _box(root, boxes, ident), points.get(ident)
            samples.append(Sample(key, root / key, names[label], split, box, keypoints=seen))
        return cls(root, tuple(names.values()), unique_samples(listing, samples), ids)

    @staticmethod
    def _split(root: AnyPath, splits: dict[str, tuple[int, str]], ident: str) -> str:
        if not splits:
            return ""
        number, flag = splits.get(ident, (None, "nothing"))
        if flag not in ("0", "1"):
            path = root / "train_test_split.txt"
            raise DatasetError(path, f"expected 1 (train) or 0 (test) for image id {ident}, got {flag!r}", number)
        return "train" if flag == "1" else "test"

    def image_folders(self) -> set[str]:
        """Return the folders of the images and every folder beside them; see `Dataset.image_folders`."""
        return super().image_folders() | folders_in(self.root, "images")

    def masks(self) -> tuple[MaskKind, dict[str, AnyPath]] | None:
        """Return the levels of segmentations/, in the data set's folder or beside it."""
        return segmentations(self.root, self.samples, "images/")

    def parts(self) -> NamedParts | None:
        """Return the 15 parts of parts/, or as many as are named there."""
        with understood(self.root):
            return named_parts(self.root, self.ids)

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for ImageFolder: the class folders are numbered."""
        return image_folder_line(twin / "images", self.image_folders(), {key.rpartition("/")[0] for key in placements})

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the lists; ids keep their numbers."""
        same = self._unchanged(placements)
        placed = {ident: placements[key] for ident, key in self.ids.items() if key in placements}
        edits = {self.root / name: keep_lines(placed) for name in _BY_ID}
        edits[self.root / "images.txt"] = lambda text, number: self._image_line(text, placed)
        edits[self.root / "bounding_boxes.txt"] = lambda text, number: self._box_line(text, number, placed)
        for name in ("part_locs.txt", "part_click_locs.txt"):
            path = self.root / "parts" / name
            edits[path] = partial(self._part_line, path, placed)
        whole = {path for pattern in _WHOLE for path in self.root.glob(pattern) if path.is_file()}
        written = []
        for source in sorted(whole | {path for path in edits if path.is_file()}):
            target = out / source.relative_to(self.root)
            rewritten = source in edits and not same
            written.append(rewrite_lines(source, target, edits[source]) if rewritten else copy_file(source, target))
        return written

    def _image_line(self, text: str, placed: dict[str, ImagePlacement]) -> str | None:
        ident = text.split(None, 1)[0]
        placement = placed.get(ident)
        if placement is None:
            return None
        return text if placement.key == self.ids[ident] else f"{ident} {placement.key.removeprefix('images/')}"

    def _box_line(self, text: str, number: int, placed: dict[str, ImagePlacement]) -> str | None:
        path = self.root / "bounding_boxes.txt"
        ident, *fields = fields_of(path, number, text, ("id", "x", "y", "width", "height"))
        placement = placed.get(ident)
        if placement is None or not placement.moved:
            return None if placement is None else text
        x0, y0, x1, y1 = move_box(_corners(path, number, fields), placement)
        return " ".join((ident, *map(number_text, (x0, y0, x1 - x0, y1 - y0))))

    def _part_line(self, path: AnyPath, placed: dict[str, ImagePlacement], text: str, number: int) -> str | None:
        """Move a part, which is a point; one that is invisible, or that the crop does not show, is `0.0 0.0 0`.

        The annotators' clicks (part_click_locs.txt) have one more field, the time in seconds.
        """
        names = ("id", "part", "x", "y", "visible", "time")[: 6 if path.name == "part_click_locs.txt" else 5]
        ident, part, x, y, visible, *rest = fields_of(path, number, text, names)
        after = "".join(f" {field}" for field in rest)
        placement = placed.get(ident)
        if placement is None or not placement.moved or visible == "0":
            return None if placement is None else text
        left, top, shown = move_point(numbers_of(path, number, (x, y)), placement)
        if not shown:
            return f"{ident} {part} 0.0 0.0 0{after}"
        return f"{ident} {part} {number_text(left)} {number_text(top)} {visible}{after}"
