"""Tables whose boxes have other names, or only shapes: they are read where they can mean one thing, else refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from layouts import make_image, placements, text

from fgfast.datasets.folder import Folder
from fgfast.errors import DatasetError
from fgfast.records import Size

BOX = [8, 6, 32, 26]
XYWH = [8, 6, 24, 20]
# Two rows, so that one number is no accident.
ROWS = ((8, 6, 32, 26), (1, 2, 40, 30))


def opened(root: Path, *rows: dict[str, Any]) -> list[list[list[float]]]:
    for n, row in enumerate(rows):
        make_image(root / f"{n}.png")
        row["file_name"] = f"{n}.png"
    text(root / "metadata.jsonl", *map(json.dumps, rows))
    return [sample.boxes.tolist() for sample in Folder.open(root).samples]


def opened_csv(root: Path, columns: str, *rows: tuple[object, ...]) -> list[list[list[float]]]:
    for n in range(len(rows)):
        make_image(root / f"{n}.png")
    lines = (",".join(map(str, (f"{n}.png", *row))) for n, row in enumerate(rows))
    text(root / "metadata.csv", f"file_name,{columns}", *lines)
    return [sample.boxes.tolist() for sample in Folder.open(root).samples]


CORNERS = (
    *("x,y,x2,y2", "tl_x,tl_y,br_x,br_y", "x_lo,y_lo,x_hi,y_hi", "col_min,row_min,col_max,row_max"),
    *("bird_x1,bird_y1,bird_x2,bird_y2", "birdXmin,birdYmin,birdXmax,birdYmax", "gt_left,gt_top,gt_right,gt_bottom"),
)
SIZES = ("bb_x,bb_y,bb_w,bb_h", "gt_x,gt_y,gt_w,gt_h", "face_x,face_y,face_w,face_h", "faceX,faceY,faceW,faceH")


@pytest.mark.parametrize("columns", [*CORNERS, *SIZES])
def test_columns_of_one_prefix_or_another_pair_of_corners_are_read(columns: str, tmp_path: Path) -> None:
    rows = [row if columns in CORNERS else (row[0], row[1], row[2] - row[0], row[3] - row[1]) for row in ROWS]
    assert opened_csv(tmp_path, columns, *rows) == [[list(row)] for row in ROWS]


@pytest.mark.parametrize("seed", range(5))
def test_any_prefix_and_any_order_of_columns(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    prefix = "".join(draw.choices("abcdefgqrst", k=5))
    names = dict(zip([f"{prefix}_{end}" for end in ("xmin", "ymin", "xmax", "ymax")], BOX, strict=True))
    row = dict(draw.sample([*names.items(), ("width", 48), ("height", 36), ("label", 3)], 7))
    assert opened(tmp_path, row) == [[BOX]]


@pytest.mark.parametrize(
    "columns",
    [
        *("links,oben,rechts,unten", "a,b,c,d", "p1_x,p1_y,p2_x,p2_y", "pos_x,pos_y,ext_x,ext_y"),
        *("col,row,cols,rows", "face_x,face_y,width,height", "image_x,image_y,image_w,image_h"),
    ],
)
@pytest.mark.parametrize("more", ["", ",label,score"])
def test_four_numbers_that_could_be_a_box_are_refused_with_their_line(columns: str, more: str, tmp_path: Path) -> None:
    rows = [(*row, *((3, 0.5) if more else ())) for row in ROWS]
    with pytest.raises(DatasetError, match=r"metadata\.csv:2: .*could be a box and are not understood \(8, 6, 32, 26"):
        opened_csv(tmp_path, columns + more, *rows)


@pytest.mark.parametrize(
    "value",
    [
        BOX,
        [BOX],
        [str(n) for n in BOX],
        "8 6 32 26",
        str(BOX),
        [BOX[:2], BOX[2:]],
        {"box of": BOX, "by": "me"},
        [{"where": BOX}],
        {"p": 8, "q": 6, "r": 9, "s": 7},
    ],
)
def test_a_cell_of_four_numbers_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:2: subject.* could be a box and (is|are) not understood"):
        opened(tmp_path, {"subject": None}, {"subject": value})


@pytest.mark.parametrize(
    "columns",
    [
        *(
            "label,class_id,split,score",
            "classid,imageid,labelid,personid",
            "has_beak,male,smiling,young",
            "e0,e1,e2,e3,e4,e5,e6,e7",
            "year,month,day,age",
        ),
        *("left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y", "width,height,label,count", "a,b,c"),
    ],
)
def test_what_is_something_else_stays_harmless(columns: str, tmp_path: Path) -> None:
    draw, count = random.Random(columns), columns.count(",") + 1
    flags = "has_" in columns
    rows = [tuple(draw.randint(0, 1) if flags else draw.randint(2, 99) for _ in range(count)) for _ in range(6)]
    assert opened_csv(tmp_path, columns, (1,) * count, *rows) == [[]] * 7


def test_numbers_beside_boxes_and_lists_of_other_lengths_are_harmless(tmp_path: Path) -> None:
    assert opened(tmp_path, {"tags": [1, 2, 3, 4]}, {"tags": [1, 2]}) == [[], []]
    assert opened(tmp_path, {"stats": {"mean": 3, "std": 2, "min": 1, "max": 9}, "meta": {"a": 1}}) == [[], []]
    nested: Any = BOX
    for _ in range(500):
        nested = [nested]
    assert opened(tmp_path, {"deep": nested}) == [[], []]
    assert opened(tmp_path, {"a": 1, "b": 2, "c": 3, "d": 4, "bbox": XYWH}) == [[BOX], []]
    assert opened(tmp_path, {"a": 9, "b": 2, "c": 3, "d": 4}, {"a": 9, "b": 2, "c": -3, "d": -4}) == [[], []]


TRIANGLE = [[8, 6], [32, 6], [20, 26]]
SHAPES: dict[str, dict[str, Any]] = {
    "labelme's rectangle": {"objects": [{"points": [[8, 6], [32, 26]], "shape_type": "rectangle", "label": "cat"}]},
    "labelme's shapes": {"shapes": [{"points": TRIANGLE, "shape_type": "polygon"}]},
    "COCO's segmentation": {"objects": [{"segmentation": [[8, 6, 32, 6, 20, 26]], "category_id": 1}]},
    "segmentations in parallel": {"objects": {"segmentation": [[[8, 6, 32, 6, 20, 26]]], "category": [1]}},
    "in any column": {"regions": [{"polygon": TRIANGLE}]},
    "a polygon": {"polygon": TRIANGLE},
    "a polygon as text": {"polygon": str(TRIANGLE)},
    "polygons": {"polygons": [TRIANGLE]},
    "points with names": {"polygon": [{"x": x, "y": y} for x, y in TRIANGLE]},
    "a quadrilateral": {"quad": [8, 6, 32, 6, 32, 26, 8, 26]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bounds_of_a_shape_are_its_box(shape: str, tmp_path: Path) -> None:
    assert opened(tmp_path, SHAPES[shape]) == [[BOX]]


def test_several_shapes_are_several_boxes(tmp_path: Path) -> None:
    other = [[1, 2], [5, 2], [5, 9]]
    assert opened(tmp_path, {"objects": {"polygon": [TRIANGLE, other], "label": [0, 1]}}) == [[BOX, [1, 2, 5, 9]]]
    mixed = [{"bbox": XYWH}, {"polygon": other}]
    assert opened(tmp_path, {"objects": mixed}) == [[BOX, [1, 2, 5, 9]]]
    assert opened(tmp_path, {"bbox": XYWH, "polygon": other}) == [[BOX]]


def test_shapes_follow_a_crop(tmp_path: Path) -> None:
    root = tmp_path / "in"
    assert opened(root, {"objects": [{"polygon": TRIANGLE, "label": 1}]}) == [[BOX]]
    dataset = Folder.open(root)
    dataset.write_annotations(tmp_path / "out", placements(dataset, (6, 4), Size(24, 28)))
    (line,) = (tmp_path / "out/metadata.jsonl").read_text().splitlines()
    assert json.loads(line)["objects"] == [{"polygon": [[2, 2], [26, 2], [14, 22]], "label": 1}]


@pytest.mark.parametrize(
    "row",
    [
        {"objects": [{"points": [[8, 6], [9, 9]], "shape_type": "circle"}]},
        {"objects": [{"segmentation": {"counts": "abc", "size": [36, 48]}}]},
        {"polygon": "POLYGON ((8 6, 32 6, 20 26))"},
        {"points": [[8, 6], [32, 26]]},
        {"polygon": [[0.1, 0.2], [0.4, 0.2], [0.3, 0.5]]},
        {"rle": "5 3 9 2"},
    ],
)
def test_shapes_that_are_not_understood_are_refused(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:1: .*holds a shape that is not understood"):
        opened(tmp_path, row)


@pytest.mark.parametrize("value", ["masks/0.png", {"bytes": "x", "path": None}, "cat", 3, [], None])
@pytest.mark.parametrize("column", ["mask", "segmentation", "points"])
def test_files_and_numbers_are_no_shapes(column: str, value: object, tmp_path: Path) -> None:
    assert opened(tmp_path, {column: value}) == [[]]
