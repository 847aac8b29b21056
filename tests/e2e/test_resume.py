"""What a run finds in an output that an earlier one left: files, sources, selections that changed in between."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import fgfast as command
from layouts import BUILDERS, files_below, make_image, text
from PIL import Image as pillow

import fgfast
from fgfast import Selection, Settings
from fgfast.errors import OutputFailedError, OutputRefusedError, SettingsDifferError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.pipeline.verify import verify

BOX = Settings(segmenter="box")


def images(root: Path, *names: str) -> Path:
    for n, name in enumerate(names):
        make_image(root / name, seed=n)
    return root


def convert(source: Path, out: Path, **more: Any) -> fgfast.Report:
    return fgfast.convert(source, out, settings=more.pop("settings", BOX), **more)


def numbers(out: Path) -> dict[str, int]:
    content = json.loads((out / "fgfast/instances.json").read_text())
    return {image["file_name"]: image["id"] for image in content["images"]}


def rewritten(path: Path) -> None:
    """Change one byte, and keep size and time."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_lost_damaged_and_changed_files_are_found_and_made_again(tmp_path: Path) -> None:
    source = images(tmp_path / "in", *(f"{name}.png" for name in "abcdef"))
    whole = convert(source, tmp_path / "whole")
    convert(source, tmp_path / "out")
    twin = tmp_path / "out/in"
    (twin / "a.png").write_bytes(b"")
    (twin / "b.png").write_bytes((twin / "b.png").read_bytes()[:-1] + b"x")
    (tmp_path / "out/.masks/c.png").unlink()
    make_image(source / "d.png", seed=77)
    state = verify(tmp_path / "out")
    assert (state.damaged, state.missing) == (("in/a.png", "in/b.png"), (".masks/c.png",))
    assert (state.changed, state.gone, state.intact) == (("d.png",), (), False)
    again = convert(source, tmp_path / "out")
    assert (again.resumed, again.changes.changed) == (2, ("d.png",))
    assert set(again.changes.damaged) == {"a.png", "b.png", "c.png"}
    assert verify(tmp_path / "out").intact
    after, expected = (files_below(folder) for folder in (again.twin, whole.twin))
    assert after.pop("d.png") != expected.pop("d.png")
    assert after == expected
    assert convert(source, tmp_path / "out").resumed == 6


def test_a_copy_with_other_times_is_the_same(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    convert(source, tmp_path / "out")
    for file in (*source.iterdir(), *(tmp_path / "out").rglob("*.png")):
        os.utime(file, (1, 1))
    assert convert(source, tmp_path / "out").resumed == 2


def test_a_byte_that_changed_behind_size_and_time_is_found_by_hashing(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    convert(source, tmp_path / "out")
    rewritten(tmp_path / "out/in/a.png")
    assert convert(source, tmp_path / "out").changes.damaged == ()
    assert convert(source, tmp_path / "out", verify=True).changes.damaged == ("a.png",)
    rewritten(tmp_path / "out/in/b.png")
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite") as ledger:  # as after a kill
        ledger.set_meta({"clean": False})
    assert not verify(tmp_path / "out").clean
    assert convert(source, tmp_path / "out").changes.damaged == ("b.png",)


def test_a_source_that_is_gone_costs_nothing_that_is_finished(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png", "c.png")
    (source / "b.png").write_bytes(b"junk")
    first = convert(source, tmp_path / "out")
    assert first.counts["failed"] == 1
    (source / "b.png").unlink()
    again = convert(source, tmp_path / "out")
    assert (again.changes.gone, again.counts["failed"], again.counts["done"], again.total) == (("b.png",), 0, 2, 2)
    (source / "c.png").unlink()
    last = convert(source, tmp_path / "out")
    assert (last.changes.gone, last.counts["done"], last.total) == (("c.png",), 2, 2)
    assert (last.twin / "c.png").is_file()
    assert numbers(last.out) == {"a.png": 1, "c.png": 3}
    assert verify(last.out).gone == ("c.png",)


def test_a_selection_may_grow_and_shrink(tmp_path: Path) -> None:
    source = images(tmp_path / "in", *(f"{name}.png" for name in "abcdef"))
    some = convert(source, tmp_path / "out", selection=Selection(limit=2))
    assert numbers(some.out) == {"a.png": 1, "d.png": 2}
    grown = convert(source, tmp_path / "out")
    assert (grown.resumed, grown.changes.added) == (2, ("b.png", "c.png", "e.png", "f.png"))
    assert numbers(grown.out) == {"a.png": 1, "b.png": 3, "c.png": 4, "d.png": 2, "e.png": 5, "f.png": 6}
    assert [*numbers(grown.out)] == sorted(numbers(grown.out))
    make_image(source / "aa.png", seed=50)
    more = convert(source, tmp_path / "out", selection=Selection(limit=1))
    assert (more.changes.kept, more.total, more.counts["done"]) == (tuple(f"{n}.png" for n in "bcdef"), 6, 6)
    assert {**numbers(grown.out), "aa.png": 7} == numbers(convert(source, tmp_path / "out").out)


def test_what_is_excluded_leaves_the_output(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png", "c.png")
    convert(source, tmp_path / "out")
    text(tmp_path / "keys.txt", "b.png")
    left = convert(source, tmp_path / "out", selection=Selection(exclude=(tmp_path / "keys.txt",)))
    assert (left.changes.excluded, left.counts["done"], left.total) == (("b.png",), 2, 2)
    assert files_below(left.twin).keys() == {"a.png", "c.png"} == numbers(left.out).keys()
    assert not (left.out / ".masks/b.png").exists() and verify(left.out).intact
    assert numbers(convert(source, tmp_path / "out").out) == {"a.png": 1, "b.png": 2, "c.png": 3}


def test_a_lost_image_outside_the_selection_leaves_the_lists(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    convert(source, tmp_path / "out")
    (tmp_path / "out/in/b.png").unlink()
    report = convert(source, tmp_path / "out", selection=Selection(limit=1))
    assert (report.changes.dropped, report.changes.damaged, report.changes.kept) == (("b.png",), (), ())
    assert report.total == 1
    assert [*numbers(report.out)] == ["a.png"]
    assert not (report.out / ".masks/b.png").exists() and verify(report.out).intact


def test_boxes_that_changed_cost_their_images_alone(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    text(source / "boxes.csv", "path,x0,y0,x1,y1", "a.png,2,2,20,20", "b.png,2,2,20,20")
    convert(source, tmp_path / "out")
    text(source / "boxes.csv", "path,x0,y0,x1,y1", "a.png,2,2,20,20", "b.png,4,2,20,20")
    again = convert(source, tmp_path / "out")
    assert (again.resumed, again.changes.changed) == (1, ("b.png",))


def test_a_name_that_changes_leaves_no_old_file(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.bmp")
    png = Settings(segmenter="box", format="png")
    assert files_below(convert(source, tmp_path / "out", settings=png).twin).keys() == {"a.png"}
    make_image(source / "a.tif", seed=3)  # now both would be a.png
    again = convert(source, tmp_path / "out", settings=png)
    assert (again.changes.changed, again.changes.added) == (("a.bmp",), ("a.tif",))
    assert files_below(again.twin).keys() == {"a.bmp.png", "a.tif.png"}
    assert verify(again.out).intact


@pytest.mark.parametrize("when", ["before the files", "after the files"])
def test_killed_while_replacing_no_image_lies_beside_another_s_row(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = images(tmp_path / "in", "a.png")
    convert(source, tmp_path / "out", in_process=True)
    make_image(source / "a.png", seed=9)
    expected = convert(source, tmp_path / "other").twin / "a.png"
    replaced = os.replace

    def killed(temp: str, path: str, **more: Any) -> None:
        if path == "lock.owner":
            return replaced(temp, path, **more)
        if when == "after the files":
            replaced(temp, path, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", in_process=True)
    monkeypatch.undo()
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite") as ledger:
        assert list(ledger.outcomes()) == []
    again = convert(source, tmp_path / "out")
    assert (again.counts["done"], again.resumed) == (1, 0)
    assert (again.twin / "a.png").read_bytes() == expected.read_bytes()


def test_a_name_the_disk_does_not_take_costs_one_image(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "b.jpg", "x" * 251 + ".jpg")
    report = convert(source, tmp_path / "out", settings=Settings(segmenter="box", format="webp"))
    assert (report.counts["done"], report.failures) == (1, {"bad name": 1})
    assert files_below(report.twin).keys() == {"b.webp"}
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        (failed,) = ledger.outcomes(("failed",))
    assert "File name too long" in failed.detail and "--format" in failed.detail
    assert verify(report.out).intact and not list(report.out.rglob("*.part"))


def test_a_folder_called_like_a_twin_costs_nothing(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.jpg", "a.png/b.jpg")
    same = convert(source, tmp_path / "same")
    assert same.counts["done"] == 2
    assert {*files_below(same.out / ".masks")} == {"a.jpg.png", "a.png/b.png"}
    png = convert(source, tmp_path / "png", settings=Settings(segmenter="box", format="png"))
    assert {*files_below(png.twin)} == {"a.jpg.png", "a.png/b.png"}


def test_a_folder_in_the_way_costs_one_image(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    convert(source, tmp_path / "out")
    (tmp_path / "out/in/a.png").unlink()
    (tmp_path / "out/in/a.png/mine").mkdir(parents=True)
    again = convert(source, tmp_path / "out")
    assert (again.counts["done"], again.failures) == (1, {"bad name": 1})
    assert (again.twin / "a.png/mine").is_dir()


def test_a_full_disk_still_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = images(tmp_path / "in", "a.png")

    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputFailedError, match="No space left"):
        convert(source, tmp_path / "out", in_process=True)


def test_originals_are_described_in_their_own_frame_with_flags(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    source = BUILDERS["folder"](tmp_path)
    report = convert(source, tmp_path / "out", settings=Settings(segmenter="box", format="png", crop="square", pad=0.5))
    original, twin = (COCO(report.out / f"fgfast/{name}.json") for name in ("originals", "instances"))
    assert original.getImgIds() == twin.getImgIds()
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        outcomes = {o.id: o for o in ledger.outcomes(("done", "flagged"))}
    assert original.imgs.keys() == outcomes.keys()
    for number, image in original.imgs.items():
        outcome, annotation = outcomes[number], original.anns[number]
        assert (source / image["file_name"]).is_file()
        assert (image["height"], image["width"]) == outcome.size
        assert annotation.get("flags", []) == list(outcome.reasons)
        assert annotation["area"] == outcome.area == np.count_nonzero(original.annToMask(annotation))
        with pillow.open(report.twin / twin.imgs[number]["file_name"]) as cut:
            assert (twin.imgs[number]["height"], twin.imgs[number]["width"]) == cut.size[::-1]


def test_verify_on_the_command_line(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    convert(source, tmp_path / "out")
    assert command("verify", "out", cwd=tmp_path).returncode == 0
    (tmp_path / "out/in/a.png").write_bytes(b"")
    done = command("verify", "out", cwd=tmp_path)
    assert done.returncode == 3 and "damaged  in/a.png" in done.stdout
    done = command("verify", "out", "--json", cwd=tmp_path)
    assert done.returncode == 3 and json.loads(done.stdout)["damaged"] == ["in/a.png"]
    shutil.rmtree(source)
    assert json.loads(command("verify", "out", "--json", cwd=tmp_path).stdout)["gone"] == ["a.png"]
    (tmp_path / "other").mkdir()
    done = command("verify", "other", cwd=tmp_path)
    assert done.returncode == 2 and "holds no run of fgfast" in done.stderr
    with pytest.raises(OutputRefusedError, match="there is no folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(OutputRefusedError, match=f"the folder around it, {tmp_path / 'out'}$"):
        verify(tmp_path / "out/fgfast")


def test_verify_says_where_the_data_set_of_a_moved_output_is_looked_for(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    convert(source, tmp_path / "out")
    (tmp_path / "far/away").mkdir(parents=True)
    moved = (tmp_path / "out").rename(tmp_path / "far/away/out")
    done = command("verify", str(moved), cwd=tmp_path)
    assert done.returncode == 3
    assert f"the data set is not in {tmp_path / 'far/away/in'}, its place when the run was made" in done.stdout
    assert "--root" in done.stdout and verify(moved, source).intact and not verify(moved).intact
    source = source.rename(tmp_path / "renamed")
    done = command("verify", str(moved), "--root", "renamed", cwd=tmp_path)
    assert done.returncode == 0 and "all intact" in done.stdout
    with pytest.raises(UsageError, match="--root"):
        verify(moved, tmp_path / "nowhere")
    source = source.rename(tmp_path / "in")
    convert(source, moved)
    assert verify(moved).intact


def test_an_output_names_what_it_was_made_from(tmp_path: Path) -> None:
    source = BUILDERS["aircraft"](tmp_path)
    image = tmp_path / "back.png"
    pillow.new("RGB", (8, 8)).save(image)
    settings = Settings(segmenter="box", background=image)
    report = fgfast.convert(
        "aircraft", tmp_path / "out", root=source, labels="family", settings=settings, selection=Selection(limit=2)
    )
    expected = {
        "dataset": "aircraft",
        "root": "../" + source.name,
        "labels": "family",
        "follow_links": False,
        "selection": {"splits": [], "classes": [], "limit": 2, "exclude": []},
        "background": "../" + image.name,
        "mask_dir": None,
        "vocabulary": None,
        "doubt_weights": None,
        "model_weights": None,
    }
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        assert ledger.meta("source") == expected
    assert json.loads((report.out / "fgfast/run.json").read_text())["source"] == expected


def test_a_rerun_that_is_stopped_at_once_has_not_finished(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png", "c.png")
    (source / "c.png").write_bytes(b"junk")
    convert(source, tmp_path / "out")
    for n, name in enumerate("abc"):
        make_image(source / f"{name}.png", seed=20 + n)
    stop = threading.Event()
    stop.set()
    stopped = convert(source, tmp_path / "out", stop=stop)
    assert (stopped.stopped, stopped.counts["done"], stopped.counts["failed"], stopped.total) == (True, 0, 0, 3)
    assert numbers(stopped.out) == {}
    assert convert(source, tmp_path / "out").counts["done"] == 3


def test_an_image_that_claims_another_s_mask_moves_it(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.jpg", "b.jpg")
    convert(source, tmp_path / "out")
    make_image(source / "a.png", seed=5)
    again = convert(source, tmp_path / "out")
    assert (again.changes.added, again.changes.changed, again.resumed) == (("a.png",), ("a.jpg",), 1)
    assert files_below(again.out / ".masks") == files_below(convert(source, tmp_path / "fresh").out / ".masks")


@pytest.mark.parametrize("limit", [None, 1])
def test_an_image_that_takes_the_place_of_one_that_is_gone(limit: int | None, tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.jpg", "b.jpg")
    png = Settings(segmenter="box", format="png")
    convert(source, tmp_path / "out", settings=png)
    (source / "a.jpg").unlink()
    make_image(source / "a.png", seed=5)
    again = convert(source, tmp_path / "out", settings=png, selection=Selection(limit=limit))
    assert numbers(again.out) == {"a.png": 3, "b.png": 2}
    assert verify(again.out).intact


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    convert(source, tmp_path / "out")
    source.rename(tmp_path / "renamed")
    with pytest.raises(SettingsDifferError, match="holds the twin 'in', not 'renamed'"):
        convert(tmp_path / "renamed", tmp_path / "out")


@pytest.mark.parametrize("offset", [4096, 8192, 12288, 16384])
def test_a_damaged_ledger_is_an_error(offset: int, tmp_path: Path) -> None:
    source = images(tmp_path / "in", *(f"{n}.png" for n in range(40)))
    convert(source, tmp_path / "out")
    path = tmp_path / "out/fgfast/ledger.sqlite"
    data = bytearray(path.read_bytes())
    data[offset : offset + 2000] = np.random.default_rng(0).integers(0, 256, 2000, np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(OutputRefusedError, match="damaged"):
        verify(tmp_path / "out")
    with contextlib.suppress(OutputRefusedError, OutputFailedError):
        convert(source, tmp_path / "out")
    path.write_bytes(b"")
    with pytest.raises(OutputRefusedError, match="not a ledger"):
        verify(tmp_path / "out")
    assert path.read_bytes() == b""


def test_what_a_list_no_longer_brings_leaves_the_twin(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    text(source / "boxes.csv", "path,x0,y0,x1,y1", "a.png,2,2,20,20")
    center = Settings(detector="center", segmenter="box")
    assert (convert(source, tmp_path / "out", settings=center).twin / "boxes.csv").is_file()
    (source / "boxes.csv").unlink()
    assert files_below(convert(source, tmp_path / "out", settings=center).twin).keys() == {"a.png"}


def test_a_folder_in_the_place_of_an_image_can_be_excluded_and_overwritten(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png", "b.png")
    convert(source, tmp_path / "out")
    (tmp_path / "out/in/a.png").unlink()
    text(tmp_path / "out/in/a.png/mine.txt", "a note")
    text(tmp_path / "keys.txt", "a.png")
    left = convert(source, tmp_path / "out", selection=Selection(exclude=(str(tmp_path / "keys.txt"),)))
    assert (left.counts["done"], left.total) == (1, 1)
    assert convert(source, tmp_path / "out", mode="overwrite").failures == {"bad name": 1}
    (source / "a.png").unlink()  # a list may name what the data set no longer has
    again = convert(source, tmp_path / "out", selection=Selection(exclude=(str(tmp_path / "keys.txt"),)))
    assert (again.counts["done"], again.counts["failed"]) == (1, 0)


def test_a_list_that_the_run_rewrites_is_refused(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    report = convert(source, tmp_path / "out")
    with pytest.raises(UsageError, match="copy it elsewhere"):
        convert(source, tmp_path / "out", selection=Selection(exclude=(str(report.out / "fgfast/flagged.csv"),)))


def test_a_source_that_is_gone_from_a_list_s_folder_is_named_and_kept(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    convert_cub = partial(fgfast.convert, "cub", tmp_path / "out", root=source, settings=BOX)
    report = convert_cub()
    key = "images/001.Auk/Auk_0001_10.jpg"
    (source / key).unlink()
    again = convert_cub()
    assert (again.changes.gone, again.counts["done"]) == ((key,), 4)
    assert (report.twin / key).is_file()


def test_verify_covers_the_whole_output(tmp_path: Path) -> None:
    source = images(tmp_path / "in", "a.png")
    report = convert(source, tmp_path / "out")
    report.html.write_text("")
    (report.out / "fgfast/run.json").unlink()
    state = verify(report.out)
    assert (state.damaged, state.missing) == (("fgfast/report.html",), ("fgfast/run.json",))
    convert(source, tmp_path / "out")
    assert verify(report.out).intact
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        ledger.set_meta({"being_deleted": True})
    assert not verify(report.out).intact
