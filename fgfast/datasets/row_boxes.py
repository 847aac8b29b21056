"""The boxes of one row of a table, and what stands beside them: one walk reads a row, or moves it with a crop."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from fgfast.data_paths import AnyPath
from fgfast.datasets import box_forms
from fgfast.datasets.annotation_files import Box, check_names, move_box, number_text, numbers_of
from fgfast.datasets.annotation_files import short as _short
from fgfast.datasets.beside_boxes import Objects, declared_size, move_beside
from fgfast.datasets.box_forms import Order, fold
from fgfast.datasets.cell_values import decode, encode, like, missing, numeric, through
from fgfast.datasets.layout import ImagePlacement
from fgfast.datasets.shapes import shapes_in
from fgfast.datasets.unread_boxes import holds_four
from fgfast.errors import DatasetError

FORMS_READ = (
    "boxes are read from the columns x0,y0,x1,y1, xmin,ymin,xmax,ymax or x,y,w,h, from bbox, bboxes and objects.bbox "
    "as [x, y, width, height] or a list of these, and from bbox_xyxy, bbox_xywh, bbox_cxcywh"
)
# Columns that hold objects, whatever is in them; other columns do where a box is in them.
_OBJECTS = ("objects", "annotations", "instances", "detections", "shapes")
# Numbers up to this are fractions of the image's size, with some rounding; no box is that small.
_FRACTION = 1.01


class RowBoxes:
    """One row.

    Attributes:
        fields: the row, moved where a placement was given; values that still hold keep their text.
        unmovable: columns that describe places and cannot be moved, e.g. "objects.mask".
        coco: the numbers of the boxes whose order only COCO's name tells.
        size: the image's width and height as the row declares them.
        rest: what else the row, and each object in it, holds: column -> value.
        shapes: columns with shapes that are not understood, and have no box beside them.
    """

    def __init__(
        self,
        path: AnyPath,
        number: int,
        fields: Mapping[str, Any],
        placement: ImagePlacement | None = None,
        left_out: Collection[str] = frozenset(),
    ) -> None:
        """Read a row, or move it.

        Args:
            path, number: the table's file, and the row's line, for messages.
            fields: column -> value; values are strings in CSV.
            placement: the twin's image; None only reads.
            left_out: columns that `fields` shall not have.

        Raises:
            DatasetError: something looks like a box and is not understood.
        """
        self._path, self._number, self._left_out = path, number, left_out
        self._placement = placement
        self._crop = placement if placement is not None and placement.moved else None
        self._in_text = False
        self._sources: dict[str, list[Box]] = {}
        self.unmovable: set[str] = set()
        self.coco: list[Box] = []
        self.size: tuple[float, float] | None = None
        self.rest: list[dict[str, Any]] = []
        self.shapes: list[str] = []
        self._outlined: dict[str, list[Box]] = {}
        try:
            self.fields = self._dict(fields, "", None)
        except RecursionError:
            self._fail("it is nested too deeply")

    def boxes(self) -> tuple[Box, ...]:
        """Return the boxes, x0 y0 x1 y1 in pixels of the stored image, each once.

        Raises:
            DatasetError: two columns hold different boxes.
        """
        found = {where: list(boxes) for where, boxes in self._sources.items() if boxes}
        for above, outlined in self._outlined.items():
            beside = next((where for where in found if above and where.startswith(above)), None)
            if outlined and (beside or not self._sources):
                found.setdefault(beside or above, []).extend(outlined)
        longest = max(found, key=lambda where: len(found[where]), default="")
        for where, boxes in found.items() if len(found) > 1 else ():
            if not box_forms.all_in(boxes, found[longest]):
                self._fail(f"{where} and {longest} hold different boxes; keep one of the columns")
        return tuple(dict.fromkeys(found.get(longest, ())))

    def _fail(self, problem: str) -> NoReturn:
        raise DatasetError(self._path, problem, self._number)

    def _dict(self, fields: Mapping[str, Any], where: str, order: Order | None) -> dict[str, Any]:
        """Walk over a dict: the row, an object, or lists with one entry per object."""
        out, objects, used, shaped = dict(fields), Objects(), set[str](), set[str]()
        check_names(self._path, fields, self._number)
        try:
            known = box_forms.columns_of(tuple(fields))
        except ValueError as error:
            self._fail(str(error))
        order = self._order(fields, known.orders) or order
        for columns, form in known.four:
            values = [fields[column] for column in columns]
            out.update(zip(columns, self._columns(values, form, f"{where}{','.join(columns)}", objects), strict=True))
            used.update(columns)
        for column, value in fields.items():
            walk = None if column in used or missing(value) else self._walk(column, value, where, order, objects)
            if walk is not None:
                out[column] = self._through(value, f"{where}{column}", walk)
                used.add(column)
        for column in known.suspects:
            value, maybe = fields[column], fold(column) in box_forms.MAYBE_BOXES
            if column not in used and not missing(value) and (not maybe or holds_four(value)):
                self._fail(f"{where}{column} looks like a box and is not understood, {_short(value)}; {FORMS_READ}")
        if not objects.old:
            shapes = shapes_in(fields)
            self._outlined.setdefault(where, []).extend(shapes.boxes)
            self.shapes += [f"{where}{column}" for column in shapes.unread]
            shaped = {*shapes.columns}
        self.rest.append({f"{where}{c}": v for c, v in fields.items() if c not in used | shaped and not missing(v)})
        if not where:
            self.size = declared_size({column: value for column, value in fields.items() if column not in used})
        moved, unmovable = move_beside(fields, objects, self._placement, used, not where)
        self.unmovable.update(f"{where}{column}" for column in unmovable)
        return {c: v for c, v in {**out, **moved}.items() if f"{where}{c}" not in self._left_out}

    def _order(self, fields: Mapping[str, Any], columns: tuple[str, ...]) -> Order | None:
        """Return the order that a column such as bbox_format names."""
        for column in columns:
            value = fields[column]
            if missing(value):
                continue
            try:
                (order,) = {box_forms.order_of(word) for word in (value if isinstance(value, list) else [value])}
            except (KeyError, ValueError):
                self._fail(f"{column} must be one of xyxy, xywh, cxcywh, coco, voc, not {_short(value)}")
            return order or self._fail(
                f"{column} is {_short(value)}: fractions of the image's size; give boxes in pixels"
            )
        return None

    def _columns(self, values: list[Any], order: Order, where: str, objects: Objects) -> list[Any]:
        """Walk over four columns, of four numbers or of four lists in parallel; return them moved."""
        if all(missing(value) for value in values):
            return values
        if all(type(value) in (int, float) for value in values):
            return self._box(values, order, where, objects)
        lists = [self._decoded(value, where) for value in values]
        if not any(isinstance(entries, list) for entries in lists):
            return self._box(values, order, where, objects)
        if not all(isinstance(entries, list) and len(entries) == len(lists[0]) for entries in lists):
            self._fail(f"{where} must be four numbers, or four lists of the same length")
        objects.parallel = True
        boxes = [self._box(list(box), order, where, objects) for box in zip(*lists, strict=True)]
        new = [[box[n] for box in boxes] for n in range(4)]
        return [encode(new[n], decode(v)[1]) if isinstance(v, str) else new[n] for n, v in enumerate(values)]

    def _decoded(self, value: Any, where: str) -> Any:
        """Return a value, or the value that a text holds."""
        try:
            return decode(value)[0] if isinstance(value, str) else value
        except ValueError as error:
            return self._fail(f"{where} cannot be read: {error}: {_short(value)}")

    def _through(self, value: Any, where: str, change: Callable[[Any], Any]) -> Any:
        """Change a value, or the value that a text holds, and return it in the same notation."""
        self._in_text, outer = self._in_text or isinstance(value, str), self._in_text
        try:
            return through(value, change)
        except ValueError as error:
            self._fail(f"{where} cannot be read: {error}: {_short(value)}")
        finally:
            self._in_text = outer

    def _walk(
        self, column: str, value: Any, where: str, order: Order | None, objects: Objects
    ) -> Callable[[Any], Any] | None:
        """Return how to walk over a column that holds whole boxes, or objects with boxes; None for all others."""
        where = f"{where}{column}"
        form = box_forms.box_column(column)
        if form is not None:
            if form == "fractions":
                self._fail(f"{where} holds fractions of the image's size; give boxes in pixels")
            known = (order or "coco") if form == "coco" else order if form == "unknown" else form
            return lambda v: self._boxes(v, known, where, objects)
        if fold(column) in _OBJECTS or self._has_boxes(value):
            return lambda v: self._objects(v, where, order)
        return None

    @staticmethod
    def _has_boxes(value: Any) -> bool:
        """Whether a column of any other name holds a dict, or a list of dicts, with boxes."""
        if isinstance(value, str):
            if not value.lstrip().startswith(("{", "[{", "({")):
                return False
            try:
                value = decode(value)[0]
            except ValueError:
                return re.search(r"box|xmin", value) is not None  # walking over it raises why it cannot be read
        dicts = value if isinstance(value, list) else [value]
        return any(isinstance(item, dict) and box_forms.holds_box(item) for item in dicts)

    def _objects(self, value: Any, where: str, order: Order | None) -> Any:
        """Walk over a dict of lists or a list of dicts. Names of objects are no boxes."""
        if isinstance(value, dict):
            return self._dict(value, f"{where}.", order)
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return [self._dict(item, f"{where}.", order) for item in value]
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and not holds_four(name) for name in names):
            self._fail(f"{where} is neither a dict nor a list of dicts, {_short(value)}; {FORMS_READ}")
        return value

    def _boxes(self, value: Any, order: Order | None, where: str, objects: Objects) -> Any:
        """Walk over one box, or a list of boxes."""
        if value == [] or value == {}:
            return value
        if _is_box(value):
            return self._ordered_box(value, order, where, objects)
        if isinstance(value, dict):
            return self._dict_box(value, where, order)
        if isinstance(value, str):
            return self._printed_box(value, order, where, objects)
        if isinstance(value, list) and all(_is_box(item) or isinstance(item, dict) for item in value):
            objects.parallel = True
            return [
                self._dict_box(item, where, order)
                if isinstance(item, dict)
                else self._ordered_box(item, order, where, objects)
                for item in value
            ]
        return self._fail(f"expected [x, y, width, height] or a list of these in {where}, got {_short(value)}")

    def _printed_box(self, value: str, order: Order | None, where: str, objects: Objects) -> str:
        """Walk over a box that is a text: four numbers with commas, semicolons or spaces between them."""
        numbers = re.findall(r"[^\s,;]+", value)
        if not _is_box(numbers):
            self._fail(f"expected [x, y, width, height] in {where}, got {_short(value)}")
        new = iter(map(str, self._ordered_box(numbers, order, where, objects)))
        return value if self._crop is None else re.sub(r"[^\s,;]+", lambda _: next(new), value)

    def _dict_box(self, value: dict[str, Any], where: str, order: Order | None) -> dict[str, Any]:
        """Walk over a box that is a dict, such as {"x": 8, "y": 6, "width": 24, "height": 20}."""
        before = sum(map(len, self._sources.values()))
        moved = self._dict(value, f"{where}.", order)
        if sum(map(len, self._sources.values())) == before:
            self._fail(f"{where} holds no box that is understood, {_short(value)}; {FORMS_READ}")
        return moved

    def _ordered_box(self, values: list[Any], order: Order | None, where: str, objects: Objects) -> list[Any]:
        if order is None:
            self._fail(
                f"{where} does not tell what its numbers are, {_short(values)}: rename it to bbox_xyxy or bbox_xywh, "
                "or add a column bbox_format with xyxy or xywh"
            )
        return self._box(values, order, where, objects)

    def _box(self, values: list[Any], order: Order, where: str, objects: Objects) -> list[Any]:
        """Add a box, and return its four numbers moved."""
        if any(isinstance(value, bool) for value in values):
            self._fail(f"expected numbers in {where}, got {_short(values)}")
        box = box_forms.corners(order, numbers_of(self._path, self._number, values))
        if box[2] < box[0] or box[3] < box[1]:
            self._fail(f"expected a box with x0 <= x1 and y0 <= y1 in {where}, got {box}")
        if max(abs(float(value)) for value in values) <= _FRACTION and box[0] < box[2] and box[1] < box[3]:
            self._fail(f"{where} seems to hold fractions of the image's size, {_short(values)}; give boxes in pixels")
        new = box if self._crop is None else move_box(box, self._crop)
        self._sources.setdefault(where, []).append(box)
        if order == "coco":
            self.coco.append((box[0], box[1], box[2] - box[0], box[3] - box[1]))
        objects.old.append(box)
        objects.new.append(new)
        if self._crop is None:
            return values
        numbers = box_forms.numbers_in(order, new)
        return [self._number_like(old, number) for old, number in zip(values, numbers, strict=True)]

    def _number_like(self, old: Any, value: float) -> Any:
        """Return a number as the old one was: text, or whole where it stays whole, so that a column keeps its type."""
        if isinstance(old, str):
            return number_text(value)
        return round(value, 4) if self._in_text else like(old, value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(numeric, value))
