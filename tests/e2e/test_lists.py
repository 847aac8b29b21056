"""What a run leaves for the person who goes through its doubtful images: lists, a warning, and a rerun without some."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import fgfast
from layouts import HEIGHT, SUBJECT, WIDTH, make_image, text

from fgfast.io.ledger import Ledger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def page(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text(encoding="utf-8"))
    assert found
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight images of two classes: three without a box, two damaged."""
    keys = [f"{label}/{n}, a.png" for label in ("bee", "ant") for n in range(4)]
    lines = ["path,x0,y0,x1,y1"]
    for n, key in enumerate(keys):
        make_image(tmp_path / "photos" / key, n)
        if n not in (1, 4, 6):
            lines.append(f'"{key}",{",".join(map(str, SUBJECT))}')
    for n in (3, 5):
        (tmp_path / "photos" / keys[n]).write_bytes(b"")
    text(tmp_path / "photos" / "boxes.csv", *lines)
    return tmp_path / "photos"


def test_the_lists_are_complete_and_in_order_and_the_end_names_them(photos: Path, tmp_path: Path) -> None:
    done = fgfast("convert", "--dataset", "photos", "--segmenter", "box", "--out", "out", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    ours = tmp_path / "out" / "fgfast"
    with Ledger(ours / "ledger.sqlite") as ledger:
        flagged, failed = list(ledger.outcomes(("flagged",))), list(ledger.outcomes(("failed",)))
    assert [o.key for o in flagged] == [row["key"] for row in rows(ours / "flagged.csv")]
    assert [o.key for o in failed] == [row["key"] for row in rows(ours / "failed.csv")]
    assert (len(flagged), len(failed)) == (3, 2)
    first = rows(ours / "flagged.csv")[0]
    assert (first["reasons"], first["x0"], first["y1"]) == ("no box", f"{WIDTH / 10:g}", f"{HEIGHT * 0.9:g}")
    assert (tmp_path / "out" / "photos" / first["twin"]).is_file()
    assert rows(ours / "failed.csv")[0]["reasons"] == "empty file"
    steps = done.stdout.partition("\nNext:   ")[2]
    assert "the 2 failed images" in steps
    assert str(Path("out", "fgfast", "failed.csv")) in steps
    assert "the 3 flagged images" in steps
    assert str(Path("out", "fgfast", "flagged.csv")) in steps
    assert "Warning: 3 of 8 images have no box" in done.stdout


def test_a_rerun_leaves_out_what_the_lists_name(photos: Path, tmp_path: Path) -> None:
    convert = ("convert", "--dataset", "photos", "--segmenter", "box", "--json")
    fgfast(*convert, "--out", "first", cwd=tmp_path)
    ours = tmp_path / "first" / "fgfast"
    lists = [option for name in ("flagged", "failed") for option in ("--exclude", str(ours / f"{name}.csv"))]
    again = fgfast(*convert, "--out", "second", *lists, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    content = json.loads(again.stdout)
    assert content["counts"] == {"done": 3, "flagged": 0, "skipped": 0, "failed": 0}
    assert content["warnings"] == []
    assert rows(Path(tmp_path / content["flagged_csv"])) == rows(Path(tmp_path / content["failed_csv"])) == []
    text(tmp_path / "mine.txt", "ant/0, a.png", "ant/9, a.png")
    wrong = fgfast(*convert, "--out", "third", "--exclude", "mine.txt", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "mine.txt:2: the data set has no image 'ant/9, a.png'" in wrong.stderr
    assert not (tmp_path / "third").exists()


def test_boxes_that_are_the_middle_are_warned_about_from_the_plan_to_the_report(photos: Path, tmp_path: Path) -> None:
    (photos / "boxes.csv").unlink()
    plan = fgfast("convert", "--dataset", "photos", "--out", "out", "--dry-run", cwd=tmp_path)
    done = fgfast("convert", "--dataset", "photos", "--out", "out", cwd=tmp_path)
    warning = "the middle of every image"
    assert f"  warning: {warning}" in plan.stdout
    assert f"  warning: {warning}" in done.stderr
    assert f"\nWarning: {warning}" in done.stdout
    ours = tmp_path / "out" / "fgfast"
    facts = json.loads((ours / "run.json").read_text(encoding="utf-8"))
    assert len(facts["warnings"]) == 1
    assert page(ours / "report.html")["warnings"] == facts["warnings"]
    assert warning in done.stdout
