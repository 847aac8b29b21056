"""Lists beside a folder of images: boxes.csv, and Hugging Face's metadata.csv, metadata.jsonl and metadata.parquet.

boxes.csv has the columns path,x0,y0,x1,y1; an image may have several lines. The metadata files name images in
`file_name`, relative to their own folder, and hold boxes in one of the forms of `row_boxes`.
https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import Box, check_names, lines_of, short, write_bytes
from fgfast.datasets.box_forms import fold, holds_box, of_box
from fgfast.datasets.box_orders import Orders
from fgfast.datasets.cell_values import from_json, json_text
from fgfast.datasets.csv_files import decode_text, line_ending, read_csv, write_csv
from fgfast.datasets.layout import ImagePlacement, ImagePlacements
from fgfast.datasets.parquet_tables import read_parquet, write_parquet
from fgfast.datasets.row_boxes import RowBoxes
from fgfast.datasets.table_names import ImageName, Keys, image_names, name_columns
from fgfast.datasets.unread_boxes import UnreadBoxes
from fgfast.errors import DatasetError
from fgfast.writing import Target

BOXES = "boxes.csv"
FILES = (BOXES, "metadata.csv", "metadata.jsonl", "metadata.parquet")
CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of a table: its image and that image's boxes.

    Attributes:
        path: the table's file.
        number: line number from 1; in Parquet the row's.
        images: the images that it names; the boxes are those of the first.
        fields: column -> value; values are strings in CSV.
        boxes: x0 y0 x1 y1 in pixels of the image.
        unmovable: columns that cannot follow a crop.
        respelled: whether an image's name is spelled otherwise than its file.
        size: the image's width and height as the line declares them.
    """

    path: AnyPath
    number: int
    images: tuple[ImageName, ...]
    fields: dict[str, Any]
    boxes: tuple[Box, ...]
    unmovable: frozenset[str]
    respelled: bool
    size: tuple[float, float] | None

    @property
    def key(self) -> str:
        """The key of the image."""
        return self.images[0].key

    def resized(self, placement: ImagePlacement) -> bool:
        """Whether the twin's image has another size than declared, as one has that its EXIF orientation turned."""
        return self.size is not None and self.size != (placement.size.width, placement.size.height)


def is_table(key: str) -> bool:
    """Whether a key is that of a list, in whatever case its name is."""
    return PurePosixPath(key).name.lower() in FILES


def read_table(root: AnyPath, table: str, keys: Keys | None = None) -> Iterator[TableRow]:
    """Yield the lines of a table.

    Args:
        root: the data set's folder.
        table: the table's path, relative to `root`.
        keys: the keys of the data set's files, among which names are looked up; None takes every name as it is.

    Raises:
        DatasetError: the table is malformed, or something in it looks like a box and is not understood.
        MissingExtraError: a package that the table needs is not installed.
    """
    path, below, keys = root / table, _below(table), keys or Keys(())
    orders, unread = Orders(path), UnreadBoxes(path)
    for number, fields in _rows(path):
        check_names(path, fields, number)
        try:
            columns = name_columns(tuple(fields))
        except ValueError as error:
            name = "path" if path.name.lower() == BOXES else "file_name"
            raise DatasetError(path, f"expected a column {name!r}: {error}", 1 if _is_csv(path) else number) from None
        images = tuple(image_names(path, number, fields, columns, below, keys))
        row = RowBoxes(path, number, {c: v for c, v in fields.items() if c not in columns})
        boxes = row.boxes()
        if len(images) > 1 and boxes and fold(columns[0]) != "filename":
            raise DatasetError(path, f"{len(images)} images and boxes, which do not tell whose they are", number)
        orders.add(number, row.coco, row.size, root / images[0].key)
        unread.add(number, bool(boxes), row.rest, row.shapes)
        respelled = any(image.respelled(below) for image in images)
        yield TableRow(path, number, images, fields, boxes, frozenset(row.unmovable), respelled, row.size)
    orders.check()
    unread.check()


def _is_csv(path: AnyPath) -> bool:
    return path.suffix.lower() == ".csv"


def _below(table: str) -> str:
    """Return the folder of a table inside the data set, "" for the root."""
    return str(PurePosixPath(table).parent).removeprefix(".")


def _rows(path: AnyPath) -> Iterator[tuple[int, dict[str, Any]]]:
    name = path.name.lower()
    if name.endswith(".jsonl"):
        yield from _json_lines(path)
    elif name.endswith(".parquet"):
        yield from read_parquet(path)
    else:
        checked = name != BOXES
        for number, fields in read_csv(path, ()):
            if not checked:
                _check_box_columns(path, fields)
                checked = True
            yield number, fields


def _check_box_columns(path: AnyPath, columns: Collection[str]) -> None:
    """Raise DatasetError where boxes.csv has no column of boxes."""
    names = {fold(column) for column in columns}
    missing = [name for name in CORNERS if name not in names]
    if not missing or holds_box(columns) or any(map(of_box, columns)):
        return
    raise DatasetError(path, f"expected a column {missing[0]!r}; found: {short(', '.join(columns) or 'none')}", 1)


def _json_lines(path: AnyPath) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in lines_of(decode_text(path)[0]):
        try:
            fields = from_json(text)
        except ValueError as error:
            raise DatasetError(path, f"not JSON: {error}", number) from None
        if not isinstance(fields, dict):
            raise DatasetError(path, f"expected a JSON object, got {short(text)}", number)
        yield number, fields


def _placed(row: TableRow, placements: ImagePlacements, below: str, left_out: Collection[str]) -> dict[str, Any]:
    """Return the line's fields for the twin; values that still hold keep their text."""
    placement = placements[row.key]
    fields = dict(row.fields)
    if placement.moved or left_out or row.resized(placement):
        named = {image.column for image in row.images}
        places = {column: value for column, value in fields.items() if column not in named}
        moved = RowBoxes(row.path, row.number, places, placement, left_out).fields
        fields = {c: moved.get(c, v) for c, v in fields.items() if c in named or c in moved}
    for image in row.images:
        new = placements[image.key].key
        if new == image.key and not image.respelled(below):
            continue
        text = str(PurePosixPath(new).relative_to(below))
        if image.index is None:
            fields[image.column] = text
        else:
            fields[image.column] = [*fields[image.column]]
            fields[image.column][image.index] = text
    return fields


def rewrite_table(
    root: AnyPath, table: str, target: Target, placements: ImagePlacements, keys: Keys | None = None
) -> Target:
    """Write a table with the lines whose images are all present, under their new names, moved with the crop.

    Where an image was cropped, columns that cannot follow are left out of the whole table.
    """
    below, source = _below(table), root / table
    rows = [row for row in read_table(root, table, keys) if all(image.key in placements for image in row.images)]
    moves = any(placements[row.key].moved for row in rows)
    left_out = frozenset[str]().union(*(row.unmovable for row in rows)) if moves else frozenset[str]()
    new = [_placed(row, placements, below, left_out) for row in rows]
    if _is_csv(source):
        return write_csv(source, target, new, left_out)
    if source.suffix.lower() == ".parquet":
        return write_parquet(source, target, new, left_out)
    text, encoding = decode_text(source)
    ending = line_ending(text)
    return write_bytes(target, "".join(json_text(fields) + ending for fields in new).encode(encoding))
