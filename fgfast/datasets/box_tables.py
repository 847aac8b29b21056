"""Lists of boxes beside a folder of images: boxes.csv, and Hugging Face's metadata.csv and metadata.jsonl.

boxes.csv has the columns path,x0,y0,x1,y1; an image may have several lines. The metadata files name images in
`file_name`, relative to their own folder, and may hold boxes as columns x0,y0,x1,y1, or as `bbox` or `objects.bbox`:
[x, y, width, height] or a list of such, as in COCO. https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fgfast.datasets.annotation_files import (
    Box,
    line_ending,
    move_box,
    number_text,
    numbers_of,
    read_csv,
    read_lines,
    safe_key,
    write_bytes,
    write_csv,
)
from fgfast.datasets.layout import ImagePlacement, ImagePlacements
from fgfast.errors import DatasetError

FILES = ("boxes.csv", "metadata.csv", "metadata.jsonl")
CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class TableRow:
    """One line of a table: its image and that image's boxes.

    Attributes:
        path: the table's file.
        number: line number from 1.
        key: key of the image.
        fields: column -> value; values are strings in CSV.
        boxes: x0 y0 x1 y1 in pixels of the image.
    """

    path: Path
    number: int
    key: str
    fields: dict[str, Any]
    boxes: tuple[Box, ...]


def read_table(root: Path, table: str) -> list[TableRow]:
    """Read the lines of a table; `table` is a path relative to `root`."""
    path, below = root / table, str(PurePosixPath(table).parent)
    column = _name_column(table)
    needed = ("path", *CORNERS) if column == "path" else (column,)
    rows = []
    for number, fields in _json_lines(path) if table.endswith(".jsonl") else read_csv(path, needed):
        name = fields.get(column)
        if not isinstance(name, str):
            raise DatasetError(path, f"expected a path in {column!r}, got {name!r}", number)
        key = safe_key(path, name, number, "" if below == "." else below)
        rows.append(TableRow(path, number, key, fields, tuple(_boxes(path, number, fields))))
    return rows


def _name_column(table: str) -> str:
    return "path" if table == "boxes.csv" else "file_name"


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in read_lines(path):
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise DatasetError(path, f"not JSON: {error}", number) from None
        if not isinstance(fields, dict):
            raise DatasetError(path, f"expected a JSON object, got {text[:80]!r}", number)
        yield number, fields


def _decoded(value: Any) -> Any:
    """Decode a CSV cell that may hold JSON; other values are returned unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except ValueError:
        return value


def _sized(value: Any) -> tuple[list[Any], bool]:
    """Return a `bbox` as a list of [x, y, width, height], and whether it was a single box."""
    value = _decoded(value)
    single = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    return ([value] if single else value or []), single


def _bbox_of(fields: dict[str, Any]) -> Any:
    objects = _decoded(fields.get("objects"))
    return objects.get("bbox") if isinstance(objects, dict) else fields.get("bbox")


def _boxes(path: Path, number: int, fields: dict[str, Any]) -> Iterator[Box]:
    if all(corner in fields for corner in CORNERS):
        values = [fields[corner] for corner in CORNERS]
        if any(value not in ("", None) for value in values):
            x0, y0, x1, y1 = numbers_of(path, number, values)
            yield x0, y0, x1, y1
        return
    found = _sized(_bbox_of(fields))[0]
    for box in found if isinstance(found, list) else [found]:
        if not isinstance(box, list) or len(box) != 4:
            raise DatasetError(path, f"expected a bbox [x, y, width, height], got {box!r}", number)
        x, y, width, height = numbers_of(path, number, box)
        yield x, y, x + width, y + height


def _moved_bbox(path: Path, number: int, value: Any, placement: ImagePlacement) -> Any:
    """Move a `bbox` with the crop, keeping its structure. Boxes outside are kept, because lists run in parallel."""
    boxes, single = _sized(value)
    moved = []
    for box in _boxes(path, number, {"bbox": boxes}):
        x0, y0, x1, y1 = move_box(box, placement)
        moved.append([round(v, 4) for v in (x0, y0, x1 - x0, y1 - y0)])
    new = moved[0] if single else moved
    return json.dumps(new) if isinstance(value, str) else new


def _placed(row: TableRow, placement: ImagePlacement, column: str, below: str) -> dict[str, Any]:
    """Return the line's fields for the twin; values that still hold keep their text."""
    fields = dict(row.fields)
    if placement.key != row.key:
        fields[column] = str(PurePosixPath(placement.key).relative_to(below))
    if not placement.moved:
        return fields
    if all(corner in fields for corner in CORNERS):
        for box in row.boxes:
            text = not isinstance(fields["x0"], (int, float))
            for corner, value in zip(CORNERS, move_box(box, placement), strict=True):
                fields[corner] = number_text(value) if text else round(value, 4)
        return fields
    objects = _decoded(fields.get("objects"))
    if isinstance(objects, dict) and "bbox" in objects:
        objects = {**objects, "bbox": _moved_bbox(row.path, row.number, objects["bbox"], placement)}
        fields["objects"] = json.dumps(objects) if isinstance(fields["objects"], str) else objects
    elif fields.get("bbox"):
        fields["bbox"] = _moved_bbox(row.path, row.number, fields["bbox"], placement)
    return fields


def rewrite_table(root: Path, table: str, target: Path, placements: ImagePlacements) -> Path:
    """Write a table with the lines whose images are present, under their new names and with moved boxes."""
    column, below = _name_column(table), str(PurePosixPath(table).parent)
    rows = [
        _placed(row, placements[row.key], column, below) for row in read_table(root, table) if row.key in placements
    ]
    if table.endswith(".csv"):
        return write_csv(root / table, target, rows)
    ending = line_ending(root / table)
    return write_bytes(target, "".join(json.dumps(row, ensure_ascii=False) + ending for row in rows).encode())
