"""Polygons and keypoints beside boxes, in the structures of COCO, moved with a crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fgfast.datasets.annotation_files import move_point
from fgfast.datasets.cell_values import is_number
from fgfast.datasets.layout import ImagePlacement

Point = tuple[float, float]

# COCO's third number of a keypoint: 0 not labelled, 1 hidden, 2 visible.
_VISIBILITIES = (0, 1, 2)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def move_outline(value: Any, placement: ImagePlacement | None, keep_empty: bool = False) -> tuple[Any, float, float]:
    """Move polygons with a crop, and cut them off at what the twin's image shows of the stored one.

    Args:
        value: a polygon, as [x, y, x, y, ...] or as a list of [x, y], or nested lists of such.
        placement: the twin's image; None only checks the structure.
        keep_empty: whether a polygon outside remains in its list, empty, because other lists run in parallel.

    Returns:
        The same structure, and the areas in square pixels before and after, overlaps counted twice.

    Raises:
        ValueError: the structure is another one, e.g. a run-length string.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected a polygon, got {str(value)[:40]!r}")
    if _numbers(value):
        if len(value) < 6 or len(value) % 2:
            raise ValueError(f"expected x, y, x, y, ... of three points or more, got {len(value)} numbers")
        points = list(zip(value[::2], value[1::2], strict=True))
        new = _clipped(points, placement)
        return [n for point in new for n in point], _area(points), _area(new)
    if len(value) >= 3 and all(_numbers(item) and len(item) == 2 for item in value):
        points = [(x, y) for x, y in value]
        new = _clipped(points, placement)
        return [list(point) for point in new], _area(points), _area(new)
    moved = [move_outline(item, placement) for item in value]
    kept = [new for new, _, _ in moved if new or keep_empty]
    return kept, sum(old for _, old, _ in moved), sum(after for _, _, after in moved)


def _clipped(points: Sequence[Point], placement: ImagePlacement | None) -> list[Point]:
    """Move a polygon, and cut it off at each side of the shown part in turn (Sutherland and Hodgman, 1974)."""
    if placement is None:
        return list(points)
    moved = [move_point((x, y), placement)[:2] for x, y in points]
    left, top, right, bottom = placement.shown
    for axis, limit, sign in ((0, left, 1), (0, right, -1), (1, top, 1), (1, bottom, -1)):
        cut: list[Point] = []
        for a, b in zip([moved[-1:][0], *moved[:-1]] if moved else [], moved, strict=True):
            inside_a, inside_b = sign * (a[axis] - limit) >= 0, sign * (b[axis] - limit) >= 0
            if inside_a != inside_b:
                share = (limit - a[axis]) / (b[axis] - a[axis])
                cut.append((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
            if inside_b:
                cut.append(b)
        moved = cut
    new = [(round(x, 4), round(y, 4)) for x, y in moved]
    return new if len(new) >= 3 and _area(new) > 0 else []


def _area(points: Sequence[Point]) -> float:
    """Return a polygon's area in square pixels (the shoelace formula)."""
    following = [*points[1:], *points[:1]]
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, following, strict=True))) / 2


def move_keypoints(value: Any, placement: ImagePlacement | None) -> Any:
    """Move keypoints with a crop; one that the twin's image does not show is 0, 0, 0, or keeps its place outside.

    Args:
        value: [x, y, v, x, y, v, ...] or [x, y, x, y, ...], a list of [x, y, v] or [x, y], or nested lists of such.
        placement: the twin's image; None only checks the structure.

    Raises:
        ValueError: the structure is another one.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected keypoints, got {str(value)[:40]!r}")
    if not _numbers(value):
        return [move_keypoints(item, placement) for item in value]
    width = 3 if len(value) % 3 == 0 and all(v in _VISIBILITIES for v in value[2::3]) else 2
    if len(value) % width:
        raise ValueError(f"expected x, y, v, ... or x, y, ..., got {len(value)} numbers")
    points = [value[n : n + width] for n in range(0, len(value), width)]
    return [n for point in points for n in _moved_point(point, placement)]


def _moved_point(point: Sequence[float], placement: ImagePlacement | None) -> list[float]:
    x, y, *visible = point
    if placement is None or visible == [0]:
        return list(point)
    x, y, shown = move_point((x, y), placement)
    return [0, 0, 0] if visible and not shown else [round(x, 4), round(y, 4), *visible]
