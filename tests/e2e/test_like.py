"""`fgfast convert --like`, the data set as an argument, and what a plan expects of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from layouts import BUILDERS, make_image

from fgfast.cli import main
from fgfast.pipeline import rate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with CUB and FGVC-Aircraft in ./data and a cache of its own."""
    BUILDERS["cub"](tmp_path / "data")
    BUILDERS["aircraft"](tmp_path / "data")
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FGFAST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["convert", *arguments])


def digests(out: Path) -> dict[str, str]:
    files = [file for file in sorted(out.rglob("*")) if file.is_file() and file.parent.name != "fgfast"]
    return {file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def facts(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "fgfast/run.json").read_text())
    return found


def test_a_run_is_repeated_by_its_run_json(here: Path) -> None:
    make_image(here / "sky.png", 5, (9, 9))
    how = ["--segmenter", "box", "--format", "webp", "--quality", "60", "--crop", "square", "--pad", "0.2"]
    how += ["--background", "sky.png", "--labels", "family", "--split", "train,val", "--limit", "2"]
    assert convert("aircraft", *how, "--out", "first").exit_code == 0
    for like, out in (("first", "second"), ("first/fgfast", "third"), ("first/fgfast/run.json", "fourth")):
        done = convert("--like", like, "--out", out)
        assert done.exit_code == 0, done.output
        assert facts(here / out)["fingerprint"] == facts(here / "first")["fingerprint"]
        assert facts(here / out)["source"] == facts(here / "first")["source"]
        assert digests(here / out) == digests(here / "first") != {}


def test_other_options_override_a_repeated_run(here: Path) -> None:
    how = ["--segmenter", "box", "--format", "webp", "--quality", "60", "--keep-names", "--limit", "3"]
    assert convert("cub", *how, "--out", "first").exit_code == 0
    assert convert("--like", "first", "--format", "png", "--limit", "1", "--out", "second").exit_code == 0
    made = facts(here / "second")["fingerprint"]
    assert (made["format"], made["quality"], made["keep_names"], made["segmenter"]) == ("png", 95, True, "box")
    assert facts(here / "second")["result"]["total"] == 1
    # Root, labels and classes belong to the other data set.
    assert convert("aircraft", "--like", "first", "--out", "third").exit_code == 0
    assert facts(here / "third")["source"]["root"].endswith("fgvc-aircraft-2013b")
    assert facts(here / "third")["result"]["total"] == 3
    # What is given on the command line is still checked.
    done = convert("--like", "first", "--format", "png", "--quality", "60", "--out", "fourth")
    assert done.exit_code == 2 and "quality 60 has no effect" in done.stderr


def test_a_folder_and_its_classes_are_repeated(here: Path) -> None:
    for n, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png")):
        make_image(here / "mine" / name, n)
    assert convert("mine", "--segmenter", "box", "--classes", "cat", "--out", "first").exit_code == 0
    done = convert("--like", "first", "--out", "second")
    assert done.exit_code == 0, done.output
    assert digests(here / "second") == digests(here / "first")


def test_what_cannot_be_repeated_is_refused(here: Path) -> None:
    assert "run.json" in convert("--like", "nowhere").stderr
    (here / "run.json").write_text("{}")
    assert "not the run.json" in convert("--like", "run.json").stderr
    (here / "run.json").write_text("[")
    assert convert("--like", "run.json").exit_code == 2
    make_image(here / "sky.png", 5)
    assert convert("cub", "--segmenter", "box", "--background", "sky.png", "--out", "first").exit_code == 0
    make_image(here / "sky.png", 6)
    done = convert("--like", "first", "--out", "second")
    assert done.exit_code == 2 and "has changed" in done.stderr
    assert not (here / "second").exists()
    # Another background takes its place, whatever became of it.
    (here / "sky.png").unlink()
    done = convert("--like", "first", "--background", "white", "--out", "second")
    assert done.exit_code == 0, done.output
    assert facts(here / "second")["fingerprint"]["background"] == "white"


def test_the_data_set_may_be_an_argument(here: Path) -> None:
    done = convert("cub", "--segmenter", "box", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["total"] == 4
    assert "two data sets" in convert("cub", "--dataset", "aircraft").stderr
    done = convert()
    assert done.exit_code == 2 and "fgfast convert cub" in done.stderr


def test_a_dry_run_tells_what_is_left_and_how_long_it_takes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ["cub", "--segmenter", "box", "--out", "out"]
    assert "4 images to do; how long that takes was not measured" in convert(*how, "--dry-run").stdout
    for name in ("_IMAGES", "_SECONDS"):
        monkeypatch.setattr(rate, name, 0)
    assert convert(*how, "--limit", "4").exit_code == 0
    assert "0 images to do, in about" in convert(*how, "--dry-run").stdout
    plan = json.loads(convert(*how, "--dry-run", "--json", "--overwrite").stdout)
    assert plan["left"] == 4 and plan["images_per_second"] > 0
    other = json.loads(convert("cub", "--segmenter", "box", "--format", "png", "--dry-run", "--json").stdout)
    assert other["images_per_second"] is None


def test_a_short_run_measures_nothing(here: Path) -> None:
    assert convert("cub", "--segmenter", "box", "--out", "out").exit_code == 0
    assert not (here / "cache").exists()
