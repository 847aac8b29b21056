"""The forms in which rows of tables hold boxes: each is read, and moved with a crop, or refused with its line."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fgfast.datasets.annotation_files import move_box
from fgfast.datasets.cell_values import decode, encode, missing, through
from fgfast.datasets.layout import ImagePlacement
from fgfast.datasets.row_boxes import RowBoxes
from fgfast.errors import DatasetError
from fgfast.records import Size

STORED = Size(80, 100)
BOX = (50.0, 30.0, 90.0, 70.0)
XYWH = [50.0, 30.0, 40.0, 40.0]
# A crop that leaves 4 pixels around the box.
CROP = ImagePlacement("k", (46, 26), Size(48, 48), STORED)
MOVED = (4.0, 4.0, 44.0, 44.0)
PATH = Path("metadata.jsonl")


def boxes(fields: dict[str, Any]) -> tuple[tuple[float, ...], ...]:
    return RowBoxes(PATH, 3, fields).boxes()


def moved(fields: dict[str, Any], placement: ImagePlacement = CROP) -> dict[str, Any]:
    return RowBoxes(PATH, 3, fields, placement).fields


def printed(value: object) -> str:
    """The text that pandas' to_csv writes for a value."""
    return str(value)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ONE_BOX: dict[str, dict[str, Any]] = {
    "corners": {"x0": 50, "y0": 30, "x1": 90, "y1": 70},
    "corners as text": {"x0": "50", "y0": "30.0", "x1": "90", "y1": "7e1"},
    "corners from 1": {"x1": 50, "y1": 30, "x2": 90, "y2": 70},
    "min and max": {"xmin": 50, "ymin": 30, "xmax": 90, "ymax": 70},
    "min and max, spelled otherwise": {" X Min": 50, "y_min ": 30, "xMax": 90, "Y-Max": 70},
    "the image's size beside": {"width": 100, "height": 80, "xmin": 50, "ymin": 30, "xmax": 90, "ymax": 70},
    "sides": {"left": 50, "top": 30, "right": 90, "bottom": 70},
    "corner and size": {"x": 50, "y": 30, "w": 40, "h": 40},
    "corner and long size": {"x": 50, "y": 30, "width": 40, "height": 40},
    "size beside an image's size": {"width": 100, "height": 80, "x": 50, "y": 30, "w": 40, "h": 40},
    "prefixed": {"width": 100, "height": 80, "bbox_x": 50, "bbox_y": 30, "bbox_width": 40, "bbox_height": 40},
    "prefixed corners": {"bbox_x1": 50, "bbox_y1": 30, "bbox_x2": 90, "bbox_y2": 70},
    "GTSRB's": {"Width": 100, "Height": 80, "Roi.X1": 50, "Roi.Y1": 30, "Roi.X2": 90, "Roi.Y2": 70, "ClassId": 1},
    "corners in words": {"top_left_x": 50, "top_left_y": 30, "bottom_right_x": 90, "bottom_right_y": 70},
    "centre": {"cx": 70, "cy": 50, "w": 40, "h": 40},
    "bbox": {"bbox": XYWH},
    "bbox, another case": {"BBox ": XYWH},
    "bboxes of one": {"bboxes": [XYWH]},
    "bbox of texts": {"bbox": ["50", "30", "40", "40"]},
    "bbox as JSON": {"bbox": "[50, 30, 40, 40]"},
    "bbox as a tuple": {"bbox": "(50.0, 30.0, 40.0, 40.0)"},
    "bbox as a printed array": {"bbox": printed(np.array(XYWH))},
    "bbox as a printed matrix": {"bbox": printed(np.array([XYWH]))},
    "bbox as repr of an array": {"bbox": repr(np.array([XYWH], np.float32))},
    "bbox as repr of NumPy's numbers": {"bbox": repr([np.float64(v) for v in XYWH])},
    "bbox as numbers with spaces": {"bbox": "50 30 40 40"},
    "bbox as numbers with commas": {"bbox": "50, 30,40,40.0"},
    "bbox with names": {"bbox": {"x": 50, "y": 30, "width": 40, "height": 40}},
    "bbox with corners' names": {"bbox": {"xmin": 50, "ymin": 30, "xmax": 90, "ymax": 70}},
    "bboxes with names": {"bboxes": [{"left": 50, "top": 30, "width": 40, "height": 40}]},
    "order in the name": {"bbox_xyxy": list(BOX)},
    "order in the name, boxes": {"boxes_xyxy": [list(BOX)]},
    "order in the name, before one beside": {"bbox_xyxy": list(BOX), "bbox_format": "coco"},
    "order alone": {"xyxy": list(BOX)},
    "rectangle with names": {"rect": {"x": 50, "y": 30, "w": 40, "h": 40}},
    "order beside": {"bbox": list(BOX), "bbox_format": "pascal_voc"},
    "order beside, coco": {"boxes": [XYWH], "box_format": "COCO"},
    "order beside, detectron2": {"bbox": list(BOX), "bbox_mode": "BoxMode.XYXY_ABS"},
    "order beside, for objects": {"objects": {"bbox": [list(BOX)]}, "bbox_format": "xyxy"},
    "objects, dict of lists": {"objects": {"bbox": [XYWH], "categories": [0]}},
    "objects, bboxes": {"objects": {"bboxes": [XYWH], "labels": ["cat"]}},
    "objects, list of dicts": {"objects": [{"bbox": XYWH, "category": "cat", "iscrowd": 0}]},
    "objects, corners": {"objects": {"xmin": [50], "ymin": [30], "xmax": [90], "ymax": [70]}},
    "objects, one": {"objects": {"bbox": XYWH, "category": 0}},
    "objects as pandas writes them": {"objects": printed({"bbox": [XYWH], "categories": [0]})},
    "objects as pandas writes arrays": {"objects": printed({"bbox": np.array([XYWH]), "categories": np.array([0])})},
    "objects as pandas writes a list": {"objects": printed([{"bbox": np.array(XYWH), "category": None}])},
    "objects as JSON": {"objects": json.dumps({"bbox": [XYWH], "category": ["it's"], "score": [math.nan]})},
    "objects as JSON in JSON": {"objects": {"bbox": json.dumps([XYWH])}},
    "objects, flattened": {"objects.bbox": [XYWH], "objects.category": [0]},
    "annotations": {"annotations": [{"id": 7, "bbox": XYWH, "category_id": 1}]},
    "faces": {"faces": {"bbox": [XYWH], "blur": [2]}},
    "the same box twice": {"bbox": XYWH, "x0": 50, "y0": 30, "x1": 90, "y1": 70},
    "what is about boxes": {"bbox": XYWH, "num_boxes": 1, "bbox_label": "cat", "bbox_score": 0.5},
}


@pytest.mark.parametrize("form", ONE_BOX)
def test_a_form_is_read_and_moves_in_its_own_notation(form: str) -> None:
    fields = ONE_BOX[form]
    assert boxes(fields) == (BOX,)
    new = moved(fields)
    assert new.keys() == fields.keys()
    assert boxes(new) == (MOVED,)
    for column, value in fields.items():
        assert type(new[column]) is type(value)
        if isinstance(value, str) and value.startswith("{"):
            assert decode(new[column])[1] == decode(value)[1]


def shifted(value: Any, old: str, by: int) -> Any:
    """The same form with every number `old` raised."""
    text = json.dumps(value)
    return json.loads(re.sub(rf"(?<![\d.]){old}(?![\d.])", str(int(old) + by), text))


@given(
    st.sampled_from([form for form in sorted(ONE_BOX) if "50.0" not in json.dumps(ONE_BOX[form])]),
    st.integers(-49, 30),
    st.tuples(st.integers(-30, 60), st.integers(-30, 60)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_any_box_moves_in_any_form(form: str, by: int, offset: tuple[int, int], size: tuple[int, int]) -> None:
    placement = ImagePlacement("k", offset, Size(*size), STORED)
    fields = shifted(ONE_BOX[form], "50", by)
    (box,) = boxes(fields)
    expected = move_box(box, placement)
    assume(max(expected) > 3)  # smaller ones would be taken for fractions
    (new,) = boxes(moved(fields, placement))
    assert new == pytest.approx(expected, abs=1e-3)


NO_BOX: tuple[dict[str, Any], ...] = (
    {},
    {"x0": "", "y0": "", "x1": "", "y1": ""},
    {"xmin": math.nan, "ymin": math.nan, "xmax": math.nan, "ymax": math.nan},
    {"bbox": None, "bboxes": "", "objects": math.nan},
    {"bbox": "nan"},
    {"bbox": [], "objects": {}},
    {"objects": []},
    {"objects": {"bbox": [], "category": []}},
    {"objects": {"category": [3]}},
    {"objects": "cat, dog"},
    {"objects": ["cat", "dog"]},
    {"boxer": "a dog", "inbox": "[1, 2, 3, 4]", "n_boxes": 2, "x": 3, "y": 1, "label": "[cat]"},
    {"location": "48.85, 2.35", "region": "Île-de-France", "target": 3, "coordinates": [2.35, 48.85], "object": "cat"},
    {"x1": 0.3, "x2": 0.4, "x3": 7, "y": 2},
)


@pytest.mark.parametrize("fields", NO_BOX)
def test_what_holds_no_box_stays_as_it_is(fields: dict[str, Any]) -> None:
    assert boxes(fields) == ()
    assert repr(moved(fields)) == repr(fields)  # nan differs from itself


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two corners only": ({"xmin": 1, "ymin": 2}, "xmin looks like a box"),
    "three of four": ({"x0": 1, "y0": 2, "x1": 3}, "looks like a box"),
    "one number missing": ({"x0": 1, "y0": 2, "x1": 3, "y1": ""}, "expected a number, got ''"),
    "inverted": ({"x0": 5, "y0": 2, "x1": 3, "y1": 4}, "x0 <= x1"),
    "a negative size": ({"bbox": [5, 2, -1, 4]}, "x0 <= x1"),
    "not a number": ({"bbox": [5, 2, math.nan, 4]}, "expected .*nan"),
    "infinite": ({"bbox": [5, 2, math.inf, 4]}, "expected .*inf"),
    "too large": ({"x0": 1, "y0": 2, "x1": 10**400, "y1": 4}, "finite"),
    "larger than any image": ({"bbox": [5, 2, 1e12, 4]}, "expected a number of pixels up to"),
    "fractions of YOLO": ({"objects": {"bbox": [[0.9, 0.9, 0.4, 0.4]]}}, "fractions"),
    "a deep nest": ({"objects": {"bbox": [XYWH], "segmentation": nested(3000)}}, "nested too deeply"),
    "truth values": ({"bbox": [True, True, True, True]}, "expected"),
    "three numbers": ({"bbox": [1, 2, 3]}, "expected \\[x, y, width, height\\]"),
    "five numbers": ({"bbox": [[1, 2, 3, 4, 5]]}, "expected \\[x, y, width, height\\]"),
    "nested too deeply": ({"bboxes": [[XYWH]]}, "expected \\[x, y, width, height\\]"),
    "words": ({"bbox": "see file"}, "expected \\[x, y, width, height\\]"),
    "broken JSON": ({"bbox": "[1, 2, 3"}, "neither JSON nor a Python value"),
    "broken objects": ({"objects": "{'bbox': [[1, 2, 3, 4]"}, "objects cannot be read"),
    "a call": ({"objects": "{'bbox': open('x')}"}, "not a value"),
    "shortened": ({"bbox": "array([[1., 2., 3., 4.], ..., [5., 6., 7., 8.]])"}, "shortened with"),
    "unknown order": ({"boxes": [[1, 2, 30, 40]]}, "rename it to bbox_xyxy or bbox_xywh"),
    "unknown word": ({"bbox": XYWH, "bbox_format": "foo"}, "must be one of xyxy"),
    "fractions by name": ({"bbox": XYWH, "bbox_format": "yolo"}, "fractions"),
    "fractions by value": ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "fractions"),
    "fractions in columns": ({"XMin": 0.1, "XMax": 0.5, "YMin": 0, "YMax": 1}, "fractions"),
    "lists of numbers as objects": ({"objects": [XYWH]}, "neither a dict nor a list of dicts"),
    "text of numbers as objects": ({"objects": "50 30 40 40"}, "neither a dict nor a list of dicts"),
    "a rectangle": ({"rect": [1, 2, 30, 40]}, "rect looks like a box"),
    "coordinates as text": ({"coords": "(1, 2, 30, 40)"}, "coords looks like a box"),
    "corners with names of their own": ({"location": {"tl": [1, 2], "all": [1, 2, 3, 4]}}, "location looks like a box"),
    "another box": ({"face_bbox": XYWH}, "face_bbox looks like a box"),
    "another key in objects": ({"objects": {"bbox_2d": [XYWH]}}, "objects.bbox_2d looks like a box"),
    "different boxes": ({"bbox": XYWH, "objects": {"bbox": [[1, 2, 3, 4]]}}, "different boxes"),
    "different lengths": ({"objects": {"x": [1, 2], "y": [1], "w": [3], "h": [4]}}, "same length"),
    "two columns of one name": ({"xmin": 1, "x_min": 2, "ymin": 3, "xmax": 4, "ymax": 5}, "same name"),
    "a polygon": ({f"{axis}{n}": n for axis in "xy" for n in (1, 2, 3, 4)}, "polygon"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_looks_like_a_box_and_is_not_understood_is_refused_with_its_line(case: str) -> None:
    fields, message = REFUSED[case]
    with pytest.raises(DatasetError, match=rf"metadata\.jsonl:3: .*{message}"):
        boxes(fields)


def test_boxes_are_cut_off_at_the_stored_image_not_at_the_padding() -> None:
    square = ImagePlacement("k", (-10, 20), Size(120, 120), STORED)
    assert moved({"x0": -5, "y0": 30, "x1": 120, "y1": 200}, square) == {
        "x0": 10.0,
        "y0": 10.0,
        "x1": 110.0,
        "y1": 60.0,
    }
    assert moved({"bbox": [110, 30, 8, 8]}, square) == {"bbox": [110.0, 10.0, 0.0, 8.0]}


def test_sizes_and_areas_follow_the_crop() -> None:
    fields = {
        "width": 100,
        "height": "80",
        "image_size": [100, 80],
        "shape": "[80, 100, 3]",
        "resolution": "100x80",
        "area": 8000,
        "objects": {
            "bbox": [XYWH, [0, 0, 10, 10], [40, 20, 20, 20]],
            "area": [1600, 100, 400.0],
            "category": [0, 1, 2],
        },
    }
    new = moved(fields)
    assert new.pop("objects") == {
        "bbox": [[4, 4, 40, 40], [0, 0, 0, 0], [0, 0, 14, 14]],
        "area": [1600, 0, 196.0],
        "category": [0, 1, 2],
    }
    assert new == {
        "width": 48,
        "height": "48",
        "image_size": [48, 48],
        "shape": "[48, 48, 3]",
        "resolution": "48x48",
        "area": 2304,
    }


def test_outlines_and_keypoints_follow_the_crop() -> None:
    square = [50, 30, 90, 30, 90, 70, 50, 70]
    cut = [30, 30, 60, 30, 60, 60, 30, 60]
    points = [50, 30, 2, 60, 40, 1, 0, 0, 0, 10, 10, 2]
    fields = {
        "objects": [
            {"bbox": XYWH, "area": 1600, "segmentation": [square], "keypoints": points},
            {"bbox": [30, 30, 30, 30], "area": 880, "segmentation": [cut]},
        ],
        "polygon": json.dumps([[50, 30], [90, 30], [90, 70]]),
        "keypoints": [[50, 30], [10, 10]],
    }
    row = RowBoxes(PATH, 3, fields, CROP)
    assert not row.unmovable
    first, second = row.fields["objects"]
    assert first == {
        "bbox": [4, 4, 40, 40],
        "area": 1600,
        "segmentation": [[4, 4, 44, 4, 44, 44, 4, 44]],
        "keypoints": [4, 4, 2, 14, 14, 1, 0, 0, 0, 0, 0, 0],
    }
    # Cut at x = 46: 14 of 30 columns remain.
    xs, ys = second["segmentation"][0][::2], second["segmentation"][0][1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == (0, 14, 4, 34)
    assert second["bbox"] == [0, 4, 14, 30]
    assert second["area"] == pytest.approx(880 * 14 / 30, abs=1e-3)
    assert json.loads(row.fields["polygon"]) == [[4, 4], [44, 4], [44, 44]]
    assert row.fields["keypoints"] == [[4, 4], [-36, -16]]


def test_what_cannot_follow_is_named_and_left_out() -> None:
    fields = {
        "objects": {"bbox": [XYWH], "area": [900], "mask": [{"counts": "abc", "size": [80, 100]}], "id": [1]},
        "rle": "1 5 9 2",
        "masked": "no",
        "polygon": "POLYGON ((0 0, 1 1))",
    }
    row = RowBoxes(PATH, 3, fields)
    assert row.unmovable == {"objects.area", "objects.mask", "rle", "polygon"}
    new = RowBoxes(PATH, 3, fields, CROP, row.unmovable).fields
    assert new == {"objects": {"bbox": [[4, 4, 40, 40]], "id": [1]}, "masked": "no"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, -2.5, 3e2]", [1, -2.5, 300]),
        ("{'a': None, 'b': (1, 2), 'c': True}", {"a": None, "b": [1, 2], "c": True}),
        ("array([], shape=(0, 4), dtype=float64)", []),
        ("array([array([1, 2]), array([3, -4])], dtype=object)", [[1, 2], [3, -4]]),
        ("[[ 1. -2.]\n [30.  4.]]", [[1, -2], [30, 4]]),
        ("tensor([[1., 2.]], device='cuda:0')", [[1, 2]]),
        ("[np.float32(1.5), np.int64(-2)]", [1.5, -2]),
        ("dict(a=[1])", {"a": [1]}),
        ("plain, text", "plain, text"),
    ],
)
def test_printed_values_are_read(text: str, value: object) -> None:
    assert decode(text)[0] == value


@pytest.mark.parametrize("text", ["[1 + 2]", "[" * 5000, "{'a': print('x')}", "[b'x']", "(x for x in y)", "[1, ...]"])
def test_what_is_no_value_is_not_executed(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        decode(text)


def test_text_that_does_not_change_stays() -> None:
    text = "{'a':   [1,2]}"
    assert through(text, lambda value: value) == text
    assert ast.literal_eval(through(text, lambda value: {**value, "b": 1})) == {"a": [1, 2], "b": 1}
    assert encode({"ä": ["\ud800"]}, "json").encode() == b'{"\\u00e4": ["\\ud800"]}'
    assert missing(" NaN ")
    assert not missing("0")
