"""What stands before the header of a CSV file, and numbers with decimal commas."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import make_image, placements

from fgfast.datasets.folder import Folder
from fgfast.errors import DatasetError
from fgfast.records import Size


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "before",
    [
        *([], ["sep=;"], ["SEP=;", ""], ["# made by x, y; z"], ["# a", "", "#b;c;d;e;f", "# c"], ["sep=;", "# two"]),
    ],
)
def test_lines_before_the_header_are_no_header_and_stay(before: list[str], ending: str, tmp_path: Path) -> None:
    root = tmp_path / "in"
    make_image(root / "a.png")
    lines = [*before, "path;x0;y0;x1;y1", "a.png;8;6;32;26"]
    (root / "boxes.csv").write_bytes("".join(line + ending for line in lines).encode())
    dataset = Folder.open(root)
    assert dataset.samples[0].boxes.tolist() == [[8, 6, 32, 26]]
    dataset.write_annotations(tmp_path / "out", placements(dataset, (6, 4), Size(24, 28)))
    written = (tmp_path / "out/boxes.csv").read_bytes().decode()
    assert written == "".join(line + ending for line in [*lines[:-1], "a.png;2.0;2.0;26.0;22.0"])


def test_errors_count_the_lines_before_the_header(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("# one\n\nsep=;\npath;x0;y0;x1;y1\na.png;8;6;32;26\na.png;8;6\n")
    with pytest.raises(DatasetError, match=r"boxes\.csv:6: expected 5 columns"):
        Folder.open(tmp_path)


def test_a_header_that_begins_with_a_hash_is_the_header(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("# comment\n#path,x0,y0,x1,y1\na.png,8,6,32,26\n")
    assert Folder.open(tmp_path).samples[0].boxes.tolist() == [[8, 6, 32, 26]]


def test_decimal_commas_are_named(tmp_path: Path) -> None:
    make_image(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("path;x0;y0;x1;y1\na.png;8,5;6;32;26\n")
    with pytest.raises(DatasetError, match=r"boxes\.csv:2: expected a number, got '8,5'; write decimals with a point"):
        Folder.open(tmp_path)
