"""flagged.csv and failed.csv hold every such image, in order, with its reasons and their numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fgfast.errors import OutputFailedError
from fgfast.io.listing import COLUMNS, FAILED, FLAGGED, listings
from fgfast.pipeline.exclusion import read_excluded
from fgfast.records import Outcome, Size
from fgfast.writing import Target

ODD = 'a, b/"x"\n\u00e9.jpg'


def written(key: str, reasons: tuple[str, ...] = (), numbers: dict[str, float] | None = None) -> Outcome:
    return Outcome(
        key=key,
        status="flagged" if reasons else "done",
        stage="write",
        reasons=reasons,
        numbers=numbers or {},
        twin=key.replace(".jpg", ".png"),
        size=Size(30, 40),
        twin_size=Size(30, 40),
        box=np.array([4, 3.25, 24, 18], np.float32),
    )


def failed(key: str, detail: str) -> Outcome:
    return Outcome(key, "failed", "decode", ("truncated",), detail)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_every_flagged_and_failed_image_is_listed_in_order(tmp_path: Path) -> None:
    outcomes = [
        written("z.jpg", ("no box", "short of the box", "fragments"), {"short of the box": 0.123456, "fragments": 0.4}),
        failed("m.jpg", "m.jpg ends, too early"),
        written("b.jpg"),
        written(ODD, ("other class",)),
        failed("a.jpg", "two\nlines"),
    ]
    with listings(Target(tmp_path)) as add:
        for outcome in outcomes:
            add(outcome)
        assert not list(tmp_path.glob("*.csv"))  # they appear whole
    first, second = rows(tmp_path / FLAGGED)
    assert tuple(first) == COLUMNS
    assert first == {
        "key": "z.jpg",
        "twin": "z.png",
        "reasons": "no box; short of the box; fragments",
        "numbers": "; 0.1235; 0.4",
        "detail": "",
        "x0": "4",
        "y0": "3.25",
        "x1": "24",
        "y1": "18",
    }
    assert (second["key"], second["reasons"], second["numbers"]) == (ODD, "other class", "")
    assert [(row["key"], row["twin"], row["detail"], row["x0"]) for row in rows(tmp_path / FAILED)] == [
        ("m.jpg", "", "m.jpg ends, too early", ""),
        ("a.jpg", "", "two\nlines", ""),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {FLAGGED, FAILED}


def test_without_any_the_files_of_an_earlier_run_are_emptied(tmp_path: Path) -> None:
    for name in (FLAGGED, FAILED):
        (tmp_path / name).write_text("key\nold.jpg\n")
    with listings(Target(tmp_path)) as add:
        add(written("a.jpg"))
    for name in (FLAGGED, FAILED):
        assert (tmp_path / name).read_text() == ",".join(COLUMNS) + "\n"


def test_the_lists_are_what_exclude_reads(tmp_path: Path) -> None:
    keys = [ODD, "b.jpg", "c.jpg"]
    with listings(Target(tmp_path)) as add:
        add(written(ODD, ("empty",), {"empty": 0.0}))
        add(failed("c.jpg", "two\nlines"))
    assert read_excluded([tmp_path / FLAGGED], keys) == {ODD}
    assert read_excluded([tmp_path / FLAGGED, tmp_path / FAILED], keys) == {ODD, "c.jpg"}


def test_an_error_leaves_the_old_lists(tmp_path: Path) -> None:
    (tmp_path / FLAGGED).write_text("old")

    def interrupted() -> None:
        with listings(Target(tmp_path)) as add:
            add(written("a.jpg", ("empty",)))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == [FLAGGED]
    assert (tmp_path / FLAGGED).read_text() == "old"


def test_a_folder_that_cannot_be_written_is_an_error_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailedError), listings(Target(tmp_path / "file")) as add:
        add(written("a.jpg"))
