"""What people decided holds in whatever is run afterwards, and in other twins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import HEIGHT, WIDTH
from mending import KEY, OTHER, THIRD, change, disc, made, result, rows
from PIL import Image as pillow

from fgfast import convert
from fgfast.cli.like import read
from fgfast.config import Settings
from fgfast.errors import OutputRefusedError, SettingsDifferError, UsageError
from fgfast.io.decisions import Decisions
from fgfast.io.output import Output
from fgfast.ops import rle_encode
from fgfast.pipeline.finish import Report, decided_here
from fgfast.pipeline.mending import Change, Mender
from fgfast.pipeline.verify import verify
from fgfast.records import Outcome

OTHER_WAY: dict[str, Any] = {"crop": "square", "pad": 0.1, "format": "png", "background": "white"}


def again(tmp_path: Path, name: str = "out", mode: Any = "auto", **more: Any) -> Report:
    """Run the command of `made` again."""
    given = {"detector": "annotations", "segmenter": "box", "devices": "cpu", **more}
    root = tmp_path / "data" / "cub" / "CUB_200_2011"
    root = root if root.is_dir() else tmp_path / "data" / "cub"
    return convert("cub", tmp_path / name, root=root, settings=Settings(**given), mode=mode, in_process=True)


def changes() -> list[Change]:
    return [change(), change(OTHER, "reject"), change(THIRD, "mask", bits=disc(30, 20))]


def reviewed(tmp_path: Path, name: str = "out", **more: Any) -> Path:
    """Convert a tiny data set and decide about three of its images; return the output."""
    out = made(tmp_path, name=name, **more)
    with Mender.open(out) as mender:
        mender.decide(changes(), "ann")
        mender.finish()
    return out


@pytest.mark.parametrize("way", [{}, OTHER_WAY, {"masks": "rle", "crop": "box"}], ids=["same", "square", "box"])
def test_decisions_serve_another_twin(way: dict[str, Any], tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    wanted = reviewed(tmp_path, "wanted", **way)
    report = again(tmp_path, "other", decisions=out, **way)
    assert set(report.changes.decided) == {KEY, OTHER, THIRD} and not report.changes.undecided
    other = tmp_path / "other"
    # Images, masks, boxes and parts of CUB, COCO: as if the decisions had been made there.
    assert result(other) == result(wanted)
    assert rows(other) == rows(wanted)
    assert verify(other).intact
    with Decisions(other / "fgfast/decisions.sqlite") as decisions:
        assert [(d.key, d.who, d.done) for d in decisions.all()] == [(k, "ann", True) for k in (KEY, OTHER, THIRD)]
    # They are its own now: they can be undone in it, and a resume applies them no second time.
    assert not again(tmp_path, "other", decisions=out / "fgfast/decisions.sqlite", **way).changes.decided
    with Mender.open(other) as mender:
        mender.undo([1, 2, 3], "bob")
        mender.finish()
    assert result(other) == result(made(tmp_path, name="plain", **way))
    assert not again(tmp_path, "other", decisions=out, **way).changes.decided


def test_other_decisions_are_another_run(tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    again(tmp_path, "other", decisions=out)
    with pytest.raises(SettingsDifferError, match="decisions_sha256"):
        again(tmp_path, "other")
    with Mender.open(out) as mender:
        mender.undo([2], "ann")
    with pytest.raises(SettingsDifferError, match="decisions_sha256"):
        again(tmp_path, "other", decisions=out)
    with pytest.raises(UsageError, match="hold for it anyway"):
        again(tmp_path, decisions=out)
    with pytest.raises(UsageError, match="no decisions in"):
        again(tmp_path, "third", decisions=tmp_path)


def test_lost_files_are_made_from_their_decisions(tmp_path: Path) -> None:
    out = reviewed(tmp_path, **OTHER_WAY)
    before, begun = result(out), rows(out)
    lost = [path for key in (KEY, THIRD) for path in out.rglob(f"{Path(key).stem}.png")]
    assert len(lost) == 4  # image and mask of each
    for path in lost:
        path.unlink()
    report = again(tmp_path, **OTHER_WAY)
    assert set(report.changes.damaged) == set(report.changes.decided) == {KEY, THIRD}
    assert result(out) == before
    assert rows(out) == begun


def test_overwrite_keeps_decisions_and_applies_them(tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    kept = (out / "fgfast/decisions.sqlite").read_bytes()
    wanted = reviewed(tmp_path, "wanted", **OTHER_WAY)
    report = again(tmp_path, mode="overwrite", **OTHER_WAY)
    assert set(report.changes.decided) == {KEY, OTHER, THIRD}
    assert report.resumed == 0
    assert result(out) == result(wanted)
    assert rows(out) == rows(wanted)
    assert (out / "fgfast/decisions.sqlite").read_bytes() == kept
    # Also where the ledger is lost with all files.
    for path in out.iterdir():
        if path.name != "fgfast":
            shutil.rmtree(path)
    for path in (out / "fgfast").iterdir():
        if path.name != "decisions.sqlite":
            path.unlink()
    again(tmp_path, **OTHER_WAY)
    assert result(out) == result(wanted)


def test_a_decision_about_another_image_is_kept_and_listed(tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    source = next((tmp_path / "data").rglob(Path(THIRD).name))
    original = source.read_bytes()
    pillow.new("RGB", (WIDTH, HEIGHT), (9, 9, 9)).save(source)
    (rejected,) = (tmp_path / "data").rglob(Path(OTHER).name)
    was = rejected.read_bytes()
    pillow.new("RGB", (WIDTH, HEIGHT), (8, 8, 8)).save(rejected)
    report = again(tmp_path)
    assert set(report.changes.undecided) == {OTHER, THIRD}
    with Output(out, report.twin.name) as output:
        output.reopen()
        assert decided_here(output).keys() == {KEY}  # in the report, and spared by flags that follow from doubt
    assert rows(out)[THIRD][4] != rle_encode(disc(30, 20)) and rows(out)[OTHER][0] == "done"
    # The next run lists them as well, and so does another output.
    assert set(again(tmp_path).changes.undecided) == {OTHER, THIRD}
    facts = json.loads((out / "fgfast/run.json").read_text())
    assert set(facts["result"]["decisions_not_applied"]) == {OTHER, THIRD}
    assert set(again(tmp_path, "other", decisions=out).changes.undecided) == {OTHER, THIRD}
    source.write_bytes(original)
    rejected.write_bytes(was)
    report = again(tmp_path)
    assert set(report.changes.decided) == {OTHER, THIRD} and not report.changes.undecided
    assert rows(out)[THIRD][4] == rle_encode(disc(30, 20)) and rows(out)[OTHER][0] == "skipped"


def test_damaged_decisions_are_refused_before_anything_is_deleted(tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    before = result(out)
    (out / "fgfast/decisions.sqlite").write_bytes(b"no database" * 100)
    for mode in ("auto", "overwrite"):
        with pytest.raises(OutputRefusedError):
            again(tmp_path, mode=mode)
    assert result(out) == before


def test_a_mask_in_a_turned_frame_is_not_applied_to_the_stored_one(tmp_path: Path) -> None:
    out = made(tmp_path)
    source = next((tmp_path / "data").rglob(Path(THIRD).name))
    exif = pillow.Exif()
    exif[0x0112] = 6  # a viewer turns it by a quarter
    pillow.new("RGB", (WIDTH, HEIGHT), (90, 200, 30)).save(source, exif=exif)
    root = source.parents[2]
    given = Settings(detector="center", segmenter="box", devices="cpu")
    convert("folder", tmp_path / "turned", root=root, settings=given, in_process=True)
    with Mender.open(tmp_path / "turned") as mender:
        (answer,) = mender.decide([change(THIRD, "mask", bits=disc()[:, :HEIGHT].repeat(2, 0)[:WIDTH])], "ann")
        assert isinstance(answer, Outcome), answer
        assert answer.size == (WIDTH, HEIGHT)
    report = again(tmp_path, "other", decisions=tmp_path / "turned")
    assert report.changes.undecided == (THIRD,) and not report.changes.decided
    shutil.rmtree(out)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_mask_of_a_turned_image_of_the_same_size_is_not_applied(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    """Half a turn and mirroring leave the size as it is, and so does every turn of a square image."""
    root, exif = tmp_path / "data", pillow.Exif()
    exif[0x0112] = orientation
    for name, size in (("a", (40, 30)), ("b", (32, 32))):
        (root / "auk").mkdir(parents=True, exist_ok=True)
        pillow.new("RGB", size, (90, 200, 30)).save(root / "auk" / f"{name}{suffix}", exif=exif)
    given: dict[str, Any] = {"detector": "center", "segmenter": "box", "devices": "cpu"}
    out = convert("folder", tmp_path / "turned", root=root, settings=Settings(**given), in_process=True).out
    with Mender.open(out) as mender:
        sizes = {o.key: o.size for o in mender.output.ledger.outcomes() if o.size}
        corner = {key: np.zeros(size, np.bool_) for key, size in sizes.items()}
        for bits in corner.values():
            bits[:9, :7] = True
        mender.decide([Change(key, "mask", "brush", 0, bits=bits) for key, bits in corner.items()], "ann")
    shutil.copy(out / "fgfast/decisions.sqlite", tmp_path / "alone.sqlite")
    keys = {"a" + suffix, "b" + suffix}
    applied = {}
    for name, decisions in (("with a ledger", out), ("alone", tmp_path / "alone.sqlite")):
        for turn in (True, False):
            settings = Settings(**given, decisions=decisions)
            with pytest.MonkeyPatch.context() as patch:
                if not turn:  # as a layout that does not turn
                    patch.setattr("fgfast.datasets.folder.Folder.turn_exif", False)
                    patch.setattr(
                        "fgfast.pipeline.decided._turned", lambda plan: True if plan.settings.decisions == out else None
                    )
                report = convert("folder", tmp_path / f"{name} {turn}", root=root, settings=settings, in_process=True)
            applied[name, turn] = {Path(key).name for key in report.changes.decided}
            assert {Path(key).name for key in report.changes.undecided} == keys - applied[name, turn]
            for key in report.changes.decided:
                assert rows(report.out)[key][4] == rle_encode(corner[key])
    quarter = {"a" + suffix} if orientation > 4 else set()
    plain = keys if orientation == 1 else set()
    assert applied == {
        ("with a ledger", True): keys,
        ("with a ledger", False): plain,
        ("alone", True): plain or quarter,
        ("alone", False): plain,
    }


def test_like_repeats_the_decisions_too(tmp_path: Path) -> None:
    out = reviewed(tmp_path)
    again(tmp_path, "other", decisions=out)
    options, files, _ = read(tmp_path / "other")
    assert options["decisions"] == str(out) and "decisions" in files
    assert "decisions" not in read(out)[0]
