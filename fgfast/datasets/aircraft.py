"""FGVC-Aircraft: id lists for three kinds of labels, boxes, and a credit banner at the bottom of every image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fgfast.datasets.annotation_files import (
    Box,
    boxes_from,
    copy_file,
    fields_of,
    make_folders,
    numbers_of,
    pixels_from_box,
    read_lines,
    rewrite_lines,
    safe_key,
    unchanged,
    unique_samples,
)
from fgfast.datasets.layout import ImagePlacement, ImagePlacements, root_of
from fgfast.errors import DatasetError, UnknownNameError
from fgfast.records import Sample, no_boxes

# Kind of labels -> file of class names; loaders number the classes by its lines.
KINDS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
# Height of the credit banner in pixels; the data set's README.md, "the bottom 20 rows".
BANNER_ROWS = 20


def _corners(path: Path, number: int, fields: list[str]) -> Box:
    """Convert the file's xmin ymin xmax ymax, 1-based inclusive, to x0 y0 x1 y1."""
    xmin, ymin, xmax, ymax = numbers_of(path, number, fields)
    return xmin - 1, ymin - 1, xmax, ymax


def _labelled(data: Path, kind: str, split: str) -> list[tuple[Path, int, str, str]]:
    """Return (file, line number, id, label) per line of a list, none where it is absent. Labels may contain spaces."""
    path = data / f"images_{kind}_{split}.txt"
    entries = []
    for number, text in read_lines(path) if path.is_file() else ():
        ident, _, label = text.partition(" ")
        if not label.strip():
            raise DatasetError(path, f"expected <id> <{kind}>, got {text!r}", number)
        entries.append((path, number, ident, label.strip()))
    return entries


@dataclass(frozen=True, eq=False)
class Aircraft:
    """FGVC-Aircraft; fgfast.datasets.layout.Layout describes the fields.

    Loaders find an image as `<id>.jpg`, because the lists hold ids without a suffix: a twin in another format needs a
    loader that knows its suffix.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    name: ClassVar[str] = "aircraft"
    folder: ClassVar[str] = "fgvc-aircraft-2013b"
    title: ClassVar[str] = "FGVC-Aircraft"
    homepage: ClassVar[str] = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
    how_to_get: ClassVar[str] = "`fgfast datasets --download aircraft` fetches it (2.8 GB) from Oxford."
    expected: ClassVar[str] = "data/images_variant_*.txt"
    usual_folders: ClassVar[tuple[str, ...]] = ("fgvc-aircraft-2013b", "fgvc_aircraft", "aircraft")
    subject: ClassVar[tuple[str, ...]] = ("airplane",)
    turn_exif: ClassVar[bool] = False

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether one of the variant lists exists."""
        return any((path / f"data/images_variant_{s}.txt").is_file() for s in ("trainval", "train", "test"))

    @classmethod
    def count(cls, root: Path) -> int | None:
        """Count the ids of the variant lists."""
        lists = [_labelled(root / "data", "variant", split) for split in ("train", "val", "trainval", "test")]
        return len({ident for entries in lists for _, _, ident, _ in entries})

    @classmethod
    def open(cls, root: Path, labels: str | None = None) -> Aircraft:
        """Read the lists of one kind of labels: variant (default), family or manufacturer."""
        kind = "variant" if labels is None else labels
        if kind not in KINDS:
            raise UnknownNameError("FGVC-Aircraft label", kind, KINDS)
        root = root_of(cls, root)
        data = root / "data"
        classes = tuple(text for _, text in read_lines(data / KINDS[kind]))
        boxes = cls._boxes(data / "images_box.txt")
        samples = []
        for split, (path, number, ident, label) in cls._entries(data, kind):
            if label not in classes:
                raise DatasetError(path, f"{kind} {label!r} is not in {KINDS[kind]}", number)
            key = safe_key(path, f"{ident}.jpg", number, "data/images")
            found = boxes_from(data / "images_box.txt", [boxes[ident]]) if ident in boxes else no_boxes()
            samples.append(Sample(key, root / key, label, split, found, BANNER_ROWS))
        return cls(root, classes, unique_samples(data / f"images_{kind}_*.txt", samples))

    @staticmethod
    def _entries(data: Path, kind: str) -> list[tuple[str, tuple[Path, int, str, str]]]:
        """Return (split, entry) of all lists. trainval repeats train and val, and stands in where they are absent."""
        train, val, both, test = (_labelled(data, kind, s) for s in ("train", "val", "trainval", "test"))
        if not (train or val or both or test):
            raise DatasetError(data / f"images_{kind}_train.txt", f"all lists of {kind} labels are empty or missing")
        known = {ident for _, _, ident, _ in (*train, *val)}
        rest = [entry for entry in both if entry[2] not in known]
        lists = (("train", train), ("val", val), ("train", rest), ("test", test))
        return [(split, entry) for split, entries in lists for entry in entries]

    @staticmethod
    def _boxes(path: Path) -> dict[str, Box]:
        """Map each id to its box, x0 y0 x1 y1."""
        boxes = {}
        for number, text in read_lines(path) if path.is_file() else ():
            ident, *fields = fields_of(path, number, text, ("id", "xmin", "ymin", "xmax", "ymax"))
            boxes[ident] = _corners(path, number, fields)
        return boxes

    def write_annotations(
        self, out: Path, placements: ImagePlacements, selected: Collection[str] | None = None
    ) -> list[Path]:
        """Write all text files of data/, for all kinds of labels; class lists are copied whole."""
        make_folders(out, self.samples, selected)
        same = unchanged(self.samples, placements)
        placed = {Path(key).stem: placement for key, placement in placements.items()}

        def edit(text: str, number: int) -> str | None:
            return text if text.split(None, 1)[0] in placed else None

        written = []
        for source in sorted([*(self.root / "data").glob("*.txt"), *self.root.glob("README*")]):
            target = out / source.relative_to(self.root)
            if same or not source.name.startswith("images_"):
                written.append(copy_file(source, target))
            elif source.name == "images_box.txt":
                written.append(rewrite_lines(source, target, lambda text, n: self._box_line(text, n, placed)))
            else:
                written.append(rewrite_lines(source, target, edit))
        return written

    def _box_line(self, text: str, number: int, placed: dict[str, ImagePlacement]) -> str | None:
        path = self.root / "data/images_box.txt"
        ident, *fields = fields_of(path, number, text, ("id", "xmin", "ymin", "xmax", "ymax"))
        placement = placed.get(ident)
        if placement is None or not placement.moved:
            return None if placement is None else text
        return " ".join((ident, *map(str, pixels_from_box(_corners(path, number, fields), placement))))
