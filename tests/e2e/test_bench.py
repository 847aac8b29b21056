"""`fgfast bench` as a person meets it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from command import fgfast

from fgfast.pipeline import run as pipeline

watched = pytest.mark.skipif(
    "watch" not in inspect.signature(pipeline.run).parameters, reason="this pipeline.run tells no events"
)


def test_ops_in_every_form(tmp_path: Path) -> None:
    first = fgfast("bench", "ops", "nms", "--rounds", "2", "--json", "--html", "nms.html", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["bench"] == "ops"
    assert {row["unit"] for row in result["rows"]} <= {"ms", "times", ""}
    assert "nms.html" in first.stderr
    assert "<svg" in (tmp_path / "nms.html").read_text() or len(result["rows"]) == 1
    (tmp_path / "old.json").write_text(first.stdout)
    second = fgfast("bench", "ops", "nms", "--rounds", "2", "--compare", "old.json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "NumPy reference" in second.stdout
    assert "new/old" in second.stdout
    assert "worse than noise" in second.stdout


def test_io_keeps_its_fields(tmp_path: Path) -> None:
    done = fgfast("bench", "io", "--images", "24", "--rounds", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["images_per_second"]) == {"pillow_loop", "fgfast", "fgfast_masks"}
    assert len(result["all_rounds"]["fgfast"]) == 2
    assert result["largest_difference"] == 0
    rates = {row["name"]: row["value"] for row in result["rows"]}
    assert rates["fgfast"] == pytest.approx(result["images_per_second"]["fgfast"], rel=0.01)
    assert not [path for path in tmp_path.iterdir() if "fgfast-bench" in path.name]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ops", "nns"], "Did you mean 'nms'?"),
        (["ops", "--compare", "io.json"], "of the bench 'io'; give one of 'ops'"),
        (["pipeline", "--compare", "missing.json"], "missing.json cannot be compared with"),
        (["ops", "nms", "--html", "nowhere/page.html"], "there is no folder"),
        (["io", "--dir", "nowhere"], "there is no folder nowhere"),
        (["--json", "io"], "options of io stand behind it"),
        (["pipe"], "Did you mean 'pipeline'?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "io.json").write_text('{"bench": "io", "rows": []}')
    done = fgfast("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@watched
def test_the_pipeline_without_models(tmp_path: Path) -> None:
    done = fgfast("bench", "pipeline", "--null", "--images", "60", "--json", "--html", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {f"{row.get('group')}: {row['name']}": row["value"] for row in result["rows"]}
    assert rows["end to end: rate"] > 0
    assert rows["end to end: wall time per image"] == pytest.approx(1e3 / rows["end to end: rate"], rel=1e-3)
    for stage in ("decode", "cut", "write", "settle"):
        assert rows[f"work per image: {stage}"] > 0, stage
    page = (tmp_path / "page.html").read_text()
    assert "The whole run" in page
    assert page.count("<svg") >= 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("fgfast-bench")]


@watched
def test_several_seats_make_the_same_bytes(tmp_path: Path) -> None:
    arguments = ["--null", "--images", "40", "--devices", "cpu", "--devices", "cpu,cpu", "--json"]
    done = fgfast("bench", "scaling", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rates = {row["group"]: row["value"] for row in result["rows"] if row["name"] == "rate"}
    assert rates.keys() == {"cpu", "cpu,cpu replicate"}
    assert min(rates.values()) > 0
