"""`fgfast study gradcam` from the command line, on a tiny study of a tiny run."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from birds import many_birds
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="a study needs torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "pyarrow", "matplotlib", "scipy", "statsmodels"):
    pytest.importorskip(_name, reason="a study needs its extra")

import fgfast  # noqa: E402
from fgfast.cli import main  # noqa: E402
from fgfast.config import Settings  # noqa: E402

TINY = ("--backbone", "test_resnet", "--recipe", "drawn", "--epochs", "1", "--batch", "8", "--image-size", "32")
TINY = (*TINY, "--timm", "output_stride=8", "--no-pretrained", "--in-process", "--seeds", "1")


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, its run and a study of it, trained on X and on X_FG."""
    place = tmp_path_factory.mktemp("gradcam")
    root = many_birds(place, 24)
    fgfast.convert("cub", place / "run", root=root, settings=Settings(segmenter="box"), in_process=True)
    words = ("--out", place / "run_crossval", "--train-on", "x,x_fg", *TINY)
    done = command("study", "crossval", place / "run", *words)
    assert done.exit_code == 0, done.output
    return place


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_study_is_looked_at_by_its_folder_alone(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("study", "gradcam", place / "run_crossval", "--out", out, "--in-process", "--devices", "cpu")
    said = command(*words, "--dry-run")
    assert said.exit_code == 0 and re.search(r"2 models, 16 images each, about \d+ minutes", said.stdout), said.output
    assert not out.exists()
    done = command(*words, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["finished"] == 2 and facts["failed"] == {}
    assert "of Grad-CAM's energy lies inside the subject" in facts["verdict"][0]
    assert "Too few runs: 1 training" in facts["verdict"][0]
    found = rows(out / "inside.csv")
    kinds = [(row["Trained on"], row["Shown"], row["Map"]) for row in found]
    assert len(kinds) == len(set(kinds)) == 8
    for row in found:
        low, value, high = (float(row[f"Energy inside, over images{end}"]) for end in (", low", "", ", high"))
        assert 0 <= low <= value <= high <= 1 and row["Energy inside, over images, count"] == "8"
        assert row["Energy inside, over trainings, low"] == ""  # one training has no interval
        assert 0 < float(row["Mask's area"]) < 1
    page = (out / "study.html").read_text()
    assert "1 of the 3 trainings that an interval needs" in page and page.count("<figure>") == 24
    again = command(*words)
    assert "2 of them looked at before" in again.stderr and again.exit_code == 0
    fewer = command(*words, "--limit", "4")
    assert fewer.exit_code == 2 and "images, sheet, test differ" in fewer.stderr
    fewer = command(*words, "--limit", "4", "--overwrite")
    assert fewer.exit_code == 0 and "on 4 test images" in fewer.stderr, fewer.output
    assert rows(out / "repainted.csv")[0]["Predictions that stay, over images, count"] == "4"


def test_an_older_study_needs_the_run_by_name(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run_crossval", tmp_path / "study")
    path = tmp_path / "study/study.json"
    about = json.loads(path.read_text())
    assert about.pop("run") == "../run"
    path.write_text(json.dumps(about))
    words = ("study", "gradcam", tmp_path / "study")
    done = command(*words)
    assert done.exit_code == 2 and "name the run after it" in done.stderr
    done = command(*words, place / "run", "--dry-run", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["images"] == 16, done.output


def test_a_study_and_its_run_may_move_together(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "moved")
    done = command("study", "gradcam", tmp_path / "moved/run_crossval", "--dry-run")
    assert done.exit_code == 0 and f"from {tmp_path}/moved/run," in done.stderr, done.output


def test_another_run_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    settings = Settings(segmenter="box")
    root = many_birds(tmp_path / "data", 12)
    fgfast.convert("cub", tmp_path / "other", root=root, settings=settings, in_process=True)
    done = command("study", "gradcam", place / "run_crossval", tmp_path / "other", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "is not the run that the study was trained on" in done.stderr
    assert not (tmp_path / "out").exists()
    done = command("study", "gradcam", place / "run")
    assert done.exit_code == 2 and "holds no study" in done.stderr


def test_cells_without_weights_are_said(place: Path, tmp_path: Path) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    shutil.copytree(place / "run_crossval", study)
    for cell in study.glob("cells/*-x_fg-*"):
        (cell / "weights.safetensors").unlink()
    words = ("study", "gradcam", study, place / "run", "--out", out, "--in-process", "--limit", "2")
    done = command(*words)
    assert done.exit_code == 0 and "its weights were not kept" in done.stderr, done.output
    page = (out / "study.html").read_text()
    assert "train it without --no-weights" in page and page.count('<section class="sheet">') == 1
    for weights in study.glob("cells/*/weights.safetensors"):
        weights.unlink()
    done = command(*words)
    assert done.exit_code == 2 and "is finished and has its weights" in done.stderr


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("study.json", {"options": [1]}, "study.json"),
        ("study.json", {"options": {"checkpoint_path": "/tmp/x.pth"}}, "that name files are not taken from a study"),
        ("study.json", {"options": {"no_such": 1}}, "no_such"),
        ("study.json", {"fill": {"name": "pink"}}, "no fill named 'pink'"),
        ("study.json", {"run": "/no/such/place"}, "there is no folder"),
        ("study.json", {"test": "0"}, "which say what they are"),
        ("cell.json", {"recipe": {"name": "a"}}, "cell.json"),
        ("cell.json", {"cell": {"backbone": "../../x"}}, "cell.json"),
    ],
)
def test_a_study_of_somebody_else_is_checked(
    place: Path, tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    shutil.copytree(place / "run_crossval", tmp_path / "study")
    for path in (tmp_path / "study").rglob(name):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    run = () if "run" in change else (place / "run",)
    done = command("study", "gradcam", tmp_path / "study", *run, "--out", tmp_path / "out")
    assert done.exit_code in (1, 2) and said in done.stderr, done.output
    assert "internal error" not in done.output and "Traceback" not in done.output and not (tmp_path / "out").exists()


def _started(place: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ["study", "gradcam", str(place / "run_crossval"), "--out", str(out), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "fgfast", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _content(out: Path) -> dict[str, bytes]:
    found = {path for kind in ("*.csv", "*.html", "looks.parquet", "sheet.safetensors") for path in out.rglob(kind)}
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


@pytest.mark.full
def test_killed_and_resumed_or_on_two_devices_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    began = time.monotonic()
    assert _started(place, whole, "--devices", "cpu").wait() == 0
    took, draw, kills = time.monotonic() - began, random.Random(0), 0
    for _ in range(6):
        process = _started(place, broken, "--devices", "cpu,cpu")
        time.sleep(draw.uniform(0.4, 1.0) * took)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert _started(place, broken, "--devices", "cpu,cpu").wait() == 0
    assert kills and _content(broken) == _content(whole) and len(_content(whole)) == 3 + 1 + 2 * 2
