"""An output that a stranger made: whatever is in it, nothing outside it is created, written or deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from layouts import BUILDERS, SHARED, make_image

import fgfast
from fgfast.config import Settings
from fgfast.datasets import layout_named
from fgfast.errors import FgfastError, OutputRefusedError
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.pipeline.plan import make_plan

BOX = Settings(segmenter="box", detector="center", devices="cpu")
HOSTILE = SHARED.parent / "cases" / "hostile"

# Where the annotations of each layout are, in its twin.
ANNOTATIONS = {
    "cub": "parts",
    "cars": "devkit",
    "aircraft": "data",
    "waterbirds": "",
    "pets": "annotations",
    "dogs": "Annotation",
    "flowers": "jpg",
    "folder": "",
}


def below(folder: Path) -> dict[str, tuple[str, bytes]]:
    """What is in a folder: path -> kind and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()).encode())
        else:
            found[name] = ("folder", b"") if path.is_dir() else ("file", path.read_bytes())
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's, which must be the same at the end."""
    folder = tmp_path / "victim"
    (folder / "below").mkdir(parents=True)
    for name in ("own", "below/own"):
        (folder / name).write_bytes(b"the user's")
    before = below(folder)
    yield folder
    assert below(folder) == before


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output with a real ledger, and nothing else."""
    (tmp_path / "out" / "fgfast").mkdir(parents=True)
    with Ledger(tmp_path / "out" / "fgfast" / "ledger.sqlite"):
        pass
    return tmp_path / "out"


def refused_everywhere(source: Path, out: Path, match: str, dataset: str = "folder") -> None:
    """Every mode refuses the output with the same words when it is planned, and again when it is opened."""
    with pytest.raises(OutputRefusedError, match=match):
        make_plan(dataset, out, root=source, settings=BOX)
    for mode in ("auto", "overwrite"):
        with Output(out, source.name) as output, pytest.raises(OutputRefusedError, match=match):
            output.open(mode, {}, source)


@pytest.mark.parametrize("name", BUILDERS)
def test_no_annotation_goes_through_a_link(name: str, tmp_path: Path, out: Path, victim: Path) -> None:
    source = BUILDERS[name](tmp_path / "data")
    twin = layout_named(name).usual_folders[0] if name != "folder" else source.name
    place = out / twin / ANNOTATIONS.get(name, "")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim)
    with pytest.raises(OutputRefusedError, match=rf"{place.name} is a link.*remove it, or choose another folder"):
        fgfast.convert(name, out, root=source, settings=BOX)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_link_that_appears_during_the_run_is_not_followed(
    name: str, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is planned and checked is checked once more when it is opened."""
    source = BUILDERS[name](tmp_path / "data")
    out = tmp_path / "out"
    plan = make_plan(name, out, root=source, settings=BOX)
    kind, write = type(plan.dataset), type(plan.dataset).write_annotations

    def late(self: object, target: object, placements: object) -> object:
        place = out / plan.dataset.folder / ANNOTATIONS.get(name, "")
        shutil.rmtree(place, ignore_errors=True)
        place.symlink_to(victim)
        return write(self, target, placements)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "write_annotations", late)
    with pytest.raises(OutputRefusedError, match="is a link"):
        fgfast.convert(name, out, root=source, settings=BOX, in_process=True)


PLACES = (
    *("fgfast", ".masks", "in", "in/a", ".masks/a", "in/a/b"),
    *("fgfast/lock", "fgfast/lock.owner", "fgfast/ledger.sqlite", "fgfast/ledger.sqlite-journal", "fgfast/run.json"),
    *(
        "fgfast/report.html",
        "fgfast/instances.json",
        "fgfast/flagged.csv",
        "in/boxes.csv",
        "in/a/0.png",
        ".masks/a/0.png",
    ),
    *("in/a/.fgfast-1-1.part", ".masks/.fgfast-1-0.part", "fgfast/.fgfast-2-0.part"),
)
LINKS: dict[str, Callable[[Path, Path], None]] = {
    "to a folder": lambda path, victim: path.symlink_to(victim / "below"),
    "to a file": lambda path, victim: path.symlink_to(victim / "own"),
    "to nothing": lambda path, victim: path.symlink_to(victim / "new"),
    "to a device": lambda path, victim: path.symlink_to("/dev/zero"),
    "to itself": lambda path, victim: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_an_output_is_refused(place: str, kind: str, tmp_path: Path, out: Path, victim: Path) -> None:
    source = images(tmp_path / "in")
    path = out / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if place == "fgfast":
        shutil.rmtree(path)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    LINKS[kind](path, victim)
    refused_everywhere(source, out, "is a link")
    assert path.is_symlink()


@pytest.mark.parametrize("place", ["lock", "ledger.sqlite", "ledger.sqlite-journal"])
def test_another_name_of_a_file_is_not_opened_in_place(place: str, tmp_path: Path, out: Path, victim: Path) -> None:
    source = images(tmp_path / "in")
    (out / "fgfast" / place).unlink(missing_ok=True)
    os.link(victim / "own", out / "fgfast" / place)
    refused_everywhere(source, out, "hard links")


@pytest.mark.parametrize("place", ["fgfast/lock.owner", "fgfast/run.json", "fgfast/report.html", "in/a/0.png"])
def test_another_name_of_a_file_is_replaced(place: str, tmp_path: Path, out: Path, victim: Path) -> None:
    source = images(tmp_path / "in")
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    os.link(victim / "own", out / place)
    if place == "fgfast/lock.owner":
        refused_everywhere(source, out, "hard links")
        return
    report = fgfast.convert("folder", out, root=source, settings=BOX, in_process=True)
    assert report.counts["done"] + report.counts["flagged"] == 1
    assert (out / place).stat().st_nlink == 1


@pytest.mark.parametrize("place", ["lock", "lock.owner", "ledger.sqlite", "ledger.sqlite-journal"])
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_what_is_no_file_is_refused_at_once(
    place: str, make: Callable[[Path], None] | None, tmp_path: Path, out: Path
) -> None:
    if make is None:
        pytest.skip("no pipes here")
    source = images(tmp_path / "in")
    (out / "fgfast" / place).unlink(missing_ok=True)
    make(out / "fgfast" / place)
    refused_everywhere(source, out, "is not a file")


@pytest.mark.parametrize("place", ["fgfast/run.json", "fgfast/report.html", "in/boxes.csv"])
def test_a_folder_in_the_place_of_a_file_is_an_error(place: str, tmp_path: Path, out: Path) -> None:
    source = images(tmp_path / "in")
    (source / "boxes.csv").write_text("file_name,x0,y0,x1,y1\na/0.png,1,1,30,30\n")
    (out / place / "kept").mkdir(parents=True)
    with pytest.raises(FgfastError, match=f"cannot write .*{Path(place).name}"):
        fgfast.convert("folder", out, root=source, settings=BOX, in_process=True)
    assert (out / place / "kept").is_dir()


def test_a_file_in_the_place_of_our_folder_is_refused(tmp_path: Path, out: Path) -> None:
    shutil.rmtree(out / "fgfast")
    (out / "fgfast").write_bytes(b"mine")
    refused_everywhere(images(tmp_path / "data"), out, "is a file, where fgfast needs a folder")
    assert (out / "fgfast").read_bytes() == b"mine"


def test_folders_called_like_temporary_files_cost_nothing(tmp_path: Path, out: Path) -> None:
    source = images(tmp_path / "in")
    names = [f"{folder}/.fgfast-{os.getpid()}-{n}.part" for folder in ("in/a", "fgfast") for n in range(200)]
    for name in names:
        (out / name / "x").mkdir(parents=True)
    report = fgfast.convert("folder", out, root=source, settings=BOX, in_process=True)
    assert report.counts["done"] + report.counts["flagged"] == 1
    assert all((out / name / "x").is_dir() for name in names)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(200), b"no database"])
def test_only_a_real_ledger_makes_a_folder_ours(content: bytes, tmp_path: Path) -> None:
    source, out = images(tmp_path / "in"), tmp_path / "out"
    (out / "fgfast").mkdir(parents=True)
    (out / "fgfast" / "ledger.sqlite").write_bytes(content)
    (out / "in").mkdir()
    refused_everywhere(source, out, "was not made by fgfast")
    (out / "in").rmdir()
    if not content:  # as a killed run leaves it
        assert fgfast.convert("folder", out, root=source, settings=BOX, in_process=True).total == 1


def test_another_program_s_database_does_not_make_a_folder_ours(tmp_path: Path) -> None:
    source, out = images(tmp_path / "in"), tmp_path / "out"
    (out / "fgfast").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(out / "fgfast" / "ledger.sqlite")) as db:
        db.execute("CREATE TABLE t (x)")
    (out / "mine.txt").write_text("kept")
    refused_everywhere(source, out, "was not made by fgfast")


def test_a_plan_makes_nothing(tmp_path: Path) -> None:
    """A dry run wrote the tables of a ledger into an empty file."""
    source, out = images(tmp_path / "in"), tmp_path / "out"
    (out / "fgfast").mkdir(parents=True)
    (out / "fgfast" / "ledger.sqlite").touch()
    before = below(out)
    plan = make_plan("folder", out, root=source, settings=BOX)
    Output(out, "in").preflight("auto", plan.fingerprint)
    assert below(out) == before


def test_deleting_stops_at_links_and_removes_no_folder_behind_them(tmp_path: Path, victim: Path) -> None:
    from fgfast.writing import delete_files

    out = tmp_path / "out"
    (out / "empty" / "below").mkdir(parents=True)
    (out / "link").symlink_to(victim)
    (victim / "nothing").mkdir()
    delete_files(out, ["link/own", "link/nothing/gone", "empty/below/gone"])
    assert (victim / "nothing").is_dir() and (out / "link").is_symlink() and not (out / "empty").exists()
    (victim / "nothing").rmdir()
    for name in ("../victim/own", str(victim / "own"), "a/../../victim/own", "", "a//b"):
        with pytest.raises(OutputRefusedError, match="no path inside"):
            delete_files(out, [name])


def test_the_user_s_own_output_may_be_a_link_and_one_beside_the_data_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "in")
    (tmp_path / "disk").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("in_fg").symlink_to("disk")
    with pytest.raises(OutputRefusedError, match=r"in_fg is a link.*--out"):
        fgfast.convert("in", settings=BOX, in_process=True)
    assert not list((tmp_path / "disk").iterdir())
    report = fgfast.convert("in", "in_fg", settings=BOX, in_process=True)
    assert report.total == 1 and (tmp_path / "disk" / "fgfast" / "run.json").is_file()


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the hostile files are not here")
@pytest.mark.parametrize(
    ("case", "where", "dataset", "out"),
    [("02-annotation-link", "work", "dogs", None), ("15-*-folder-link", "", "ds", "o1")],
)
def test_hostile_files(
    case: str, where: str, dataset: str, out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = HOSTILE.glob(f"{case}.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "victim").mkdir(exist_ok=True)
    before = below(tmp_path)
    monkeypatch.chdir(tmp_path / where)
    with pytest.raises(OutputRefusedError, match="is a link"):
        fgfast.convert(dataset, out, settings=BOX, in_process=True)
    assert below(tmp_path) == before


def images(folder: Path) -> Path:
    """A data set of one image."""
    make_image(folder / "a" / "0.png")
    return folder
