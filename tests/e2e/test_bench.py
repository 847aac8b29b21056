"""`fgfast bench` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import fgfast
from PIL import Image


def test_ops_in_every_form(tmp_path: Path) -> None:
    first = fgfast("bench", "ops", "nms", "--rounds", "2", "--json", "--plot", "nms.svg", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["bench"] == "ops"
    assert {row["unit"] for row in result["rows"]} <= {"ms", "times", ""}
    assert "figure: nms.svg" in first.stderr
    assert "<svg" in (tmp_path / "nms.svg").read_text()
    assert "plots" not in result
    (tmp_path / "old.json").write_text(first.stdout)
    second = fgfast("bench", "ops", "nms", "--rounds", "2", "--compare", "old.json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "NumPy reference" in second.stdout
    assert "new/old" in second.stdout
    assert "worse than noise" in second.stdout


def test_io_measures_both_on_the_same_images(tmp_path: Path) -> None:
    done = fgfast("bench", "io", "--images", "24", "--rounds", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {row["name"]: row for row in result["rows"]}
    rates = {name for name, row in rows.items() if row["unit"] == "images/s"}
    assert rates == {"plain Pillow loop", "fgfast", "fgfast, and a PNG mask each"}
    assert all(len(rows[name]["rounds"]) == 2 and rows[name]["value"] > 0 for name in rates)
    assert rows["largest difference of images"]["value"] == 0
    assert not [path for path in tmp_path.iterdir() if "fgfast-bench" in path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ops", "nns"], "Did you mean 'nms'?"),
        (["ops", "--compare", "io.json"], "of the bench 'io'; give one of 'ops'"),
        (["pipeline", "--compare", "missing.json"], "missing.json is no result of fgfast bench"),
        (["ops", "nms", "--plot", "nowhere/nms.png"], "there is no folder"),
        (["ops", "nms", "--plot", "nms.html"], "--plot writes .png, .svg, .pdf files, not 'nms.html'"),
        (["pipeline", "--null", "--trace", "nowhere/run.json"], "there is no folder"),
        (["pipeline", "--null", "--segmenter", "sam"], "--segmenter has no effect with --null"),
        (["pipeline", "--null", "--placement", "split"], "--placement has no effect with --null"),
        (["scaling", "--null", "--precision", "bf16"], "--precision has no effect with --null"),
        (["decoders", "--folder", "nowhere"], "there is no folder nowhere"),
        (["decoders", "--segmenter", "grabcutt"], "Did you mean 'grabcut'?"),
        (["io", "--dir", "nowhere"], "there is no folder nowhere"),
        (["expand", "contour"], "Did you mean 'contours'?"),
        (["expand", "--compare", "io.json"], "of the bench 'io'; give one of 'expand'"),
        (["--json", "io"], "the options of io must follow its name"),
        (["pipe"], "Did you mean 'pipeline'?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "io.json").write_text('{"bench": "io", "rows": []}')
    done = fgfast("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pipeline_without_models(tmp_path: Path) -> None:
    outputs = ["--json", "--trace", "run.json", "--plot", "run.png"]
    done = fgfast("bench", "pipeline", "--null", "--images", "60", *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {f"{row.get('group')}: {row['name']}": row["value"] for row in result["rows"]}
    assert rows["end to end: rate"] > 0
    assert rows["end to end: wall time per image"] == pytest.approx(1e3 / rows["end to end: rate"], rel=1e-3)
    for stage in ("decode", "cut", "write", "commit"):
        assert rows[f"work per image: {stage}"] > 0, stage
    trace = json.loads((tmp_path / "run.json").read_text())
    pieces = [entry for entry in trace["traceEvents"] if entry["ph"] == "X"]
    assert sum(entry["args"]["images"] for entry in pieces if entry["name"] == "write") == 60
    written = sum(entry["dur"] for entry in pieces if entry["name"] == "write") / 60 / 1e3
    assert written == pytest.approx(rows["work per image: write"], rel=1e-3)
    with Image.open(tmp_path / "run.png") as figure:
        assert figure.width == 1800
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("fgfast-bench")]


def test_several_workers_make_the_same_bytes(tmp_path: Path) -> None:
    arguments = ["--null", "--images", "40", "--devices", "cpu", "--devices", "cpu,cpu", "--json"]
    done = fgfast("bench", "scaling", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rates = {row["group"]: row["value"] for row in result["rows"] if row["name"] == "rate"}
    assert rates.keys() == {"cpu", "cpu,cpu replicate"}
    assert min(rates.values()) > 0


def test_decoders_of_a_folder(tmp_path: Path) -> None:
    made = Image.radial_gradient("L").convert("RGB").resize((120, 90))
    for n in range(3):
        made.save(tmp_path / f"{n}.jpg", quality=90)
    done = fgfast("bench", "decoders", "--folder", ".", "--rounds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {row["name"] for row in result["rows"]} >= {"pillow, 1 thread", "cpu, 1 thread"}
    assert result["device"] == "cpu"
    # DALI on the CPU is equal to the bit where it is installed.
    assert result["verdicts"] in ({}, {"dali_cpu": True})
