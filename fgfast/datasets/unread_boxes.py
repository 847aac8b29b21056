"""What a table without boxes may have meant as boxes: it is refused, so that no box is passed over in silence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from fgfast.data_paths import AnyPath
from fgfast.datasets.cell_values import decode, is_number, numeric
from fgfast.errors import DatasetError

# Words in the names of columns that hold something else.
_OTHER_THINGS = frozenset(
    (
        *(
            "id",
            "ids",
            "index",
            "idx",
            "no",
            "num",
            "n",
            "count",
            "counts",
            "number",
            "rank",
            "version",
            "seed",
            "hash",
        ),
        *("label", "labels", "class", "classes", "category", "categories", "split", "fold", "attribute", "attributes"),
        *("score", "scores", "conf", "confidence", "prob", "probs", "probability", "logits", "rating", "quality"),
        *("embedding", "embeddings", "feature", "features", "vector", "tokens", "keypoint", "keypoints", "landmarks"),
        *("date", "time", "timestamp", "year", "month", "day", "hour", "minute", "second", "age", "price", "weight"),
        *("lat", "lon", "lng", "latitude", "longitude", "altitude", "temperature", "iso", "exposure", "aperture"),
        *("area", "areas", "size", "shape", "ratio", "resolution", "color", "colour", "rgb", "rgba", "mean", "std"),
    )
)
# Words in the names of columns that hold a place or an extent, in some languages.
_PLACE = re.compile(
    r"[xywh]|[xy](?:min|max|lo|hi|low|high|start|end|left|right|top|bottom|center|centre|[lrtbc])|col|row|left|top|"
    r"right|bottom|[tb][lr]|[lr][tb]|links|oben|rechts|unten|breite|höhe|hoehe|gauche|haut|droite|bas|largeur|hauteur|"
    r"izquierda|arriba|derecha|abajo|ancho|alto"
)
_SIDES = (["width"], ["height"])
# How deeply nested boxes are looked for.
_DEPTH = 4
_NUMBER = r"[-+]?\d+(?:\.\d*)?"
_FOUR_NUMBERS = re.compile(rf"\s*{_NUMBER}(?:[\s,;]+{_NUMBER}){{3}}\s*")
_FOUR_IN_TEXT = re.compile(r"(?<![\d.])\d+(?:\.\d*)?(?:[^\d.]+\d+(?:\.\d*)?){3}")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


class UnreadBoxes:
    """Whether a table in which no box was found has four numbers that could be one in each of its rows."""

    def __init__(self, path: AnyPath) -> None:
        """Begin with the table of this path."""
        self._path, self._found = path, False
        self._texts: set[str] = set()
        # Columns -> line, and what stands there, of the first row in which they could be a box; None once they cannot.
        self._maybe: dict[tuple[str, ...], tuple[int, str] | None] = {}
        self._shape: tuple[int, str] | None = None

    def add(self, number: int, found: bool, rest: Iterable[Mapping[str, Any]], shapes: Iterable[str]) -> None:
        """Add a row.

        Args:
            number: its line.
            found: whether it has boxes.
            rest: what else the row, and each object in it, holds: column -> value.
            shapes: columns with shapes that are not understood.
        """
        self._found = self._found or found
        if self._found:
            return
        for column in shapes:
            self._shape = self._shape or (number, column)
        for fields in rest:
            for columns, values in self._candidates(fields):
                here = (number, ", ".join(f"{value:g}" for value in values))
                known = self._maybe.setdefault(columns, here)
                self._maybe[columns] = known if _may_be_box(values) else None

    def check(self) -> None:
        """Raise DatasetError where the table has no box, but something that could be one."""
        if self._found:
            return
        if self._shape:
            number, column = self._shape
            raise DatasetError(
                self._path,
                f"{column} holds a shape that is not understood, and no box is beside it; add its box as bbox_xyxy",
                number,
            )
        for columns, here in self._maybe.items():
            if here is not None and not self._texts.intersection(columns):
                raise DatasetError(
                    self._path,
                    f"{', '.join(columns)} could be a box and {'are' if len(columns) > 1 else 'is'} not understood "
                    f"({here[1]}); name the columns x0,y0,x1,y1 or x,y,w,h, or one of four numbers bbox_xyxy or "
                    "bbox_xywh; remove them where they are no box",
                    here[0],
                )

    def _candidates(self, fields: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        """Yield the columns of one dict, and of those in it, that could be a box, and their four numbers."""
        numbers: dict[str, float] = {}
        for column, value in fields.items():
            if _is_other_thing(column):
                continue
            value, dicts = _decoded(value), _dicts_in(value)
            four = _four(value)
            if dicts and depth < _DEPTH:
                for inside in dicts:
                    yield from self._candidates({f"{column}.{k}": v for k, v in inside.items()}, depth + 1)
            elif four is not None:
                yield (column,), four
            elif (number := _number(value, "." in column)) is not None:
                numbers[column] = number
            else:
                self._texts.add(column)
        sides = {column: number for column, number in numbers.items() if _words(column)[-1:] in _SIDES}
        alone = {column: number for column, number in numbers.items() if column not in sides}
        places = {column: number for column, number in alone.items() if any(map(_PLACE.fullmatch, _words(column)))}
        for group in (places, {**places, **sides} if len(places) == len(sides) == 2 else {}, alone):
            if len(group) == 4:
                yield tuple(group), list(group.values())
                return


@lru_cache(4096)
def _words(column: str) -> list[str]:
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", column.rpartition(".")[2])
    return [word.lower() for word in re.findall(r"[^\W\d_]+", apart)]


@lru_cache(4096)
def _is_other_thing(column: str) -> bool:
    return any(word in _OTHER_THINGS or word.endswith(("id", "ids", "label", "class")) for word in _words(column))


def _decoded(value: Any) -> Any:
    """Return a value, or the value that a text holds."""
    if not isinstance(value, str):
        return value
    if _FOUR_NUMBERS.fullmatch(value):
        return re.findall(_NUMBER, value)
    try:
        return decode(value)[0]
    except ValueError:
        return value


def _dicts_in(value: Any) -> list[dict[str, Any]]:
    """Return a dict, or those of a list of dicts."""
    value = _decoded(value)
    dicts = value if isinstance(value, list) else [value]
    return dicts if all(isinstance(item, dict) for item in dicts) else []


def _number(value: Any, of_objects: bool) -> float | None:
    """Return a number, that of a text, or the first of a list that has one per object."""
    if of_objects and isinstance(value, list) and value and all(map(is_number, value)):
        value = value[0]
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return float(value.replace(",", "."))
    return float(value) if numeric(value) else None


def _four(value: Any, depth: int = 0) -> list[float] | None:
    """Return the four numbers of a list, of two pairs, or of the first in a list of such."""
    if not isinstance(value, list) or depth > _DEPTH:
        return None
    if len(value) == 2 and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        value = [*value[0], *value[1]]
    if len(value) == 4 and all(map(numeric, value)):
        return [float(number) for number in value]
    lists = [_four(item, depth + 1) for item in value]
    return lists[0] if lists and None not in lists else None


def _may_be_box(values: list[float]) -> bool:
    """Whether four numbers may be two corners, or a corner and a size; flags of 0 and 1 are none."""
    a, b, c, d = values
    if all(value in (0, 1) for value in values):
        return False
    return (c > a and d > b) or (min(a, b) >= 0 and c > 0 and d > 0)


def holds_four(value: Any) -> bool:
    """Whether a value of any structure holds four numbers together."""
    if isinstance(value, dict):
        return any(map(holds_four, value.values()))
    if isinstance(value, list):
        return sum(map(numeric, value)) == len(value) == 4 or any(map(holds_four, value))
    return isinstance(value, str) and _FOUR_IN_TEXT.search(value) is not None
