"""What strangers found in folders with annotations, rebuilt: each case with its right value, from disk to disk.

The same cases as files lie in ../shared/cases; where they are, the last test runs them all.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import fgfast as command
from PIL import Image as pillow

import fgfast
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.io.ledger import Ledger
from fgfast.pipeline.run import Report

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
RED = (220, 30, 30)


def drawn(path: Path, size: tuple[int, int], red: tuple[int, int, int, int]) -> Path:
    """Write grey noise with one red rectangle."""
    pixels = np.random.default_rng(1).integers(84, 97, (size[1], size[0], 1), np.uint8).repeat(3, 2)
    pixels[red[1] : red[3], red[0] : red[2]] = RED
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(pixels).save(path)
    return path


def converted(root: Path, out: Path, selection: Selection | None = None, **settings: Any) -> Report:
    return fgfast.convert(root, out, settings=Settings(segmenter="box", **settings), selection=selection)


def reasons(report: Report) -> dict[str, tuple[str, ...]]:
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        return {outcome.key: outcome.reasons for outcome in ledger.outcomes()}


def hugging_face(root: Path, objects: str) -> Path:
    drawn(root / "train/0.png", (100, 80), (50, 30, 90, 70))
    with (root / "train/metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "objects"), ("0.png", objects)])
    return root


@pytest.mark.parametrize(
    "objects",
    [
        "{'bbox': [[50.0, 30.0, 40.0, 40.0]], 'categories': [0]}",
        "{'bbox': array([[50., 30., 40., 40.]]), 'categories': array([0])}",
        "[{'bbox': [50, 30, 40, 40], 'category': 'cat', 'score': nan}]",
        '{"bbox": [[50, 30, 40, 40]], "categories": [0]}',
    ],
)
def test_objects_as_pandas_writes_them_move_with_the_crop(objects: str, tmp_path: Path) -> None:
    report = converted(hugging_face(tmp_path / "in", objects), tmp_path / "out", crop="box", pad=0.1)
    with pillow.open(report.twin / "train/0.png") as image:
        assert image.size == (48, 48)
        assert [image.getpixel(at) for at in ((4, 4), (43, 43), (3, 3), (44, 44))] == [RED, RED, (0, 0, 0), (0, 0, 0)]
    (sample,) = open_dataset("folder", report.twin).samples
    assert sample.boxes.tolist() == [[4, 4, 44, 44]]


def test_objects_that_are_not_understood_are_refused_with_their_line(tmp_path: Path) -> None:
    root = hugging_face(tmp_path / "in", "{'bbox': [[50.0, 30.0")
    done = command("convert", "--dataset", str(root), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "train/metadata.csv:2: objects cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def stale(root: Path) -> Path:
    drawn(root / "train/0.png", (100, 80), (50, 30, 90, 70))
    objects = {"bbox": [[50, 30, 40, 40], [0, 0, 10, 10]], "category": [0, 1], "area": [1600, 100], "depth": [[1], [2]]}
    row = {"file_name": "0.png", "width": 100, "height": 80, "objects": objects, "mask": [[0, 1], [1, 0]]}
    (root / "train/metadata.jsonl").write_text(json.dumps(row) + "\n")
    return root


def test_width_height_and_areas_are_those_of_the_twin(tmp_path: Path) -> None:
    report = converted(stale(tmp_path / "in"), tmp_path / "out", crop="box", pad=0.1)
    row = json.loads((report.twin / "train/metadata.jsonl").read_text())
    assert (row["width"], row["height"], row["objects"]["area"]) == (48, 48, [1600, 0])
    assert row["objects"]["bbox"] == [[4, 4, 40, 40], [0, 0, 0, 0]]
    assert "mask" not in row
    said = "columns that cannot follow a crop are left out of the twin: train/metadata.jsonl (mask)"
    assert said in json.loads((report.out / "fgfast/run.json").read_text())["choices"]
    # Without a crop all of it still holds.
    whole = converted(tmp_path / "in", tmp_path / "whole")
    written = (whole.twin / "train/metadata.jsonl").read_bytes()
    assert written == (tmp_path / "in/train/metadata.jsonl").read_bytes()


def test_a_box_does_not_cover_padding(tmp_path: Path) -> None:
    root = tmp_path / "in"
    drawn(root / "a.png", (64, 48), (40, 30, 64, 48))
    (root / "boxes.csv").write_text("path,x0,y0,x1,y1\na.png,40,30,70,60\n")
    report = converted(root, tmp_path / "out", crop="square", pad=1.0, background="255,0,255")
    with pillow.open(report.twin / "a.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (72, 72, 3)
    rows, columns = np.nonzero((pixels == RED).all(axis=2))
    (sample,) = open_dataset("folder", report.twin).samples
    x0, y0, x1, y1 = sample.boxes[0].tolist()
    assert (x0, y0, x1, y1) == (40, 30, 64, 48)
    assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_an_empty_class_of_one_split_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for key in ("train/ant", "train/bee", "train/cat", "val/ant", "val/cat"):
        drawn(root / key / "0.png", (40, 30), (5, 5, 20, 20))
    (root / "val/bee").mkdir()
    (root / "val/cat/0.png").write_bytes(b"\x89PNG\r\n")  # its only image fails
    report = converted(root, tmp_path / "out")
    assert report.counts["failed"] == 1
    assert sorted(path.name for path in (report.twin / "val").iterdir()) == ["ant", "bee", "cat"]
    assert open_dataset("folder", report.twin).classes == ("ant", "bee", "cat")
    again = converted(root, tmp_path / "val", Selection(splits=("val",)))
    assert sorted(path.name for path in (again.twin / "val").iterdir()) == ["ant", "bee", "cat"]


def test_a_listed_file_that_is_not_read_fails_by_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    drawn(root / "k/a.jpg", (40, 30), (5, 5, 20, 20))
    (root / "k/b.psd").write_bytes(b"8BPS" + bytes(60))
    (root / "k/c.psd").write_bytes(b"8BPS" + bytes(60))
    (root / "metadata.csv").write_text("file_name,label\nk/b.psd,0\nk/a.jpg,1\n")
    done = command("convert", "--dataset", str(root), "--out", str(tmp_path / "out"), "--segmenter", "box", "--json")
    assert done.returncode == 3
    counts = json.loads(done.stdout)
    assert counts["counts"]["failed"] == 1
    assert counts["failures"] == {"unsupported": 1}
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite") as ledger:
        assert [(o.key, o.reasons) for o in ledger.outcomes(("failed",))] == [("k/b.psd", ("unsupported",))]
    plan = command("convert", "--dataset", str(root), "--out", str(tmp_path / "new"), "--dry-run")
    assert "1 file is passed over, neither images by their suffix nor lists of boxes: k/c.psd" in plan.stdout


def test_a_class_called_train_beside_classes(tmp_path: Path) -> None:
    for name in ("bicycle", "bus", "train"):
        drawn(tmp_path / "in" / name / "0.png", (40, 30), (5, 5, 20, 20))
    report = converted(tmp_path / "in", tmp_path / "out", Selection(classes=("train",)))
    assert report.total == report.counts["done"] == 1
    categories = json.loads((report.out / "fgfast/instances.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["bicycle", "bus", "train"]


def test_names_in_lists_are_found_in_other_spellings(tmp_path: Path) -> None:
    root, name = tmp_path / "in", unicodedata.normalize("NFD", "Café_1.png")
    drawn(root / "k" / name, (64, 48), (40, 5, 60, 25))
    (root / "boxes.csv").write_text(f"path,x0,y0,x1,y1\nk\\{unicodedata.normalize('NFC', name)},40,5,60,25\n")
    report = converted(root, tmp_path / "out", format="webp")
    assert report.counts == {"done": 1, "flagged": 0, "skipped": 0, "failed": 0}
    row = (report.twin / "boxes.csv").read_text().splitlines()[1]
    assert row == f"k/{name.removesuffix('.png')}.webp,40,5,60,25"
    assert (report.twin / row.split(",")[0]).is_file()


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}")
class TestSharedCases:
    """The cases as they were filed."""

    def test_01_and_03(self, tmp_path: Path) -> None:
        for case in ("01-objects-python-repr", "03-stale-width-height-area"):
            report = converted(CASES / case, tmp_path / case, crop="box", pad=0.1)
            for sample in open_dataset("folder", report.twin).samples:
                assert sample.boxes.tolist() == [[4, 4, 44, 44]]
                with pillow.open(sample.path) as image:
                    assert image.size == (48, 48)
        for line in (report.twin / "train/metadata.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert (row["width"], row["height"], row["objects"]["area"]) == (48, 48, [1600, 0])

    def test_05(self, tmp_path: Path) -> None:
        report = converted(CASES / "05-box-in-padding", tmp_path / "o", crop="square", pad=1.0, background="255,0,255")
        (sample,) = open_dataset("folder", report.twin).samples
        assert sample.boxes.tolist() == [[40, 30, 64, 48]]

    def test_08(self, tmp_path: Path) -> None:
        report = converted(CASES / "08-coco-class-called-unlabelled", tmp_path / "o")
        coco = json.loads((report.out / "fgfast/instances.json").read_text())
        assert [(c["id"], c["name"]) for c in coco["categories"]] == [
            (1, "cat"),
            (2, "unlabelled"),
            (3, "unlabelled (no class)"),
        ]
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        for annotation in coco["annotations"]:
            folder = names[annotation["image_id"]].rpartition("/")[0]
            assert annotation["category_id"] == {"cat": 1, "unlabelled": 2, "": 3}[folder]

    def test_09(self, tmp_path: Path) -> None:
        report = converted(CASES / "09-empty-val-class", tmp_path / "o")
        assert (report.twin / "val/bee").is_dir()

    def test_10(self, tmp_path: Path) -> None:
        report = converted(CASES / "10-heic-listed-and-dropped", tmp_path / "o")
        failed = {key: why for key, why in reasons(report).items() if why}
        assert failed.keys() >= {"k/IMG_0001.HEIC"}
        assert report.counts["done"] == 4

    def test_11(self, tmp_path: Path) -> None:
        dataset = open_dataset("folder", CASES / "11-class-called-train")
        assert dataset.classes == ("bicycle", "bus", "train")
        report = converted(CASES / "11-class-called-train", tmp_path / "o", Selection(classes=("train",)))
        assert report.counts["done"] == 2

    @pytest.mark.parametrize("case", ["13-csv-cell-over-128k", "19-backslash", "20-nfd-nfc"])
    def test_13_19_20(self, case: str, tmp_path: Path) -> None:
        report = converted(CASES / case, tmp_path / "o")
        assert report.counts == {"done": 1, "flagged": 0, "skipped": 0, "failed": 0}
