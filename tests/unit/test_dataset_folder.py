"""Folders of images and their lists of boxes."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import layouts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import HEIGHT, WIDTH, make_image, placements, text

from fgfast.config import Selection
from fgfast.datasets.box_tables import read_table, rewrite_table
from fgfast.datasets.folder import Folder
from fgfast.datasets.layout import ImagePlacement
from fgfast.errors import DatasetError, UsageError
from fgfast.image_formats import suffixes
from fgfast.pipeline.plan import select
from fgfast.records import Size
from fgfast.writing import Target


def test_reading(tmp_path: Path) -> None:
    dataset = Folder.open(layouts.folder(tmp_path))
    assert [(s.key, s.label, s.split) for s in dataset.samples] == [
        ("Validation/cat/c.jpg", "cat", "val"),
        ("test/dog/d.jpg", "dog", "test"),
        ("train/cat/a.jpg", "cat", "train"),
        ("train/dog/b.png", "dog", "train"),
    ]
    assert (dataset.folder, dataset.classes, dataset.passed_over) == ("images", ("cat", "dog"), 1)
    assert dataset.samples[1].boxes.tolist() == [[8.5, 6, 32, 26]]
    assert dataset.turn_exif


def test_flat_and_class_folders(tmp_path: Path) -> None:
    for key in ("a.JPG", "cat/b.webp", "cat/more/c.gif", "training/d.bmp"):
        text(tmp_path / key, "")
    found = [(s.key, s.label, s.split) for s in Folder.open(tmp_path).samples]
    assert found == [
        ("a.JPG", "", ""),
        ("cat/b.webp", "cat", ""),
        ("cat/more/c.gif", "cat", ""),
        ("training/d.bmp", "training", ""),
    ]


def tree(root: Path, *keys: str) -> Path:
    for key in keys:
        if key.endswith("/"):
            (root / key).mkdir(parents=True)
        else:
            make_image(root / key)
    return root


def classes_and_splits(root: Path) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    dataset = Folder.open(root)
    return dataset.classes, [(s.label, s.split) for s in dataset.samples]


def test_a_class_with_the_name_of_a_split_is_a_class_beside_classes(tmp_path: Path) -> None:
    root = tree(tmp_path, "bicycle/0.png", "bus/0.png", "Train/0.png", "Train/1.png", "a.png")
    labels = [("Train", ""), ("Train", ""), ("", ""), ("bicycle", ""), ("bus", "")]
    assert classes_and_splits(root) == (("Train", "bicycle", "bus"), labels)
    assert "the folder Train is a class like bicycle, bus beside it, not a split" in Folder.open(root).notes(False)


@pytest.mark.parametrize(
    ("keys", "split"),
    [
        (("train/cat/a.png", "VAL/cat/b.png"), True),
        (("train/a.png",), True),
        (("train/cat/a.png", "docs/readme.txt/", "extra/"), True),
        (("train/cat/a.png", "extra/b.png"), None),
        (("train/a.png", "test/b.png", "extra/b.png"), None),
        (("Training/cat/a.png", "TESTING/cat/b.png"), True),
        (("train/cat/a.png", "dev/cat/b.png", "eval/cat/b.png"), True),
        (("trainees/cat/a.png", "tests/cat/b.png"), False),
    ],
)
def test_splits_are_splits_where_nothing_else_is_beside_them(
    keys: tuple[str, ...], split: bool | None, tmp_path: Path
) -> None:
    root = tree(tmp_path, *keys)
    if split is None:
        with pytest.raises(DatasetError, match="have names of splits, unlike extra beside them: put every image into"):
            Folder.open(root)
        return
    assert [bool(s.split) for s in Folder.open(root).samples] == [split] * sum(key.endswith("png") for key in keys)


def test_classes_are_those_of_the_tree(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "in", "train/ant/0.png", "train/bee/0.png", "train/cat/0.png", "val/ant/0.png", "val/cat/0.png"
    )
    tree(root, "val/bee/", "val/dog/", "val/cat/empty/")
    text(root / "val/dog/.gitkeep", "")
    text(root / "train/eel/0.heic", "")  # a format that is not read, or an image that fails
    text(root / "train/fly/readme.txt", "")
    assert Folder.open(root).classes == ("ant", "bee", "cat", "dog", "eel")
    dataset = Folder.open(root)
    dataset.write_annotations(tmp_path / "out", placements(dataset))
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*")}
    assert found == {s.key.rpartition("/")[0] for s in dataset.samples} | {"train/eel", "val/bee", "val/dog"}


def test_a_first_level_class_without_images_keeps_its_number(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "ant/0.png", "bee/", "cat/0.png")
    dataset = Folder.open(root)
    assert dataset.classes == ("ant", "bee", "cat")
    dataset.write_annotations(tmp_path / "out", placements(dataset, without=("ant/0.png", "cat/0.png")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ant", "bee", "cat"]


def test_a_split_without_images_keeps_its_classes(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "train/ant/0.png", "train/bee/0.png", "val/ant/", "val/bee/")
    text(root / "val/bee/Thumbs.db", "")
    dataset = Folder.open(root)
    assert dataset.classes == ("ant", "bee")
    dataset.write_annotations(tmp_path / "out", placements(dataset))
    assert sorted(path.name for path in (tmp_path / "out/val").iterdir()) == ["ant", "bee"]


def test_classes_are_selected_in_any_unicode_form(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    dataset = Folder.open(tree(tmp_path, f"{apart}/0.png", "bar/0.png"))
    for asked in (composed, apart, f"bar, {composed}"):
        chosen = select(dataset, Selection(classes=(asked,)), frozenset())
        assert {dataset.samples[n].label for n in chosen} == {apart} | ({"bar"} if "bar" in asked else set())


def test_a_folder_reached_by_a_link_has_the_link_s_name(tmp_path: Path) -> None:
    tree(tmp_path / "store/8f3a", "cat/0.png")
    (tmp_path / "birds").symlink_to(tmp_path / "store/8f3a")
    (tmp_path / "store/8f3a/dog").symlink_to(tmp_path / "store/8f3a/cat")
    dataset = Folder.open(tmp_path / "birds")
    assert dataset.folder == "birds"
    assert [(s.key, s.label) for s in dataset.samples] == [("cat/0.png", "cat"), ("dog/0.png", "dog")]


@pytest.mark.skipif("heic" in " ".join(suffixes()), reason="a plugin of Pillow for HEIF is installed")
def test_files_that_are_passed_over_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.png")
    for name in ("a.txt", "a.xml", "notes.md", "z.heic", *(f"n{i}.md" for i in range(5))):
        text(tmp_path / "cat" / name, "")
    notes = Folder.open(tmp_path).notes(False)
    assert notes[0].startswith("9 files are passed over, ")
    assert notes[0].endswith(": cat/a.txt, cat/a.xml, cat/n0.md, cat/n1.md, cat/n2.md, ...")
    assert notes[1].startswith(
        "2 files are not read, though annotations may be in them (cat/a.txt, cat/a.xml): boxes are"
    )
    assert notes[2:] == (
        "1 of the files passed over: HEIF images are read once a plugin of Pillow is there: pip install pillow-heif",
    )


def test_a_listed_file_of_an_unread_suffix_is_a_sample(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    for name in ("b.HEIC", "c.psd", "d"):
        text(tmp_path / name, "")
    text(tmp_path / "metadata.csv", "file_name", "b.HEIC", "c.psd", "d")
    dataset = Folder.open(tmp_path)
    assert [s.key for s in dataset.samples] == ["a.png", "b.HEIC", "c.psd", "d"]
    assert dataset.passed_over == 0


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make_image(tmp_path / "elsewhere/x.png")
    root = tmp_path / "root"
    make_image(root / "cat/a.png")
    (root / "cat/loop").symlink_to(root)
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cat/gone.png").symlink_to(tmp_path / "gone.png")
    assert [s.key for s in Folder.open(root, follow_links=True).samples] == ["cat/a.png", "cat/gone.png", "dog/x.png"]
    with pytest.raises(DatasetError, match=r"the link dog leads out of the data set, to a folder; .* --follow-links"):
        Folder.open(root)


def test_names_that_cannot_be_keys_are_counted(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "b\\c.png", "")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    dataset = Folder.open(tmp_path)
    assert [s.key for s in dataset.samples] == ["a.png"]
    assert dataset.passed_over == 2
    (note,) = dataset.notes(False)
    assert note.startswith("2 files are passed over for the name: b\\c.png, ")
    assert note.endswith("; names with a backslash, or not in UTF-8, are not taken; rename them")
    assert "suffix" not in note
    assert all(note.isprintable() for note in dataset.notes(False))


def test_splits_have_the_names_of_fgfast(tmp_path: Path) -> None:
    root = tree(tmp_path, *(f"{name}/cat/a.png" for name in ("Training", "TESTING", "Dev", "valid")))
    assert [(s.key.partition("/")[0], s.split) for s in Folder.open(root).samples] == [
        ("Dev", "val"),
        ("TESTING", "test"),
        ("Training", "train"),
        ("valid", "val"),
    ]


@pytest.mark.parametrize("column", ["split", "Label", "class_name"])
def test_columns_of_classes_and_splits_are_remarked_where_no_folder_tells_them(column: str, tmp_path: Path) -> None:
    make_image(tmp_path / "in/a.png")
    table = text(tmp_path / "in/metadata.csv", f"file_name,{column},note", "a.png,train,x")
    (note,) = Folder.open(tmp_path / "in").notes(False)
    assert note == (
        f"columns are not used for classes or splits, which are those of folders alone: metadata.csv ({column})"
    )
    make_image(tmp_path / "in/train/cat/a.png")
    assert Folder.open(tmp_path / "in").notes(False) == ()
    table.write_text("file_name,note\na.png,x\n")
    assert Folder.open(tmp_path / "in").notes(False) == ()


def line_of(root: Path, files: tuple[str, ...], tables: dict[str, str]) -> str:
    tree(root, *files)
    for table, name in tables.items():
        row = json.dumps({"file_name": name}) if table.endswith("jsonl") else f"file_name\n{name}"
        text(root / table, row)
    dataset = Folder.open(root)
    return dataset.load_line(Path("/out/in"), placements(dataset))


def test_the_line_is_one_that_loads_where_imagefolder_raises(tmp_path: Path) -> None:
    classes, flat = ("train/cat/a.png", "val/cat/b.png"), ("train/a.png", "test/b.png")
    one, two = {"train/metadata.jsonl": "cat/a.png"}, {"train/metadata.jsonl": "a.png", "test/metadata.csv": "b.png"}
    both = {**one, "val/metadata.jsonl": "cat/b.png"}
    assert "ImageFolder('/out/in/train')" in line_of(tmp_path / "1", classes, one)
    assert "load_dataset('imagefolder', data_dir='/out/in')" in line_of(tmp_path / "2", classes, both)
    for root, tables in (("3", two), ("4", {"train/metadata.jsonl": "a.png"})):
        line = line_of(tmp_path / root, flat, tables)
        assert "open_dataset('/out/in')  # imagefolder refuses " in line
        assert line.endswith(", as in the data set")


def test_an_empty_folder_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    text(tmp_path / "jpg", "")
    with pytest.raises(UsageError, match=r"no image in .*\.jpg.*1 file is passed over.*: jpg"):
        Folder.open(tmp_path)


def test_listed_images_that_are_not_there_are_samples(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "boxes.csv", "path,x0,y0,x1,y1", "b.png,0,0,5,5", "b.png,1,1,6,6")
    assert [(s.key, len(s.boxes)) for s in Folder.open(tmp_path).samples] == [("a.png", 0), ("b.png", 2)]


def test_class_folders_stay_though_all_their_images_failed(tmp_path: Path) -> None:
    dataset = Folder.open(layouts.folder(tmp_path))
    dataset.write_annotations(tmp_path / "out", placements(dataset, without=("train/cat/a.jpg",)))
    assert (tmp_path / "out/train/cat").is_dir()
    assert (tmp_path / "out/boxes.csv").read_text() == "path,x0,y0,x1,y1\ntest/dog/d.jpg,8.5,6,32,26\n"


SHAPES: dict[str, dict[str, Any]] = {
    "one": {"bbox": [8, 6, 24, 20]},
    "many": {"bbox": [[8, 6, 24, 20], [0, 0, 2, 2]], "text": "ä"},
    "objects": {"objects": {"bbox": [[8, 6, 24, 20]], "categories": [3]}},
    "corners": {"x0": 8, "y0": 6, "x1": 32, "y1": 26},
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_hugging_face_lines(tmp_path: Path, shape: str) -> None:
    root = tmp_path / "in"
    make_image(root / "train/cat/a.png")
    lines: list[dict[str, Any]] = [{"file_name": "cat/a.png", **SHAPES[shape]}, {"file_name": "cat/b.png"}]
    text(root / "train/metadata.jsonl", *(json.dumps(line, ensure_ascii=False) for line in lines))
    dataset = Folder.open(root)
    assert [s.key for s in dataset.samples] == ["train/cat/a.png", "train/cat/b.png"]
    assert dataset.samples[0].boxes[0].tolist() == [8, 6, 32, 26]
    assert len(dataset.samples[1].boxes) == 0

    key = "train/cat/a.png"
    moved = {key: ImagePlacement("train/cat/a.webp", (4, 5), Size(16, 20), Size(HEIGHT, WIDTH))}
    dataset.write_annotations(tmp_path / "out", moved)
    (line,) = (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()
    twin = json.loads(line)
    assert twin["file_name"] == "cat/a.webp"
    assert twin.keys() == lines[0].keys()
    (row,) = read_table(tmp_path / "out", "train/metadata.jsonl")
    assert list(row.boxes) == [(4, 1, 20, 16), (0, 0, 0, 0)][: 2 if shape == "many" else 1]
    if shape == "many":
        assert "ä" in line


def test_hugging_face_columns(tmp_path: Path) -> None:
    root = tmp_path / "in"
    make_image(root / "a.png")
    make_image(root / "b.png")
    text(root / "metadata.csv", "file_name,bbox,note", 'a.png,"[8, 6, 24, 20]","x, y"', "b.png,,z")
    dataset = Folder.open(root)
    assert dataset.samples[0].boxes.tolist() == [[8, 6, 32, 26]]
    dataset.write_annotations(tmp_path / "out", placements(dataset, (4, 5), Size(16, 20)))
    assert (tmp_path / "out/metadata.csv").read_text() == (
        'file_name,bbox,note\na.png,"[4.0, 1.0, 16.0, 15.0]","x, y"\nb.png,,z\n'
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("path,x0,y0,x1", "a.png,1,2,3"), r"boxes\.csv:1: expected a column 'y1'"),
        (("path,x0,y0,x1,y1", "a.png,1,2,3"), r"boxes\.csv:2: expected 5 columns"),
        (("path,x0,y0,x1,y1", "a.png,1,2,three,4"), r"boxes\.csv:2: expected a number, got 'three'"),
        (("path,x0,y0,x1,y1", "a.png,5,2,3,4"), r"boxes\.csv:2: expected a box with x0 <= x1"),
        (("path,x0,y0,x1,y1", "../a.png,1,2,3,4"), r"boxes\.csv:2: expected a path inside"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "boxes.csv", *lines)
    with pytest.raises(DatasetError, match=message):
        Folder.open(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"file_name": 3}', '{"file_name": "a.png", "bbox": [1, 2]}'])
def test_errors_in_json_lines(tmp_path: Path, line: str) -> None:
    make_image(tmp_path / "a.png")
    text(tmp_path / "metadata.jsonl", line)
    with pytest.raises(DatasetError, match=r"metadata\.jsonl:1"):
        Folder.open(tmp_path)


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\r\n:", exclude_categories=("Cs", "Cc")), min_size=1
).filter(lambda name: len(name.encode()) <= 250)  # a file's name has at most 255 bytes


@given(st.lists(names.map(lambda name: f"p{name}.png"), unique=True, min_size=1, max_size=4))
def test_any_name_survives_the_csv(tmp_path_factory: pytest.TempPathFactory, found: list[str]) -> None:
    root = tmp_path_factory.mktemp("root")
    quoted = ['"' + name.replace('"', '""') + '"' for name in found]
    text(root / "boxes.csv", "path,x0,y0,x1,y1", *(f"{name},1,2,3,4" for name in quoted))
    place = {name: ImagePlacement(name, (1, 1), Size(9, 9), Size(10, 10)) for name in found}
    rewrite_table(root, "boxes.csv", Target(root, "out/boxes.csv"), place)
    rows = read_table(root / "out", "boxes.csv")
    assert [(row.key, row.boxes) for row in rows] == [(name, ((0, 1, 2, 3),)) for name in found]
