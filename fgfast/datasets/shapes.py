"""Shapes without a box beside them: the bounds of polygons, quadrilaterals and labelme's rectangles are their boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgfast.datasets.annotation_files import Box
from fgfast.datasets.box_forms import OUTLINES, POINTS, QUADS, SHAPE_TYPES, fold, of_object
from fgfast.datasets.cell_values import decode, missing, numeric

_ENCODED = ("rle", "rles", "encodedpixels", "mask", "masks")
# Columns whose entries are one object each.
_SEVERAL = ("polygons", "quads", "contours")
# Types of labelme's shapes whose points are inside their bounds; those of a circle are its centre and its edge.
_BOUNDED = ("rectangle", "polygon", "quad", "quadrilateral")
_SHAPE_TEXT = re.compile(r"(?i)\s*(?:multi)?polygon\b|[^\d]*\d+(?:[^\d]+\d+){3}")


@dataclass
class Shapes:
    """The shapes in one dict.

    Attributes:
        boxes: their bounds, x0 y0 x1 y1 in pixels.
        columns: the columns that they are in.
        unread: columns with shapes that are not understood.
    """

    boxes: list[Box] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def shapes_in(fields: Mapping[str, Any]) -> Shapes:
    """Return the shapes in a row, or in one of its objects."""
    found, named = Shapes(), {column: of_object(column) for column in fields}
    types = [value for column, value in fields.items() if named[column] in SHAPE_TYPES]
    bounded = all(fold(str(t)) in _BOUNDED for value in types for t in (value if isinstance(value, list) else [value]))
    for column, name in named.items():
        if name not in (*OUTLINES, *QUADS, *POINTS, *_ENCODED) or missing(fields[column]):
            continue
        try:
            value, notation = decode(fields[column]) if isinstance(fields[column], str) else (fields[column], "json")
        except ValueError:
            value, notation = None, "json"
        if value in ([], {}) or isinstance(value, (int, float, bytes)) or _is_image(value):
            continue
        if notation == "plain" and not (name in ("rle", "encodedpixels") or _SHAPE_TEXT.match(str(value))):
            continue  # a word, or the name of a file
        found.columns.append(column)
        several = name in _SEVERAL or _parallel(fields, column, value)
        try:
            if name in _ENCODED or not bounded or (name in POINTS and not types):
                raise ValueError("its points are not those of a polygon")
            one_each = several and isinstance(value, list) and all(isinstance(item, (list, dict)) for item in value)
            items = value if one_each and not _is_point(value[0]) else [value]
            found.boxes += [box for box in map(bounds, items) if box is not None]
        except (ValueError, OverflowError):
            found.unread.append(column)
    return found


def _is_image(value: Any) -> bool:
    """Whether a value is an image, as `datasets` stores it in Parquet."""
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def _parallel(fields: Mapping[str, Any], column: str, value: Any) -> bool:
    """Whether another column has a list with one entry per entry of this one."""
    others = (other for name, other in fields.items() if name != column)
    return any(isinstance(other, list) and isinstance(value, list) and len(other) == len(value) for other in others)


def _is_point(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and len(value) == 2 and all(map(numeric, value)))


def bounds(value: Any) -> Box | None:
    """Return the bounds of a shape: x0 y0 x1 y1 of all of its points, None where it has none.

    Args:
        value: [x, y, x, y, ...], a list of [x, y] or of {"x": x, "y": y}, or nested lists of such.

    Raises:
        ValueError: it is something else, e.g. run lengths, or has no extent.
    """
    points = list(_points(value))
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if not points:
        return None
    if min(xs) >= max(xs) or min(ys) >= max(ys):
        raise ValueError("it has no extent")
    if max(*xs, *ys) <= 1.01:
        raise ValueError("its points are fractions of the image's size")
    return min(xs), min(ys), max(xs), max(ys)


def _points(value: Any) -> Iterator[tuple[float, float]]:
    if isinstance(value, dict) and {"x", "y"} <= value.keys():
        value = [value["x"], value["y"]]
    if not isinstance(value, list):
        raise ValueError("it is no list of points")
    if value and all(map(numeric, value)):
        if len(value) % 2:
            raise ValueError("it has an odd number of coordinates")
        numbers = [float(number) for number in value]
        yield from zip(numbers[::2], numbers[1::2], strict=True)
        return
    for item in value:
        yield from _points(item)
