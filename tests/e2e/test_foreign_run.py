"""An output from a stranger, resumed: its ledger has no say over files that a run of fgfast did not write."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from layouts import make_image, text

import fgfast
from fgfast import Settings
from fgfast.cli import main
from fgfast.errors import OutputRefusedError
from fgfast.io.ledger import Ledger
from fgfast.io.summary import DISTINCT, OTHER, Summary

BOX = Settings(segmenter="box")


def convert(source: Path, out: Path, **more: Any) -> fgfast.Report:
    return fgfast.convert(source, out, settings=more.pop("settings", BOX), in_process=True, **more)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for n, name in enumerate(("a.png", "b.png")):
        make_image(tmp_path / "in" / name, n)
    return tmp_path / "in"


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    return convert(source, tmp_path / "out").out


def change(out: Path, *statements: str) -> None:
    with sqlite3.connect(out / "fgfast/ledger.sqlite") as db:
        for statement in statements:
            db.execute(statement)


def test_files_that_no_run_wrote_are_left_alone(source: Path, out: Path) -> None:
    mine = [text(out / name, "mine") for name in ("in/mine.txt", "in/mine.png", ".masks/mine.png", "fgfast/mine.txt")]
    names = [path.relative_to(out).as_posix() for path in mine]
    with Ledger(out / "fgfast/ledger.sqlite") as ledger:
        whole = ledger.meta("whole_files")
        ledger.set_meta({"committing": names, "whole_files": whole | {name: [4, "0" * 64] for name in names}})
    change(
        out,
        "INSERT INTO samples VALUES (7, 'other.png', 7, '', '')",
        "INSERT INTO outcomes SELECT 7, status, stage, reasons, numbers, doubt, detail, warnings, 'mine.png', width, "
        "height, twin_width, twin_height, offset_x, offset_y, x0, y0, x1, y1, box_reason, box_score, box_name, others, "
        "area, rle, quality, stability, source_size, source_mtime_ns, source_sha256, annotation, seconds "
        "FROM outcomes WHERE id = 1",
        *(f"INSERT INTO files VALUES ('{name}', 7, 1, 1, zeroblob(32))" for name in names),
    )
    report = convert(source, out)
    assert [path.read_text() for path in mine] == ["mine\n"] * 4
    assert (report.total, report.counts["done"] + report.counts["flagged"]) == (2, 2)
    images = json.loads((out / "fgfast/instances.json").read_text())["images"]
    assert {image["file_name"] for image in images} == {"a.png", "b.png"}


def test_an_image_under_another_s_name_is_made_again(source: Path, out: Path) -> None:
    change(out, "UPDATE outcomes SET twin = 'b.png' WHERE id = 1")
    assert convert(source, out).resumed == 1


@pytest.mark.parametrize("statement", ["CREATE VIEW v AS SELECT 1", "UPDATE outcomes SET twin = '../../x.png'"])
def test_every_command_says_so(statement: str, source: Path, out: Path, tmp_path: Path) -> None:
    change(out, statement)
    before = (out / "fgfast/ledger.sqlite").read_bytes()
    commands = [
        ["verify", str(out)],
        ["convert", str(source), "--segmenter", "annotations", "--mask-dir", str(out), "--out", str(tmp_path / "o")],
    ]
    if "VIEW" in statement:  # what a row says is read where it is needed
        more = ["convert", str(source), "--segmenter", "box", "--out", str(out)]
        commands += [more, [*more, "--dry-run"], [*more, "--overwrite"]]
    for command in commands:
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 2 and "choose another --out" in done.stderr, (command, done.output)
    assert (out / "fgfast/ledger.sqlite").read_bytes() == before
    if "VIEW" not in statement:
        with pytest.raises(OutputRefusedError, match="damaged"):
            convert(source, out)


def test_many_different_reasons_become_others(source: Path, out: Path) -> None:
    summary = Summary({})
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        first = next(ledger.outcomes())
    for n in range(DISTINCT + 5):
        summary.add(replace(first, status="flagged", reasons=(f"reason {n}",), seconds={f"stage {n}": 1.0}))
    assert summary.reasons["flagged"][OTHER] == 5
    assert len(summary.chosen()) == 240
