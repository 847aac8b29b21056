"""The same twin, whatever makes it: one worker process or several, this process, other decoders."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from layouts import BUILDERS

import fgfast
from fgfast.cli import main as command
from fgfast.config import Settings
from fgfast.errors import SettingsDifferError, UsageError
from fgfast.pipeline import choices
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run
from fgfast.runner import DEADLINE, Event


def digests(out: Path) -> dict[str, str]:
    """Every file of the twin and every mask."""
    folders = [folder for folder in out.iterdir() if folder.name != "fgfast"]
    files = (p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(
    "other",
    [
        {"devices": "cpu,cpu"},
        {"devices": "cpu,cpu,cpu", "cpu_threads": 2},
        {"workers_per_device": 2},
        {"in_process": True},
        {"decoder": "dali_cpu"},
    ],
    ids=["two workers", "three workers", "two on one device", "in process", "DALI"],
)
def test_every_way_gives_the_same_bytes(other: dict[str, Any], tmp_path: Path) -> None:
    if other.get("decoder") == "dali_cpu":
        pytest.importorskip("nvidia.dali", reason="nvidia-dali-cuda130 is not installed")
    source = BUILDERS["cub"](tmp_path)
    options = {name: other[name] for name in ("cpu_threads", "in_process") if name in other}
    more = {name: value for name, value in other.items() if name not in options}
    fgfast.convert("cub", tmp_path / "plain", root=source, settings=Settings(segmenter="grabcut"))
    report = fgfast.convert(
        "cub", tmp_path / "other", root=source, settings=Settings(segmenter="grabcut", **more), **options
    )
    assert report.counts["failed"] == 0
    assert digests(tmp_path / "other") == digests(tmp_path / "plain")


def test_a_run_goes_on_with_more_devices(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    box = Settings(segmenter="box")
    first = fgfast.convert("cub", tmp_path / "out", root=source, settings=box)
    next((first.twin / "images").rglob("*.jpg")).unlink()
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box", devices="cpu,cpu"))
    assert again.resumed == first.total - 1
    reasons = json.loads((tmp_path / "out/fgfast/run.json").read_text())["choices"]
    assert "placement replicate: one model at most; each device does everything" in reasons


def test_what_cannot_be_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    with pytest.raises(UsageError, match="needs two devices or more"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box", placement="split"))
    assert not (tmp_path / "out").exists()


def test_a_deadline_in_one_process_is_refused(tmp_path: Path) -> None:
    plan = make_plan("cub", tmp_path / "out", root=BUILDERS["cub"](tmp_path), settings=Settings(segmenter="box"))
    with pytest.raises(UsageError, match="deadline 5 has no effect in one process"):
        run(plan, in_process=True, deadline=5.0)
    assert not (tmp_path / "out").exists()


def test_several_workers_in_one_process_are_refused(tmp_path: Path) -> None:
    settings = Settings(segmenter="box", workers_per_device=2)
    plan = make_plan("cub", tmp_path / "out", root=BUILDERS["cub"](tmp_path), settings=settings)
    with pytest.raises(UsageError, match="workers-per-device 2 has no effect in one process"):
        run(plan, in_process=True)
    assert not (tmp_path / "out").exists()


def test_the_number_of_workers_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    source, box = BUILDERS["cub"](tmp_path), Settings(segmenter="box", workers_per_device="2")
    first = fgfast.convert("cub", tmp_path / "out", root=source, settings=box)
    facts = json.loads((tmp_path / "out/fgfast/run.json").read_text())
    assert "workers per device: 2, as requested" in facts["choices"]
    assert "workers_per_device" not in facts["fingerprint"] and facts["machine"]["cpu_threads"] >= 2
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box"))
    assert again.resumed == first.total


@pytest.mark.parametrize("in_process", [False, True])
def test_events_tell_of_every_stage(in_process: bool, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    events: list[Event] = []
    plan = make_plan("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box"))
    report = run(plan, watch=events.append, in_process=in_process)
    counts = {stage: sum(e.items for e in events if e.stage == stage) for stage in {e.stage for e in events}}
    assert counts == dict.fromkeys(("decode", "detect", "mask", "judge", "cut", "write", "commit"), report.total)
    assert {e.worker for e in events} == {"cpu", ""}
    assert [e.worker for e in events if e.stage == "commit"] == [""] * sum(e.stage == "commit" for e in events)


def test_the_command_s_deadline_is_the_runner_s() -> None:
    assert importlib.import_module("fgfast.cli.convert").DEADLINE == DEADLINE


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"devices": ""}, "devices must be auto, or names separated by commas"),
        ({"devices": "auto,cpu"}, "devices must be auto, or names separated by commas"),
        ({"devices": ("cpu", "")}, "devices must be auto, or names separated by commas"),
        ({"batch": 0}, "batch must be a whole number of at least 1, not 0"),
        ({"model_threads": -1}, "model-threads must be a whole number of at least 1, not -1"),
        ({"workers_per_device": 0}, "no workers-per-device named '0'. Known: 1, 2, 3, 4, 5, 6, 7, 8, auto"),
        ({"placement": "both"}, "no placement named 'both'"),
        ({"decoder": "gpu"}, "no decoder named 'gpu'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("devices", "words"), [("banana", "there is no device 'banana'"), ("cpu,cuda:x", "there is no device 'cuda:x'")]
)
def test_devices_are_checked_where_no_model_runs(devices: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        make_plan(
            "cub", tmp_path / "out", root=BUILDERS["cub"](tmp_path), settings=Settings(segmenter="box", devices=devices)
        )


def test_what_changes_nothing_does_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    first = Settings(segmenter="box", model_threads=2, devices="cuda:0,cuda:1", batch=3)
    fgfast.convert("cub", tmp_path / "out", root=source, settings=first)
    again = fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box"))
    assert again.resumed == again.total


def test_other_settings_are_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = BUILDERS["cub"](tmp_path)
    fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box"))

    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr("fgfast.pipeline.run.start", never)
    with pytest.raises(SettingsDifferError, match="crop"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(segmenter="box", crop="box"))


def test_nothing_is_measured_for_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[bool, int | None]] = []
    choose = choices.choose

    def noted(dataset: Any, settings: Settings, measure: bool = True, images: int | None = None) -> Any:
        measured.append((measure, images))
        return choose(dataset, settings, measure, images)

    monkeypatch.setattr("fgfast.pipeline.plan.choose", noted)
    source = str(BUILDERS["cub"](tmp_path))
    words = ["convert", "--dataset", "cub", "--root", source, "--out", str(tmp_path / "out"), "--segmenter", "box"]
    words += ["--limit", "3"]
    for more in (["--dry-run"], []):
        result = CliRunner().invoke(command, [*words, *more])
        assert result.exit_code == 0, result.output
    assert measured == [(False, 3), (True, 3)], "the run's images decide whether compiling pays"
