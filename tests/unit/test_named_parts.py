"""Annotated parts with their names: CUB's, and CUB's beside Waterbirds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import SHARED, cub, text

from fgfast.datasets import open_dataset
from fgfast.errors import DatasetError

AUK = "images/001.Auk/Auk_0001_10.jpg"


def test_the_parts_of_cub_have_names_and_places(tmp_path: Path) -> None:
    parts = open_dataset("cub", cub(tmp_path)).parts()
    assert parts is not None and parts.names == ("back", "left wing")
    assert len(parts.points) == 4
    assert parts.points[AUK].tolist() == [[10, 8, 1], [0, 0, 0]] and parts.points[AUK].dtype == np.float32


def test_a_data_set_without_parts_has_none(tmp_path: Path) -> None:
    root = cub(tmp_path)
    (root / "parts/part_locs.txt").unlink()
    assert open_dataset("cub", root).parts() is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1 3 1.0 1.0 1", "not in parts.txt"),
        ("1 1 1.0 1.0 2", "visible 1 or 0"),
        ("1 1 1.0 1.0 1", "listed twice"),
        ("1 2 nan 1.0 1", "finite"),
        ("1 1 1.0", "expected"),
    ],
)
def test_a_line_that_is_not_understood_is_named(tmp_path: Path, line: str, problem: str) -> None:
    root = cub(tmp_path)
    dataset = open_dataset("cub", root)
    text(root / "parts/part_locs.txt", "1 1 10.0 8.0 1", line)
    with pytest.raises(DatasetError, match=rf"part_locs\.txt:2: .*{problem}"):
        dataset.parts()


def test_two_parts_of_one_name_are_an_error(tmp_path: Path) -> None:
    root = cub(tmp_path)
    text(root / "parts/parts.txt", "1 back", "2 back")
    with pytest.raises(DatasetError, match="same name"):
        open_dataset("cub", root).parts()


def test_waterbirds_has_the_parts_of_cub_beside_it(tmp_path: Path) -> None:
    cub(tmp_path)
    root = tmp_path / "waterbirds"
    text(
        root / "metadata.csv",
        "img_id,img_filename,y,split,place,place_filename",
        "1,001.Auk/Auk_0001_10.jpg,1,0,1,/o/ocean/1.jpg",
    )
    parts = open_dataset("waterbirds", root).parts()
    assert parts is not None and list(parts.points) == ["001.Auk/Auk_0001_10.jpg"]


def test_the_real_parts_are_the_keypoints(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the photographs beside the repository are absent")
    dataset = open_dataset("cub", SHARED / "CUB_200_2011")
    parts = dataset.parts()
    assert parts is not None and len(parts.names) == 15 and parts.names[1] == "beak"
    for sample in dataset.samples:
        points = parts.points[sample.key]
        np.testing.assert_array_equal(points[points[:, 2] > 0, :2], sample.keypoints)
