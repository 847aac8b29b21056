"""What an output says about the machine that made it: nothing of the home folder, and paths that move with it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from layouts import BUILDERS, make_image, text
from PIL import Image as pillow

import fgfast
from fgfast import Selection, Settings
from fgfast.cli import main
from fgfast.io.ledger import Ledger
from fgfast.io.portable_paths import PortablePaths, resolved
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.verify import verify

USER = "alice-of-the-test"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "people" / USER
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FGFAST_DATA", raising=False)
    monkeypatch.chdir(folder)
    return folder


def fill(home: Path, data: Path) -> list[str]:
    """A data set with all kinds of failures, and the arguments of a run that reads further files of the user's."""
    source = BUILDERS["cub"](data)
    images = sorted((source / "images").rglob("*.jpg"))
    images[0].unlink()
    images[1].write_bytes(b"junk")
    exif = pillow.Exif()
    exif[0x010E] = f"by {USER}"
    pillow.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(images[2], exif=exif)
    make_image(home / "private" / "sky.png", 5)
    text(home / "private" / "leave out.txt", images[3].relative_to(source).as_posix())
    how = ["cub", "--root", str(source), "--segmenter", "box", "--masks", "rle", "--limit", "4"]
    return [*how, "--background", "~/private/sky.png", "--exclude", str(home / "private" / "leave out.txt")]


def convert(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["convert", *arguments])


def leaks(out: Path, *secrets: str) -> list[str]:
    """Return the files of an output, and rows of its ledger, in which a secret is."""
    files = [path for path in out.rglob("*") if path.is_file()]
    found = [str(path) for path in files for secret in secrets if secret.encode() in path.read_bytes()]
    dump = "\n".join(sqlite3.connect(out / "fgfast/ledger.sqlite").iterdump())
    return found + [secret for secret in secrets if secret in dump]


@pytest.mark.parametrize("data", ["work", "elsewhere/deep", "../../mnt"])
def test_no_file_of_an_output_names_the_home_folder_or_the_user(data: str, home: Path, tmp_path: Path) -> None:
    how = fill(home, home / data)
    out = home / "work" / "out"
    for _ in range(2):  # resumed, too
        done = convert(*how, "--out", str(out))
        assert done.exit_code == 3, done.output
    facts = json.loads((out / "fgfast/run.json").read_text())
    assert facts["result"]["counts"]["failed"] >= 1
    assert leaks(out, USER, str(home), str(tmp_path), "/people/") == []
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        details = [o.detail for o in ledger.outcomes(("failed",))]
    assert details and all("images/" in detail for detail in details)
    assert "out/CUB_200_2011" in facts["result"]["load"]
    assert f"{out.absolute()}/CUB_200_2011" in done.stdout  # the user's own terminal
    assert verify(out).clean


def test_output_and_data_set_move_together(home: Path, tmp_path: Path) -> None:
    how = fill(home, home / "work")
    assert convert(*how, "--out", "work/out").exit_code == 3
    facts = json.loads((home / "work/out/fgfast/run.json").read_text())["source"]
    assert (facts["root"], facts["background"]) == ("../CUB_200_2011", "~/private/sky.png")
    assert facts["selection"]["exclude"] == ["~/private/leave out.txt"]
    moved = tmp_path / "other machine"
    (home / "work").rename(moved)
    state = verify(moved / "out")
    assert state.root == moved / "CUB_200_2011"
    assert (state.missing, state.damaged, state.changed, state.gone) == ((), (), (), ())
    again = convert("--like", str(moved / "out"), "--out", str(moved / "again"))
    assert again.exit_code == 3, again.output
    line = next(line for line in again.stderr.splitlines() if line.startswith("from "))
    for name in (moved / "CUB_200_2011", home / "private/sky.png", home / "private/leave out.txt"):
        assert str(name) in line
    resumed = convert("--like", str(moved / "out"), "--out", str(moved / "out"), "--json")
    assert json.loads(resumed.stdout)["resumed"] == 1, resumed.stdout


def test_files_of_words_are_known_by_name_and_content(home: Path) -> None:
    source = BUILDERS["cub"](home / "work")
    words = text(home / "words.txt", "jay", "auk")
    settings = Settings(detector="detic", segmenter="box", vocabulary=str(words), model_weights="random:0")

    def plan() -> Any:
        return make_plan("cub", home / "work/out", root=source, settings=settings, measure=False)

    first = plan()
    assert first.fingerprint["vocabulary"].startswith("words.txt (sha256 ")
    assert first.describe()["vocabulary"] == "~/words.txt"
    assert USER not in json.dumps([first.fingerprint, first.describe()])
    text(words, "jay")
    assert plan().fingerprint != first.fingerprint


BAD: list[tuple[str, Any]] = [
    ("dataset", "/home"),
    ("root", 3),
    ("root", "a\0b"),
    ("background", ["x"]),
    ("mask_dir", {"a": 1}),
]
BAD_MADE: list[tuple[str, Any]] = [
    ("vocabulary", "~/.ssh/config"),
    ("background", "../secret.png"),
    ("model_weights", "/tmp/w.pth"),
    ("quality", [[[]]]),
    ("pad", 1e999),
    ("batch", 10**400),
]


@pytest.mark.parametrize(
    ("where", "name", "value"), [("source", *b) for b in BAD] + [("fingerprint", *b) for b in BAD_MADE]
)
def test_a_run_json_of_a_stranger_gives_settings_only(where: str, name: str, value: Any, home: Path) -> None:
    source = BUILDERS["cub"](home / "work")
    fgfast.convert("cub", "out", root=source, settings=Settings(segmenter="box"), selection=Selection(limit=1))
    path = home / "out/fgfast/run.json"
    facts = json.loads(path.read_text())
    facts[where][name] = value
    path.write_text(json.dumps(facts))
    done = convert("--like", "out", "--out", "second")
    assert done.exit_code == 2 and name.replace("_", "-") in done.stderr.replace("_", "-"), done.output
    assert not (home / "second").exists()


def test_a_run_json_gives_no_other_option(home: Path) -> None:
    source = BUILDERS["cub"](home / "work")
    fgfast.convert("cub", "out", root=source, settings=Settings(segmenter="box"), selection=Selection(limit=1))
    path = home / "out/fgfast/run.json"
    facts = json.loads(path.read_text())
    facts["source"]["selection"] |= {"overwrite": True, "out": "third", "download": True}
    facts["source"]["out"] = facts["fingerprint"]["out"] = "third"
    path.write_text(json.dumps(facts))
    before = (home / "out/fgfast/ledger.sqlite").stat().st_ino
    assert convert("--like", "out", "--out", "out").exit_code == 0
    assert (home / "out/fgfast/ledger.sqlite").stat().st_ino == before
    assert not (home / "third").exists()
    facts["source"]["root"] = "a\udfff"
    for content in (
        json.dumps(facts),
        "[" * 100_000,
        '{"a": ' * 100_000,
        "9" * 5000,
        "\ufeff",
        "null",
        '{"fingerprint": 3}',
    ):
        path.write_text(content)
        done = convert("--like", "out", "--out", "second")
        assert done.exit_code == 2 and "run.json" in done.stderr, done.output


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("there is no file HOME/work/data/a/b.jpg", "there is no file a/b.jpg"),
        ("HOME/work/data: empty", "data: empty"),
        ("HOME/work/database/x.jpg, HOME/work", "database/x.jpg, ."),
        ("'HOME/.cache/w.pth' (file://HOME/x) HOME.", "'~/.cache/w.pth' (file://~/x) ~."),
        ("/mntHOME/x and HOMEs/x", "/mntHOME/x and HOMEs/x"),
        ("no path", "no path"),
    ],
)
def test_sentences(said: str, kept: str, home: Path) -> None:
    paths = PortablePaths(home / "work/out", home / "work/data")
    assert paths.text(said.replace("HOME", str(home))) == kept.replace("HOME", str(home))


def test_paths_come_back(home: Path, tmp_path: Path) -> None:
    paths = PortablePaths(home / "work/out", home / "work/data")
    forms = {
        home / "work/data": "../data",
        home / "work/out/~x": "./~x",
        home / "x": "~/x",
        tmp_path / "mnt/x": "../../../../mnt/x",
        Path("/far/x"): "/far/x",
    }
    for path, form in forms.items():
        assert paths.path(path) == form
        assert resolved(form, home / "work/out") == path
    assert paths.path("relative") == "~/relative"
