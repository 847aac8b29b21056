"""The command line as a person meets it: messages, exit codes, what goes where."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from command import fgfast
from layouts import BUILDERS, SUBJECT, make_image
from PIL import Image as pillow

from fgfast import methods, transfer
from fgfast.cli import main


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = fgfast("--help")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    for command in ("convert", "datasets", "cut", "bench", "completion"):
        assert command in done.stdout
    assert min(times) < 0.5  # the quickest: other programs may keep the machine busy


def test_help_shows_the_bounds_of_numbers() -> None:
    words = " ".join(fgfast("convert", "--help").stdout.split())
    assert "--batch INTEGER RANGE" in words and "[default: (depends on the device); x>=1]" in words
    assert "--pad FLOAT RANGE" in words and "0<=x<=10" in words
    done = fgfast("cut", "bird.jpg", "--crop", "box", "--pad", "nan")
    assert done.returncode == 2
    assert "pad must be a number from 0 to 10, not nan" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, fgfast.cli; print([m for m in ('numpy', 'cv2', 'scipy', 'torch', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("where", ["FGFAST_DATA", "data", "here"])
def test_convert_finds_its_data_set(where: str, tmp_path: Path) -> None:
    home = {"FGFAST_DATA": tmp_path / "store", "data": tmp_path / "work/data", "here": tmp_path / "work"}[where]
    BUILDERS["aircraft"](home)
    (tmp_path / "work").mkdir(exist_ok=True)
    environment = {"FGFAST_DATA": str(home)} if where == "FGFAST_DATA" else {}
    done = fgfast("convert", "--dataset", "aircraft", "--segmenter", "box", cwd=tmp_path / "work", **environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "work/aircraft_fg/fgvc-aircraft-2013b/data/images/0034309.jpg").is_file()
    assert "Finished: 4 of 4" in done.stdout
    assert "report.html" in done.stdout
    assert "detector annotations" in done.stderr


def test_a_data_set_that_is_not_there_is_an_error_with_the_places_and_the_way_out(tmp_path: Path) -> None:
    done = fgfast("convert", "--dataset", "aircraft", cwd=tmp_path)
    assert done.returncode == 2
    assert str(tmp_path / "data/fgvc-aircraft-2013b") in done.stderr
    assert "--root" in done.stderr
    assert "--download" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convrt"], "Did you mean 'convert'?"),
        (["convert", "--dataset", "aircraf"], "Did you mean 'aircraft'?"),
        (["convert", "--datset", "cub"], "--dataset"),
        (["convert"], "Missing option '--dataset'"),
        (["convert", "--dataset", "cub", "--segmenter", "grabct"], "Did you mean 'grabcut'?"),
        (["convert", "--dataset", "cub", "--resume", "--overwrite"], "exclude each other"),
        (["convert", "--dataset", "cub", "--background", "1,2"], "R,G,B"),
        (["cut", "x.jpg", "--box", "1,2"], "four numbers"),
        (["bench", "oi"], "Did you mean 'io'?"),
    ],
)
def test_mistakes_are_answered_with_the_way_out(arguments: list[str], says: str, tmp_path: Path) -> None:
    BUILDERS["cub"](tmp_path)
    make_image(tmp_path / "x.jpg")
    done = fgfast(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_some_failed_is_exit_code_3_and_the_report_names_them(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    victim = next((source / "images").rglob("*.jpg"))
    victim.write_bytes(b"")
    done = fgfast("convert", "--dataset", "cub", "--segmenter", "box", "--json", cwd=tmp_path)
    assert done.returncode == 3
    content = json.loads(done.stdout)
    assert content["counts"] == {"done": 3, "flagged": 0, "skipped": 0, "failed": 1}
    assert content["failures"] == {"empty file": 1}
    assert victim.name in Path(tmp_path / content["report"]).read_text()


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    BUILDERS["cub"](tmp_path)
    done = fgfast("convert", "--dataset", "cub", "--split", "train", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "2 of 4 images (train 2)" in done.stdout
    assert not (tmp_path / "cub_fg").exists()
    content = json.loads(fgfast("convert", "--dataset", "cub", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert content["fingerprint"]["detector"] == "annotations"


def test_resume_says_what_was_done_before(tmp_path: Path) -> None:
    BUILDERS["cub"](tmp_path)
    command = ["convert", "--dataset", "cub", "--segmenter", "box"]
    fgfast(*command, cwd=tmp_path)
    done = fgfast(*command, cwd=tmp_path)
    assert done.returncode == 0
    assert "Finished: 4 of 4 images, 4 of them in earlier runs\n" in done.stdout
    other = fgfast(*command, "--background", "white", cwd=tmp_path)
    assert other.returncode == 2
    assert "'black' -> 'white'" in other.stderr
    planned = fgfast(*command, "--background", "white", "--dry-run", cwd=tmp_path)
    assert planned.returncode == 2
    assert "background white" in planned.stdout and "4 images to do" in planned.stdout
    assert "'black' -> 'white'" in planned.stderr and "'black'" not in planned.stdout
    planned = fgfast(*command, "--background", "white", "--dry-run", "--json", cwd=tmp_path)
    assert planned.returncode == 2 and "'black' -> 'white'" in json.loads(planned.stdout)["refused"]
    planned = fgfast(*command, "--out", "new", "--resume", "--dry-run", "--json", cwd=tmp_path)
    assert planned.returncode == 2 and "no run to resume" in json.loads(planned.stdout)["refused"]
    assert json.loads(fgfast(*command, "--dry-run", "--json", cwd=tmp_path).stdout)["refused"] is None
    assert fgfast(*command, "--background", "white", "--overwrite", cwd=tmp_path).returncode == 0


def test_a_root_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = fgfast("convert", "--dataset", "cub", "--root", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is no folder {tmp_path / 'nowhere'}. Give the folder of CUB-200-2011." in done.stderr


def test_datasets_lists_what_was_found(tmp_path: Path) -> None:
    BUILDERS["pets"](tmp_path / "data")
    done = fgfast("datasets", cwd=tmp_path)
    assert done.returncode == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("pets"))
    assert str(tmp_path / "data/oxford-iiit-pet") in line
    assert "not found" in next(line for line in done.stdout.splitlines() if line.startswith("cub"))
    rows = json.loads(fgfast("datasets", "--json", cwd=tmp_path).stdout)
    assert {row["name"] for row in rows} == set(BUILDERS)


def test_models_list_names_the_licence_of_each_method() -> None:
    lines = {line.split()[0]: line for line in fgfast("models", "list").stdout.splitlines() if line}
    rows = {row["name"]: row for row in json.loads(fgfast("models", "list", "--json").stdout)}
    for method in methods.models():
        assert f" {method.licence} " in lines[method.weights]
        assert rows[method.weights]["licence"] == method.licence


def test_cut_writes_one_image(tmp_path: Path) -> None:
    make_image(tmp_path / "bird.png")
    box = ",".join(map(str, SUBJECT))
    done = fgfast("cut", "bird.png", "--box", box, "--background", "transparent", "-o", "out.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with pillow.open(tmp_path / "out.png") as image:
        assert image.mode == "RGBA"
    missing = fgfast("cut", "gone.png", cwd=tmp_path)
    assert missing.returncode == 3
    assert "gone.png" in missing.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = fgfast("completion", shell)
    assert done.returncode == 0
    assert "_FGFAST_COMPLETE" in done.stdout


def test_data_set_names_are_completed() -> None:
    done = fgfast(_FGFAST_COMPLETE="bash_complete", COMP_WORDS="fgfast convert --dataset a", COMP_CWORD="3")
    assert "aircraft" in done.stdout
    assert "cub" not in done.stdout


def test_cut_does_not_overwrite_its_input(tmp_path: Path) -> None:
    before = make_image(tmp_path / "bird.png").read_bytes()
    done = fgfast("cut", "bird.png", "-o", "bird.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "the image itself" in done.stderr
    assert (tmp_path / "bird.png").read_bytes() == before


def test_download_continues_where_the_root_exists_but_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    nowhere = "http://127.0.0.1:9/mirror"
    monkeypatch.setenv("FGFAST_MIRROR", nowhere)
    monkeypatch.setattr(transfer, "BACKOFF", 0.0)
    for command in (["datasets", "--download", "flowers"], ["convert", "--dataset", "flowers", "--download"]):
        done = CliRunner().invoke(main, [*command, "--root", str(tmp_path / "store")])
        assert done.exit_code == 1
        assert nowhere in done.stderr
        assert "Traceback" not in done.stderr
