"""What stands beside the boxes of a row and describes places, too: areas, outlines, keypoints, the image's size.

It moves with a crop. Where it cannot, because its structure is not known, its column is named: a twin must not keep it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgfast.datasets.annotation_files import Box
from fgfast.datasets.box_forms import OUTLINES, POINTS, QUADS, fold, of_object
from fgfast.datasets.cell_values import decode, is_number, like, missing, numeric, through
from fgfast.datasets.layout import ImagePlacement
from fgfast.datasets.outlines import move_keypoints, move_outline

_AREAS = ("area", "areas", "bboxarea", "bboxareas", "boxarea", "boxareas")
_KEYPOINTS = ("keypoint", "keypoints", "landmark", "landmarks")
# Columns that hold places, too, where they hold lists; they are not moved.
_OTHERS = ("mask", "masks", "rle", "rles", "centroid", "center", "centre", "roi", *POINTS, *QUADS, "region")
_RUNS = ("rle", "rles", "encodedpixels")
_WIDTHS = ("width", "imagewidth", "imgwidth")
_HEIGHTS = ("height", "imageheight", "imgheight")
_SIZES = ("size", "imagesize", "imgsize", "resolution", "dimensions", "shape", "imageshape")
# An area may differ from that of its box by a pixel's rounding; that of a mask differs more from its polygon's.
_BOX_NOISE, _OUTLINE_NOISE = 0.01, 0.1


@dataclass
class Objects:
    """The objects of one dict.

    Attributes:
        old, new: their boxes before and after the move.
        parallel: whether the dict holds lists with one entry per object.
        outlines: areas of their outlines before and after the move, where there are outlines.
    """

    old: list[Box] = field(default_factory=list)
    new: list[Box] = field(default_factory=list)
    parallel: bool = False
    outlines: list[tuple[float, float]] = field(default_factory=list)


def move_beside(
    fields: Mapping[str, Any],
    objects: Objects,
    placement: ImagePlacement | None,
    used: Collection[str],
    whole_row: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Move what stands beside the boxes of a dict.

    Args:
        fields: the dict.
        objects: its boxes.
        placement: the twin's image; None only checks.
        used: columns that hold the boxes.
        whole_row: whether the dict is the row itself, which describes the image.

    Returns:
        The columns with other values, and the columns that cannot be moved.
    """
    moved: dict[str, Any] = {}
    unmovable: list[str] = []
    # Areas come last: they are those of the outlines, where there are outlines.
    for column in sorted(fields, key=lambda column: of_object(column) in _AREAS):
        value = fields[column]
        if column in used or missing(value):
            continue
        try:
            new = _moved(of_object(column), value, objects, placement, whole_row)
        except (ValueError, OverflowError):
            unmovable.append(column)
            continue
        if new is not value:
            moved[column] = new
    return moved, unmovable


def _moved(name: str, value: Any, objects: Objects, placement: ImagePlacement | None, whole_row: bool) -> Any:
    """Return the value of one column after the move; raise ValueError where it cannot be moved."""
    crop = placement if placement is not None and placement.moved else None
    if name in OUTLINES:
        return through(value, lambda v: _outlines(v, objects, crop))
    if name in _KEYPOINTS:
        return through(value, lambda v: move_keypoints(v, crop))
    if name in _AREAS and (objects.old or objects.outlines):
        return through(value, lambda v: _areas(v, objects))
    if name in (*_RUNS, "numkeypoints") or (name in _OTHERS and _is_structure(value)):
        raise ValueError(f"{name} cannot be moved")
    if not whole_row:
        if fold(name) in (*_WIDTHS, *_HEIGHTS):
            raise ValueError(f"{name} may be that of the image or of an object")
        return value
    return value if placement is None else moved_size(name, value, placement)


def _is_structure(value: Any) -> bool:
    return isinstance(decode(value)[0] if isinstance(value, str) else value, (list, dict))


def _outlines(value: Any, objects: Objects, placement: ImagePlacement | None) -> Any:
    """Move the outlines of one object, or of several in parallel; add their areas to the objects."""
    if objects.parallel:
        if not isinstance(value, list) or len(value) != len(objects.old):
            raise ValueError("expected one outline per object")
        moved = [move_outline(item, placement) if item else (item, 0.0, 0.0) for item in value]
        objects.outlines += [(before, after) for _, before, after in moved]
        return [new for new, _, _ in moved]
    new, before, after = move_outline(value, placement)
    objects.outlines.append((before, after))
    return new


def _areas(value: Any, objects: Objects) -> Any:
    """Move the area of one object, or of several in parallel."""
    areas = value if isinstance(value, list) else [value]
    boxes = [(_area(old), _area(new)) for old, new in zip(objects.old, objects.new, strict=True)]
    outlines = objects.outlines or boxes
    boxes = boxes or outlines
    if not len(areas) == len(boxes) == len(outlines) or not all(map(numeric, areas)):
        raise ValueError("expected one area per object")
    new = [_moved_area(*each) for each in zip(areas, boxes, outlines, strict=True)]
    return new if isinstance(value, list) else new[0]


def _moved_area(area: Any, box: tuple[float, float], outline: tuple[float, float]) -> Any:
    """Return an area after the move, that of its box or of its outline; each is (before, after)."""
    for (before, after), noise in ((box, _BOX_NOISE), (outline, _OUTLINE_NOISE)):
        if abs(float(area) - before) <= max(1.0, noise * before):
            return area if after == before else like(area, float(area) * after / before)
    raise ValueError(f"an area of {area} is neither that of the box nor that of the outline")


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def declared_size(fields: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the image's width and height as a row declares them, None where it does not."""
    sides = []
    for names in (_WIDTHS, _HEIGHTS):
        values = [value for column, value in fields.items() if fold(column) in names and numeric(value)]
        sides.append(float(values[0]) if values else 0.0)
    return (sides[0], sides[1]) if min(sides) > 0 else None


def moved_size(name: str, value: Any, placement: ImagePlacement) -> Any:
    """Return a column of the image itself in the twin: its width, height, size, area or aspect ratio."""
    (height, width), (old_height, old_width) = placement.size, placement.stored_size
    if name in _WIDTHS and numeric(value):
        return like(value, width)
    if name in _HEIGHTS and numeric(value):
        return like(value, height)
    if name in ("w", "h") and numeric(value) and float(value) == (old_width if name == "w" else old_height):
        return like(value, width if name == "w" else height)
    if name == "area" and numeric(value) and float(value) == old_width * old_height:
        return like(value, width * height)
    if name == "aspectratio" and numeric(value) and abs(float(value) - old_width / old_height) < 0.01:
        return like(value, width / height)
    if name in _SIZES:
        return _size(value, placement)
    return value


def _size(value: Any, placement: ImagePlacement) -> Any:
    """Return a pair of width and height, in the order in which it gives those of the stored image."""
    (height, width), (old_height, old_width) = placement.size, placement.stored_size
    if isinstance(value, dict):
        return {key: moved_size(fold(str(key)), part, placement) for key, part in value.items()}
    if isinstance(value, str) and (pair := re.fullmatch(r"\s*(\d+)(\s*[x×*,]\s*)(\d+)\s*", value)):
        new = _size([int(pair[1]), int(pair[3])], placement)
        return f"{new[0]}{pair[2]}{new[1]}"
    if isinstance(value, str):
        return value if decode(value)[1] == "plain" else through(value, lambda v: _size(v, placement))
    if isinstance(value, list) and len(value) in (2, 3) and all(map(is_number, value)):
        if value[:2] == [old_width, old_height]:
            return [width, height, *value[2:]]
        if value[:2] == [old_height, old_width]:
            return [height, width, *value[2:]]
    return value
