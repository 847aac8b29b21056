"""`fgfast review OUT --list`: the queue of a run, most doubtful first, without a server; the same after a kill."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from layouts import BUILDERS

import fgfast
from fgfast.cli import main
from fgfast.config import Settings
from fgfast.io.ledger import Ledger
from fgfast.ops.doubt import VERSION
from fgfast.pipeline.twin import Twin
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
    with Twin.open(report.out) as twin:
        assert [item.outcome.key for item in queue(twin, limit=2)] == [row["key"] for row in rows[:2]]
        assert list(queue(twin, statuses=())) == []
    with Ledger(report.out / "fgfast" / "ledger.sqlite", write=False) as ledger:
        assert ledger.meta("flagging")["weights"]["version"] == VERSION
        assert {name for o in ledger.outcomes() for name in o.numbers} >= {"box gap", "keypoints outside"}


def test_a_run_without_doubts_has_an_empty_queue(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path / "in")
    settings = Settings(detector="annotations", segmenter="box")
    report = fgfast.convert("cub", tmp_path / "out", root=source, settings=settings, in_process=True)
    done = CliRunner().invoke(main, ["review", str(report.out), "--list"])
    assert "nothing is left to look at" in done.output
