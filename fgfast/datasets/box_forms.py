"""The forms in which tables write boxes: the names of columns, and the order of the numbers.

Names are compared without case, spaces and punctuation: `X Min`, `x_min` and `xmin` are one name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from fgfast.datasets.annotation_files import Box

Order = Literal["xyxy", "xywh", "cxcywh", "coco"]
"""Two corners; a corner and the size; the centre and the size; "coco" is xywh that COCO's name alone tells."""

# Words for an order in a column such as bbox_format, and at the end of a name such as bbox_xyxy. None: fractions of the
# image's size, which are not pixels.
_ORDERS: dict[str, Order | None] = {
    **dict.fromkeys(("xyxy", "xyxyabs", "x0y0x1y1", "x1y1x2y2", "voc", "pascalvoc", "pascal", "ltrb"), "xyxy"),
    **dict.fromkeys(("xywh", "xywhabs", "xywidthheight", "coco", "ltwh", "tlwh"), "xywh"),
    **dict.fromkeys(("cxcywh", "xcycwh", "centerxywh"), "cxcywh"),
    **dict.fromkeys(("yolo", "albumentations", "normalized", "relative", "norm", "xyxyn", "xywhn"), None),
}
_BOX = r"bbox(?:es)?|box(?:es)?|bounding_?box(?:es)?|bndbox(?:es)?"
# json_normalize of pandas calls what is inside `objects` objects.bbox, objects.area, ...
_OWNER = r"(?:objects?|annotations?)"
_BOX_PREFIX = re.compile(rf"{_OWNER}?(?:{_BOX}|roi|rect)?")
_BOX_COLUMN = re.compile(rf"{_OWNER}?({_BOX})({'|'.join(_ORDERS)})?")
# Names that tell the order, but not that it is a box's; nothing else is called so.
_BARE_ORDERS = ("xyxy", "xywh", "cxcywh", "ltrb", "ltwh", "tlwh")
_ORDER_COLUMN = re.compile(rf"(?:{_BOX})(?:format|mode|type|order)")
# Columns of COCO's name hold [x, y, width, height], as in COCO; other names do not tell the order.
_COCO = ("bbox", "bboxes")
# Names that are about boxes and are none.
_ABOUT = frozenset(
    (
        *("num", "n", "no", "count", "counts", "number", "has", "is", "id", "ids", "index", "name", "names"),
        *("label", "labels", "class", "classes", "category", "categories", "score", "scores", "conf", "confidence"),
        *("format", "mode", "type", "order", "source", "area", "areas", "visible", "occluded", "truncated"),
    )
)

# Two columns may describe the same box with other rounding, in pixels.
_SAME = 1.0
# Boxes of an image that two columns may hold in another order.
_MOST_APART = 1000

MAYBE_BOXES = frozenset(
    (
        *("rect", "rects", "rectangle", "rectangles", "roi", "rois", "region", "regions", "crop", "window", "coords"),
        *("coordinates", "location", "locations", "position", "detection", "instance", "object", "annotation"),
        *("target", "targets", "groundtruth", "gt"),
    )
)
"""Folded names of columns that may hold boxes: four numbers in one are not passed over."""

OUTLINES = ("segmentation", "segmentations", "polygon", "polygons", "contour", "contours")
"""Folded names of columns that hold polygons."""
QUADS = ("quad", "quads", "quadrilateral", "obb")
"""Folded names of columns that hold four corners."""
POINTS = ("points",)
"""Folded names of columns that hold points, which are a shape where a column says so."""
SHAPE_TYPES = ("shapetype",)
"""Folded names of columns that tell the kind of a shape, as labelme's shape_type."""

_CORNER_NAMES = (
    "x0 y0 x1 y1|x1 y1 x2 y2|xmin ymin xmax ymax|minx miny maxx maxy|left top right bottom|xtl ytl xbr ybr|"
    "topleftx toplefty bottomrightx bottomrighty|upperleftx upperlefty lowerrightx lowerrighty|ulx uly lrx lry|"
    "xstart ystart xend yend|startx starty endx endy|tlx tly brx bry|ltx lty rbx rby|xleft ytop xright ybottom|"
    "leftx topy rightx bottomy|xlo ylo xhi yhi|lox loy hix hiy|xlow ylow xhigh yhigh|xfrom yfrom xto yto|"
    "colmin rowmin colmax rowmax|mincol minrow maxcol maxrow|minc minr maxc maxr|colstart rowstart colend rowend|"
    "x y x2 y2|x y xmax ymax"
)
_STARTS = "x y|xmin ymin|minx miny|left top|x0 y0|x1 y1|topleftx toplefty"
_CENTRES = "cx cy|xc yc|xcenter ycenter|centerx centery|xcentre ycentre|centrex centrey"
_ENDS = ("w h", "width height")


def _forms() -> Iterator[tuple[tuple[str, ...], Order]]:
    for names in _CORNER_NAMES.split("|"):
        yield tuple(names.split()), "xyxy"
    for names in _STARTS.split("|"):
        yield from ((tuple(f"{names} {end}".split()), "xywh") for end in _ENDS)
    for names in _CENTRES.split("|"):
        yield from ((tuple(f"{names} {end}".split()), "cxcywh") for end in _ENDS)


FORMS: tuple[tuple[tuple[str, ...], Order], ...] = tuple(_forms())
"""Names of four columns that hold one box, and their order; earlier ones are preferred."""

# What a prefix such as that of image_width says: not a box's.
_OF_IMAGE = ("image", "img", "original", "orig")

# Single names that no other thing has.
_EDGES = frozenset(name for names in _CORNER_NAMES.split("|")[2:4] for name in names.split())
_COORDINATES = frozenset(name for names, _ in FORMS for name in names)


@lru_cache(4096)
def fold(name: str) -> str:
    """Return a column's name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


@lru_cache(4096)
def of_object(name: str) -> str:
    """Return the folded name that a column has inside an object: `area` of objects.area, `bbox` of bbox."""
    return re.sub(rf"^{_OWNER}(?=.)", "", fold(name))


@lru_cache(4096)
def of_box(name: str) -> str:
    """Return the folded name that a column has inside a box: `x` of bbox_x; empty where it is not said to be inside."""
    return next((inside for prefix, inside in _inside(name) if _BOX_PREFIX.fullmatch(prefix)), "")


@lru_cache(4096)
def _inside(name: str) -> tuple[tuple[str, str], ...]:
    """Return what a column may be of a box, each as (prefix, coordinate), both folded: bird, x1 of bird_x1."""
    folded = fold(name)
    ends = ((folded[:n], folded[n:]) for n in range(1, len(folded)))
    return tuple((prefix, end) for prefix, end in ends if end in _COORDINATES and prefix not in _OF_IMAGE)


def order_of(word: object) -> Order | None:
    """Return the order that a word names (`coco`, `xyxy`, `BoxMode.XYWH_ABS`), None where these are fractions.

    Raises:
        KeyError: the word names no order that is known.
    """
    numbers: dict[object, Order] = {0: "xyxy", 1: "xywh"}  # detectron2's BoxMode
    if isinstance(word, int):
        return numbers[word]
    return _ORDERS[re.sub(r"[\W_]+", "", str(word).casefold().removeprefix("boxmode."))]


@lru_cache(4096)
def is_order_column(name: str) -> bool:
    """Whether a column says in which order its boxes' numbers are."""
    return _ORDER_COLUMN.fullmatch(fold(name)) is not None


@lru_cache(4096)
def box_column(name: str) -> Order | Literal["unknown", "fractions"] | None:
    """Return the order of the numbers in a column that holds whole boxes, as far as its name tells; else None."""
    match = _BOX_COLUMN.fullmatch(fold(name))
    if match is None:
        return _ORDERS[of_object(name)] if of_object(name) in _BARE_ORDERS else None
    if match[2]:
        return _ORDERS[match[2]] or "fractions"
    return "coco" if match[1] in _COCO else "unknown"


def four_columns(names: Collection[str]) -> Iterator[tuple[tuple[str, ...], Order]]:
    """Yield the forms of four columns that folded names complete; a name belongs to one of them at most.

    Raises:
        ValueError: the names complete two forms, or more corners than a box has.
    """
    used: set[str] = set()
    for form, order in FORMS:
        if not all(name in names for name in form):
            continue
        if order == "xyxy" and ({"x3", "y3"} <= set(names) and "x1" in form):
            raise ValueError("the columns x1 y1 ... x3 y3 are corners of a polygon, not of a box")
        if order == "xyxy" and used & set(form) and "x" not in form:
            raise ValueError("the columns x0 y0 x1 y1 and x1 y1 x2 y2 are both there; keep one of them")
        if used & set(form) or (used and "width" in form):
            continue
        used |= set(form)
        yield form, order


def holds_box(keys: Iterable[object]) -> bool:
    """Whether the keys of a dict are those of a box, or of an object with one, or with a shape."""
    names = tuple(str(key) for key in keys)
    if any(box_column(name) or of_object(name) in (*OUTLINES, *QUADS, *SHAPE_TYPES) for name in names):
        return True
    try:
        return bool(columns_of(names).four)
    except ValueError:
        return True


def looks_like_box(name: str, names: Collection[str]) -> bool:
    """Whether a column that belongs to no form that is read looks as if it held boxes, or a part of one.

    Args:
        name: the column.
        names: the folded names of all columns beside it.
    """
    folded = fold(name)
    words = re.findall(r"[a-z]+|[A-Z][a-z]*|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name))
    lower = [word.lower() for word in words]
    if any(re.fullmatch(_BOX, word) for word in lower) or re.search(r"bbox|bndbox|bounding_?box", folded):
        return not _ABOUT & set(lower) and not is_order_column(name)
    if folded in _EDGES or folded in MAYBE_BOXES:
        return True
    forms = (form for form, _ in FORMS if folded in form)
    return folded[:1] in "xy" and folded[1:].isdigit() and any(sum(n in names for n in form) == 3 for form in forms)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table, or the keys of a dict, hold.

    Attributes:
        four: groups of four columns that hold one box each, first those called bbox_..., and their order.
        orders: columns that name the order of the others' numbers.
        suspects: columns that look like boxes and belong to no form that is read, unless `box_column` knows them.
    """

    four: tuple[tuple[tuple[str, ...], Order], ...]
    orders: tuple[str, ...]
    suspects: tuple[str, ...]


def _by_prefix(columns: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    """Yield groups of columns that may be one box: folded name inside the box -> columns.

    First come those with a box's name before them, then those without a prefix, then those with any other.
    """
    groups: dict[str, dict[str, list[str]]] = {"bbox": {}, "": {}}
    for column in columns:
        groups[""].setdefault(fold(column), []).append(column)
        for prefix, inside in _inside(column):
            known = "bbox" if _BOX_PREFIX.fullmatch(prefix) else prefix
            groups.setdefault(known, {}).setdefault(inside, []).append(column)
    yield from (names for names in groups.values() if len(names) >= 4)


@lru_cache(4096)
def columns_of(columns: tuple[str, ...]) -> Columns:
    """Return what columns hold.

    Raises:
        ValueError: a box's columns are there twice.
    """
    four: list[tuple[tuple[str, ...], Order]] = []
    used = set[str]()
    for names in _by_prefix(columns):
        for form, order in four_columns([name for name in names if not used & set(names[name])]):
            for name in form:
                if len(names[name]) > 1:
                    raise ValueError(
                        f"the columns {' and '.join(map(repr, names[name]))} have the same name; rename one"
                    )
            four.append((tuple(names[name][0] for name in form), order))
            used.update(four[-1][0])
    folded = {fold(column) for column in columns}
    suspects = (c for c in columns if c not in used and not box_column(c) and looks_like_box(c, folded))
    return Columns(tuple(four), tuple(filter(is_order_column, columns)), tuple(suspects))


def corners(order: Order, numbers: Iterable[float]) -> Box:
    """Convert four numbers of this order to x0 y0 x1 y1."""
    a, b, c, d = numbers
    if order == "xyxy":
        return a, b, c, d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, a + c, b + d


def numbers_in(order: Order, box: Box) -> tuple[float, float, float, float]:
    """Convert x0 y0 x1 y1 to four numbers of this order."""
    x0, y0, x1, y1 = box
    if order == "xyxy":
        return box
    if order == "cxcywh":
        return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
    return x0, y0, x1 - x0, y1 - y0


def all_in(boxes: Sequence[Box], others: Sequence[Box]) -> bool:
    """Whether each box is, but for rounding, one of `others`, which has at least as many."""
    apart = [box for box, other in zip(boxes, others, strict=False) if not _same(box, other)]
    if len(apart) > _MOST_APART:  # in another order: each is compared with all
        return False
    return all(any(_same(box, other) for other in others) for box in apart)


def _same(a: Box, b: Box) -> bool:
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) <= _SAME
