"""Tables beside images: separators, encodings, names of images, and what a twin's table keeps."""

from __future__ import annotations

import csv
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import SUBJECT, make_image, placements, text
from PIL import Image as pillow

from fgfast.datasets.box_tables import read_table, rewrite_table
from fgfast.datasets.folder import Folder
from fgfast.datasets.layout import ImagePlacement
from fgfast.datasets.table_names import Keys
from fgfast.errors import DatasetError, MissingExtraError
from fgfast.records import Size
from fgfast.writing import Target

STORED = Size(36, 48)
# A crop that leaves 2 pixels around the subject at 8, 6, 32, 26.
CROP = ((6, 4), Size(24, 28))
MOVED = [[2, 2, 26, 22]]


def cropped(dataset: Folder) -> dict[str, ImagePlacement]:
    return {key: ImagePlacement(key, *CROP, STORED) for key in (sample.key for sample in dataset.samples)}


def opened(root: Path) -> Folder:
    dataset = Folder.open(root)
    assert isinstance(dataset, Folder)
    return dataset


def twin_of(root: Path, out: Path) -> Folder:
    """The twin's annotations beside copies of its images, cropped."""
    dataset = opened(root)
    dataset.write_annotations(out, cropped(dataset))
    for sample in dataset.samples:
        make_image(out / sample.key)
    return opened(out)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_files_of_spreadsheets(tmp_path: Path, separator: str, encoding: str, ending: str) -> None:
    root = tmp_path / "in"
    make_image(root / "ä/a.png")
    lines = ("File Name; X0;Y0 ;x1;y1;note", "ä/a.png;8;6;32;26;ü", "", "ä/b.png;;;;;")
    content = "".join(line.replace(";", separator) + ending for line in lines)
    bom = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (root / "metadata.csv").write_bytes(bom + content.encode(encoding))
    dataset = opened(root)
    assert [(s.key, s.boxes.tolist()) for s in dataset.samples] == [("ä/a.png", [list(SUBJECT)]), ("ä/b.png", [])]
    assert twin_of(root, tmp_path / "out").samples[0].boxes.tolist() == MOVED
    written = (tmp_path / "out/metadata.csv").read_bytes()
    again = written.decode("utf-16" if "16" in encoding else "utf-8-sig")
    assert again.split(ending)[0] == lines[0].replace(";", separator)
    assert written.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8-sig")


def test_cells_of_any_length(tmp_path: Path) -> None:
    root = tmp_path / "in"
    make_image(root / "a.png")
    before = csv.field_size_limit()
    numbers = ", ".join(f"{n % 48}.5, {n % 36}.25" for n in range(20_000))
    text(root / "metadata.csv", "file_name,bbox,polygon", f'a.png,"[8, 6, 24, 20]","[{numbers}]"')
    assert twin_of(root, tmp_path / "out").samples[0].boxes.tolist() == MOVED
    assert csv.field_size_limit() == before
    (row,) = read_table(tmp_path / "out", "metadata.csv")
    outline = json.loads(row.fields["polygon"])
    assert len(outline) > 1000
    assert 0 <= min(outline) <= max(outline) <= 28


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,a,a\nx.png,1,2\n", r"metadata\.csv:1: two columns are called 'a'"),
        (
            "name,label\nx.png,1\n",
            r"metadata\.csv:1: expected a column 'file_name': no column names the image; found: ",
        ),
        ('file_name,note\nx.png,"open\ny.png,b\n', r"metadata\.csv:2: not CSV: unexpected end"),
        ('file_name,note\nx.png,"two\nlines"\n\ny.png\n', r"metadata\.csv:5: expected 2 columns, got 1"),
        ("file_name,bbox\nx.png,\n\ny.png,1 2 3\n", r"metadata\.csv:4: expected \[x, y"),
        ("file_name,label\n,1\n", r"metadata\.csv:2: expected a path in 'file_name', got ''"),
        ("image,img,path\nx,y,z\n", None),
        ("image,Image\nx,y\n", r"metadata\.csv:1: expected a column 'file_name': the columns 'image' and 'Image' both"),
        (
            "file_name,mask_file_name\nx.png,m.png\n",
            r"metadata\.csv:1: .*'mask_file_name' names images that are no photo",
        ),
        ("file_name,label\n../x.png,1\n", r"metadata\.csv:2: expected a path inside"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, content: str, message: str | None) -> None:
    make_image(tmp_path / "x.png")
    (tmp_path / "metadata.csv").write_text(content)
    if message is None:
        assert opened(tmp_path).samples[-1].key == "z"
        return
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    "line", ['{"file_name": "a.png", "bbox": [1, NaN, 2, 3]}', "[" * 100_000, '{"file_name": null}']
)
def test_errors_in_json_lines(tmp_path: Path, line: str) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "metadata.jsonl", '{"file_name": "a.png", "score": NaN}', "", line)
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:3: "):
        opened(tmp_path)


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_parquet_keeps_its_schema(tmp_path: Path) -> None:
    root = tmp_path / "in"
    make_image(root / "train/a.png")
    rows = [
        {
            "file_name": "a.png",
            "width": 48,
            "objects": {"bbox": [[8, 6, 24, 20]], "area": [480], "mask": ["x"]},
            "m": [1.5],
        }
    ]
    source = parquet(root / "train/metadata.parquet", [*rows, {**rows[0], "file_name": "gone.png"}])
    dataset = opened(root)
    assert [(s.key, s.boxes.tolist()) for s in dataset.samples] == [
        ("train/a.png", [[8, 6, 32, 26]]),
        ("train/gone.png", [[8, 6, 32, 26]]),
    ]
    assert dataset.notes(cropped=False) == ()
    assert "train/metadata.parquet (objects.mask)" in dataset.notes(cropped=True)[0]
    here = {key: p for key, p in cropped(dataset).items() if "gone" not in key}
    dataset.write_annotations(tmp_path / "out", here)
    table = pq.read_table(tmp_path / "out/train/metadata.parquet")
    assert table.schema.names == pq.read_table(source).schema.names
    assert table.schema.field("width").type == pa.int64()
    (row,) = table.to_pylist()
    assert row["width"] == 28
    assert {k: v for k, v in row["objects"].items() if v is not None} == {"bbox": [[2, 2, 24, 20]], "area": [480]}
    assert opened(tmp_path / "out").samples[0].boxes.tolist() == MOVED


def test_parquet_takes_fractions_and_other_suffixes(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    parquet(tmp_path / "metadata.parquet", [{"file_name": "a.png", "cx": 20, "cy": 16, "w": 24, "h": 20}])
    place = {"a.png": ImagePlacement("a.webp", (9, 4), Size(24, 28), STORED)}
    rewrite_table(tmp_path, "metadata.parquet", Target(tmp_path, "out/metadata.parquet"), place)
    (row,) = pq.read_table(tmp_path / "out/metadata.parquet").to_pylist()
    assert row == {"file_name": "a.webp", "cx": 11.5, "cy": 12, "w": 23, "h": 20}


def test_parquet_needs_its_extra_and_names_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image(tmp_path / "a.png")
    path = parquet(tmp_path / "metadata.parquet", [{"file_name": "a.png"}])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(
            MissingExtraError, match=r"metadata\.parquet needs the package pyarrow of the extra 'parquet'"
        ):
            opened(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=r"metadata\.parquet: not Parquet, or damaged"):
        opened(tmp_path)


def test_rows_with_several_images(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for key in ("a.png", "b.jpg", "c.png", "d.jpg", "e.png", "f.png"):
        make_image(root / key)
    lines: list[dict[str, Any]] = [
        {"left_file_name": "a.png", "right_file_name": "b.jpg", "frames_file_names": ["e.png", "f.png"]},
        {"left_file_name": "c.png", "right_file_name": "d.jpg", "frames_file_names": []},
    ]
    text(root / "metadata.jsonl", *map(json.dumps, lines))
    dataset = opened(root)
    assert len(dataset.samples) == 6
    dataset.write_annotations(tmp_path / "out", placements(dataset, suffix=".webp", without=("d.jpg",)))
    (line,) = (tmp_path / "out/metadata.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "left_file_name": "a.webp",
        "right_file_name": "b.webp",
        "frames_file_names": ["e.webp", "f.webp"],
    }
    text(root / "metadata.jsonl", json.dumps({**lines[0], "bbox": [1, 2, 3, 4]}))
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:1: .*do not tell whose"):
        opened(root)


def test_an_image_in_several_rows_and_tables_has_each_box_once(tmp_path: Path) -> None:
    make_image(tmp_path / "train/a.png")
    text(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax,class", *["train/a.png,8,6,32,26,cat"] * 2)
    row = {"file_name": "./a.png", "objects": [{"bbox": [8, 6, 24, 20]}, {"bbox": [1, 2, 3, 4]}]}
    text(tmp_path / "train/metadata.jsonl", json.dumps(row))
    (sample,) = opened(tmp_path).samples
    assert sample.boxes.tolist() == [[8, 6, 32, 26], [1, 2, 4, 6]]


def test_the_inverted_box_of_the_second_row_is_named(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "boxes.csv", "path,x0,y0,x1,y1", "a.png,1,2,3,4", "a.png,9,2,3,4")
    with pytest.raises(DatasetError, match=r"boxes\.csv:3: expected a box"):
        opened(tmp_path)


@pytest.mark.parametrize("table", ["metadata.csv", "train/cat/metadata.csv", "Metadata.CSV"])
def test_tables_are_read_wherever_the_loader_reads_them(tmp_path: Path, table: str) -> None:
    make_image(tmp_path / "train/cat/a.png")
    name = "a.png" if "/" in table else "train/cat/a.png"
    text(tmp_path / table, "file_name,bbox", f'{name},"[8, 6, 24, 20]"')
    dataset = opened(tmp_path)
    assert [s.boxes.tolist() for s in dataset.samples] == [[list(SUBJECT)]]
    assert dataset.passed_over == 0
    assert [path.name for path in dataset.write_annotations(tmp_path / "out", cropped(dataset))] == [Path(table).name]


def test_unicode_forms_and_backslashes_in_lists_find_their_files(tmp_path: Path) -> None:
    root = tmp_path / "in"
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    make_image(root / apart / f"{apart}.png")
    make_image(root / "dog/b.png")
    lines = (f"{composed}/{composed}.png,8,6,32,26", "dog\\b.png,8,6,32,26")
    text(root / "boxes.csv", "path,x0,y0,x1,y1", *lines)
    dataset = opened(root)
    assert sorted(s.key for s in dataset.samples) == sorted((f"{apart}/{apart}.png", "dog/b.png"))
    assert all(len(s.boxes) == 1 for s in dataset.samples)
    dataset.write_annotations(tmp_path / "out", placements(dataset, size=STORED))
    rows = read_table(tmp_path / "out", "boxes.csv")
    assert [row.fields["path"] for row in rows] == [f"{apart}/{apart}.png", "dog/b.png"]
    # Two files that differ in nothing else: each name means its own.
    make_image(root / composed / f"{composed}.png")
    assert [len(s.boxes) for s in opened(root).samples] == ([1, 0, 1] if composed < apart else [0, 1, 1])
    assert Keys((composed, apart)).find("Cafe") == "Cafe"


def test_sizes_are_those_of_images_that_were_turned(tmp_path: Path) -> None:
    lines = (
        {"file_name": "a.png", "width": 36, "height": 48, "bbox": [8, 6, 24, 20]},
        {"file_name": "b.png", "width": 48, "height": 36, "bbox": None},
    )
    make_image(tmp_path / "a.png")
    text(tmp_path / "metadata.jsonl", *map(json.dumps, lines))
    dataset = opened(tmp_path)
    dataset.write_annotations(tmp_path / "out", placements(dataset))
    twin = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert twin == [{**lines[0], "width": 48, "height": 36}, lines[1]]
    # Not declared by these columns: they are the box's.
    source = text(
        tmp_path / "metadata.jsonl", json.dumps({"file_name": "a.png", "x": 8, "y": 6, "width": 24, "height": 20})
    )
    dataset = opened(tmp_path)
    dataset.write_annotations(tmp_path / "out", placements(dataset))
    assert (tmp_path / "out/metadata.jsonl").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("boxes", "corners"),
    [
        ([[40, 30, 90, 70], [5, 5, 60, 40]], True),
        ([[40, 30, 90, 70], [50, 30, 40, 40]], False),
        ([[40, 30, 40, 40]], False),
        ([[90, 70, 40, 40]], False),
    ],
)
def test_corners_called_bbox_are_refused_where_the_sizes_tell(boxes: list[Any], corners: bool, tmp_path: Path) -> None:
    lines = [{"file_name": f"{n}.png", "width": 100, "height": 80, "bbox": box} for n, box in enumerate(boxes)]
    text(tmp_path / "metadata.jsonl", *map(json.dumps, lines))
    if not corners:
        assert len(opened(tmp_path).samples) == len(boxes)
        return
    with pytest.raises(
        DatasetError, match=r"metadata\.jsonl:1: boxes leave their images as .* add a column bbox_format"
    ):
        opened(tmp_path)
    text(tmp_path / "metadata.jsonl", *(json.dumps({**line, "bbox_format": "xyxy"}) for line in lines))
    assert opened(tmp_path).samples[0].boxes.tolist() == boxes[:1]


def corners_called_bbox(root: Path, boxes: list[list[int]], turned: bool = False) -> list[str]:
    """Images of 48x36 pixels, or 36x48 with an EXIF orientation, and a list that does not declare their sizes."""
    lines = []
    for n, box in enumerate(boxes):
        image = pillow.new("RGB", (36, 48) if turned else (48, 36))
        exif = pillow.Exif()
        exif[274] = 6 if turned else 1
        image.save(root / f"{n}.jpg", exif=exif)
        lines.append(json.dumps({"file_name": f"{n}.jpg", "bbox": box}))
    text(root / "metadata.jsonl", *lines)
    return lines


@pytest.mark.parametrize("turned", [False, True])
def test_corners_called_bbox_are_refused_where_only_the_files_know_their_sizes(turned: bool, tmp_path: Path) -> None:
    corners_called_bbox(tmp_path, [[2, 2, 40, 30], [24, 15, 44, 35]], turned)
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:2: boxes leave their images as .* bbox_xyxy or"):
        opened(tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"no image")  # nothing shows that a box leaves its image
    assert len(opened(tmp_path).samples) == 2


@pytest.mark.parametrize("boxes", [[[24, 15, 44, 35], [24, 15, 20, 10]], [[2, 2, 44, 33]], [[24, 15, 60, 50]]])
def test_boxes_of_coco_are_kept_where_they_cannot_be_corners(boxes: list[list[int]], tmp_path: Path) -> None:
    corners_called_bbox(tmp_path, boxes)
    assert len(opened(tmp_path).samples) == len(boxes)
