"""`fgfast review OUT --list`: the queue of a run, most doubtful first, without a server; the same after a kill."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from foreign_database import plain
from layouts import BUILDERS
from PIL import Image
from small_review import add_class_with_an_odd_one

import fgfast
from fgfast.cli import main
from fgfast.config import Settings
from fgfast.io.ledger import Ledger
from fgfast.ops.doubt import SURE, VERSION
from fgfast.pipeline.twin import Twin
from fgfast.records import Sample
from fgfast.review.queue import queue


def test_the_queue_of_a_run_is_printed_in_order(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "in")
    settings = Settings(detector="annotations", segmenter="grabcut", flag_rate="50%")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True)
    done = CliRunner().invoke(main, ["review", str(report.out), "--list", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)
    assert len(rows) == report.counts["done"] + report.counts["flagged"]
    assert [row["doubt"] for row in rows] == sorted((row["doubt"] for row in rows), reverse=True)
    assert all(flag["sentence"] and 0 <= row["doubt"] <= 1 for row in rows for flag in row["flags"])
    assert [row["status"] for row in rows][: report.counts["flagged"]] == ["flagged"] * report.counts["flagged"]
    text = CliRunner().invoke(main, ["review", str(report.out), "--list", "--limit", "1"])
    assert text.output.count("\n") == 1
    assert rows[0]["key"] in text.output
    assert CliRunner().invoke(main, ["review", str(report.out), "--json"]).exit_code == 2
    key = add_class_with_an_odd_one(report.out)
    after = json.loads(CliRunner().invoke(main, ["review", str(report.out), "--list", "--json"]).output)
    odd = [row["key"] for row in after if "unlike its class" in {flag["name"] for flag in row["flags"]}]
    assert odd == [key]
    assert [row["doubt"] for row in after if row["id"] < 100] == [row["doubt"] for row in rows]  # it adds no doubt
    with Twin.open(report.out) as twin:
        assert [item.result.key for item in queue(twin, limit=2)] == [row["key"] for row in after[:2]]
        assert list(queue(twin, statuses=())) == []
    with Ledger(report.out / "fgfast" / "ledger.sqlite", write=False) as ledger:
        assert ledger.meta("flagging")["weights"]["version"] == VERSION
        assert {name for o in ledger.outcomes() for name in o.numbers} >= {"box gap", "keypoints outside"}


def test_a_long_queue_is_printed_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BUILDERS["cub"](tmp_path / "in")
    settings = Settings(detector="annotations", segmenter="grabcut")
    out = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True).out
    path = out / "fgfast" / "ledger.sqlite"
    with Ledger(path) as ledger:
        like = next(iter(ledger.outcomes()))
        keys = [f"images/002.Jay/more_{n:03}.jpg" for n in range(250)]
        ledger.register((n + 10, Sample(key, source / key, "002.Jay", "train")) for n, key in enumerate(keys))
        ledger.record(replace(like, id=None, key=k, twin=k, doubt=0.5 + n / 1e4) for n, k in enumerate(keys))
    whole = CliRunner().invoke(main, ["review", str(out), "--list", "--json"]).output
    monkeypatch.setattr("fgfast.cli.review_list._AT_ONCE", 7)
    assert CliRunner().invoke(main, ["review", str(out), "--list", "--json"]).output.replace("\n", "") == whole.replace(
        "\n", ""
    )
    rows = json.loads(whole)
    assert len(rows) == 254
    assert [row["key"] for row in rows if 0.5 <= row["doubt"] < 0.53] == keys[::-1]
    assert {(row["class"], row["split"]) for row in rows if "more" in row["key"]} == {("002.Jay", "train")}
    text = CliRunner().invoke(main, ["review", str(out), "--list", "--limit", "254"]).output.splitlines()
    assert [line.split()[2] for line in text] == [row["key"] for row in rows]
    with plain(path) as db:
        db.execute('UPDATE outcomes SET numbers = \'{"fill": "much"}\' WHERE id = (SELECT max(id) FROM outcomes)')
    done = CliRunner().invoke(main, ["review", str(out), "--list"])
    assert done.exit_code == 2 and "is damaged" in done.output


def test_a_run_without_doubts_has_an_empty_queue(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "in")
    settings = Settings(detector="annotations", segmenter="box")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True)
    done = CliRunner().invoke(main, ["review", str(report.out), "--list"])
    assert "nothing is left to look at" in done.output


def test_the_official_masks_of_a_data_set_judge_those_that_are_made(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "in")
    keys = sorted(f"images/{path.relative_to(source / 'images')}" for path in source.glob("images/*/*.jpg"))
    for key in keys[1:]:  # the first has none
        file = (source / "segmentations" / key.removeprefix("images/")).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source / key) as image:
            levels = np.zeros((image.height, image.width), np.uint8)
        levels[:2, :2] = 255  # where no bird is
        Image.fromarray(levels).save(file)
    settings = Settings(detector="annotations", segmenter="grabcut", flag_rate="0%")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True)
    with Ledger(report.out / "fgfast" / "ledger.sqlite", write=False) as ledger:
        found = {o.key: o for o in ledger.outcomes()}
    assert "far from the official mask" not in found[keys[0]].numbers
    for key in keys[1:]:
        assert found[key].numbers["far from the official mask"] > 0.5
        assert (found[key].status, found[key].reasons) == ("flagged", ("far from the official mask",))
        assert found[key].doubt is not None and found[key].doubt >= SURE
    # No cut-out depends on them: a resumed run makes nothing again where they are gone.
    shutil.rmtree(source / "segmentations")
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True)
    assert again.resumed == len(keys)
