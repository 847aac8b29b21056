"""FGVC-Aircraft: id lists for three kinds of labels, boxes, and a credit banner at the bottom of every image.

https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import (
    box_from_pixels,
    boxes_from,
    copy_file,
    fields_of,
    keep_lines,
    pixels_from_box,
    read_lines,
    rewrite_lines,
    safe_key,
    unique_samples,
)
from fgfast.datasets.layout import Dataset, ImagePlacement, ImagePlacements
from fgfast.datasets.loaders import torchvision_line
from fgfast.errors import DatasetError
from fgfast.records import Float32, Sample, no_boxes
from fgfast.writing import Target

# Kind of labels -> file of class names; loaders number the classes by its lines.
KINDS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
# Height of the credit banner in pixels; the data set's README.md, "the bottom 20 rows".
BANNER_ROWS = 20
_BOX_FIELDS = ("id", "xmin", "ymin", "xmax", "ymax")


def _labelled(data: AnyPath, kind: str, split: str) -> list[tuple[AnyPath, int, str, str]]:
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
class Aircraft(Dataset):
    """FGVC-Aircraft.

    Loaders find an image as `<id>.jpg`, because the lists hold ids without a suffix.

    Attributes:
        kind: the kind of labels, one of `KINDS`.
    """

    kind: str

    name = "aircraft"
    title = "FGVC-Aircraft"
    how_to_get = "`fgfast datasets --download aircraft` fetches it (2.8 GB) from Oxford."
    expected = "data/images_variant_*.txt"
    usual_folders = ("fgvc-aircraft-2013b", "fgvc_aircraft", "aircraft")
    subject = ("airplane",)
    label_lists = tuple(KINDS)
    fixed_names = True

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether one of the variant lists exists."""
        return any((path / f"data/images_variant_{s}.txt").is_file() for s in ("trainval", "train", "test"))

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the ids of the variant lists."""
        lists = [_labelled(root / "data", "variant", split) for split in ("train", "val", "trainval", "test")]
        return len({ident for entries in lists for _, _, ident, _ in entries})

    @classmethod
    def _read(cls, root: DataPath, labels: str | None) -> Aircraft:
        data, kind = root / "data", labels or "variant"
        classes = tuple(text for _, text in read_lines(data / KINDS[kind]))
        boxes = cls._boxes(data / "images_box.txt")
        samples = []
        for split, (path, number, ident, label) in cls._entries(data, kind):
            if label not in classes:
                raise DatasetError(path, f"{kind} {label!r} is not in {KINDS[kind]}", number)
            key = safe_key(path, f"{ident}.jpg", number, "data/images")
            samples.append(Sample(key, root / key, label, split, boxes.get(ident, no_boxes()), BANNER_ROWS))
        return cls(root, classes, unique_samples(data / f"images_{kind}_*.txt", samples), kind)

    @staticmethod
    def _entries(data: AnyPath, kind: str) -> list[tuple[str, tuple[AnyPath, int, str, str]]]:
        """Return (split, entry) of all lists. trainval repeats train and val, and replaces them where absent."""
        train, val, both, test = (_labelled(data, kind, s) for s in ("train", "val", "trainval", "test"))
        if not (train or val or both or test):
            raise DatasetError(data / f"images_{kind}_train.txt", f"all lists of {kind} labels are empty or missing")
        known = {ident for _, _, ident, _ in (*train, *val)}
        rest = [entry for entry in both if entry[2] not in known]
        lists = (("train", train), ("val", val), ("train", rest), ("test", test))
        return [(split, entry) for split, entries in lists for entry in entries]

    @staticmethod
    def _boxes(path: AnyPath) -> dict[str, Float32]:
        """Map each id to its box, (1, 4) float32."""
        boxes = {}
        for number, text in read_lines(path) if path.is_file() else ():
            ident, *fields = fields_of(path, number, text, _BOX_FIELDS)
            boxes[ident] = boxes_from(path, [box_from_pixels(path, number, fields)], number)
        return boxes

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for torchvision's FGVCAircraft."""
        there = {sample.split for sample in self.samples if sample.key in placements}
        trained = there & {"train", "val"} and (self.root / f"data/images_{self.kind}_trainval.txt").is_file()
        split = "trainval" if trained else next((name for name in ("train", "val", "test") if name in there), "test")
        return torchvision_line("FGVCAircraft", twin.parent, split=split, annotation_level=self.kind)

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write all text files of data/, for all kinds of labels; class lists are copied whole."""
        same = self._unchanged(placements)
        placed = {Path(key).stem: placement for key, placement in placements.items()}
        written = []
        for source in sorted([*(self.root / "data").glob("*.txt"), *self.root.glob("README*")]):
            target = out / source.relative_to(self.root)
            if same or not source.name.startswith("images_"):
                written.append(copy_file(source, target))
            elif source.name == "images_box.txt":
                written.append(rewrite_lines(source, target, lambda text, n: self._box_line(text, n, placed)))
            else:
                written.append(rewrite_lines(source, target, keep_lines(placed)))
        return written

    def _box_line(self, text: str, number: int, placed: dict[str, ImagePlacement]) -> str | None:
        path = self.root / "data/images_box.txt"
        ident, *fields = fields_of(path, number, text, _BOX_FIELDS)
        placement = placed.get(ident)
        if placement is None or not placement.moved:
            return None if placement is None else text
        return " ".join((ident, *map(str, pixels_from_box(box_from_pixels(path, number, fields), placement))))
