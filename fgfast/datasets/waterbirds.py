"""Waterbirds: CUB's birds pasted onto land and water, listed in one metadata.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fgfast.datasets import cub
from fgfast.datasets.annotation_files import (
    copy_file,
    make_folders,
    read_bytes,
    read_lines,
    safe_key,
    unchanged,
    unique_samples,
    write_text,
)
from fgfast.datasets.layout import ImagePlacements, refuse_labels, root_of
from fgfast.errors import DatasetError
from fgfast.records import Sample, no_boxes

# Names of the numbers in columns y and split; kohpangwei/group_DRO, data/cub_dataset.py.
CLASSES = ("landbird", "waterbird")
SPLITS = ("train", "val", "test")


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the column names, and (line number, row) of each row."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"not UTF-8 text: {error.reason} at byte {error.start}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or ())
    for column in ("img_filename", "y", "split"):
        if column not in columns:
            raise DatasetError(path, f"expected a column {column!r}; found: {', '.join(columns) or 'none'}", 1)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise DatasetError(path, f"expected {len(columns)} columns", reader.line_num)
        rows.append((reader.line_num, row))
    return columns, rows


def _named(path: Path, number: int, column: str, value: str, names: tuple[str, ...]) -> str:
    allowed = [str(index) for index in range(len(names))]
    if value not in allowed:
        raise DatasetError(path, f"{column} must be one of {', '.join(allowed)}, not {value!r}", number)
    return names[int(value)]


@dataclass(frozen=True, eq=False)
class Waterbirds:
    """Waterbirds; fgfast.datasets.layout.Layout describes the fields.

    Waterbirds has no boxes of its own. Where CUB_200_2011 lies beside it, CUB's boxes are used: the birds keep their
    place and the images their size.
    """

    root: Path
    samples: tuple[Sample, ...]

    name: ClassVar[str] = "waterbirds"
    folder: ClassVar[str] = "waterbird_complete95_forest2water2"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    title: ClassVar[str] = "Waterbirds"
    homepage: ClassVar[str] = "https://github.com/kohpangwei/group_DRO"
    how_to_get: ClassVar[str] = (
        "Get waterbird_complete95_forest2water2.tar.gz as https://github.com/kohpangwei/group_DRO describes "
        "and unpack it; CUB_200_2011 beside it provides the birds' boxes."
    )
    expected: ClassVar[str] = "metadata.csv with a column img_filename"
    usual_folders: ClassVar[tuple[str, ...]] = ("waterbird_complete95_forest2water2", "waterbirds")
    subject: ClassVar[tuple[str, ...]] = ("bird",)
    turn_exif: ClassVar[bool] = False

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the first line of metadata.csv names img_filename."""
        try:
            with (path / "metadata.csv").open("rb") as file:
                return b"img_filename" in file.readline(1000)
        except OSError:
            return False

    @classmethod
    def count(cls, root: Path) -> int | None:
        """Count the lines of metadata.csv after the first."""
        return len(read_lines(root / "metadata.csv")) - 1

    @classmethod
    def open(cls, root: Path, labels: str | None = None) -> Waterbirds:
        """Read metadata.csv, and CUB's boxes where CUB_200_2011 lies beside the data set."""
        refuse_labels(cls, labels)
        root = root_of(cls, root)
        beside = root.absolute().parent / cub.Cub.folder
        has_boxes = cub.Cub.recognises(beside) and (beside / "bounding_boxes.txt").is_file()
        boxes = cub.boxes_by_name(beside) if has_boxes else {}
        path, samples = root / "metadata.csv", []
        for number, row in _rows(path)[1]:
            key = safe_key(path, row["img_filename"], number)
            label = _named(path, number, "y", row["y"], CLASSES)
            split = _named(path, number, "split", row["split"], SPLITS)
            samples.append(Sample(key, root / key, label, split, boxes.get(key, no_boxes())))
        return cls(root, unique_samples(path, samples))

    def write_annotations(
        self, out: Path, placements: ImagePlacements, selected: Collection[str] | None = None
    ) -> list[Path]:
        """Write metadata.csv with all its columns; a crop moves none of its values."""
        make_folders(out, self.samples, selected)
        source, target = self.root / "metadata.csv", out / "metadata.csv"
        others = [copy_file(p, out / p.name) for p in sorted(self.root.glob("[Rr][Ee][Aa][Dd]*")) if p.is_file()]
        if unchanged(self.samples, placements):
            return [copy_file(source, target), *others]
        columns, rows = _rows(source)
        text = io.StringIO(newline="")
        ending = "\r\n" if b"\r\n" in read_bytes(source) else "\n"
        writer = csv.DictWriter(text, columns, lineterminator=ending)
        writer.writeheader()
        for number, row in rows:
            placement = placements.get(safe_key(source, row["img_filename"], number))
            if placement is not None:
                writer.writerow({**row, "img_filename": placement.key})
        return [write_text(target, text.getvalue()), *others]
