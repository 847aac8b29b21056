"""Expansions of a tiny run, whatever their kind: bytes, resume, corrections, what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from command import fgfast as command
from expanding import Options, planned
from layouts import files_below
from mending import KEY, OTHER, disc, made

from fgfast.config import Selection
from fgfast.errors import OutputFailedError, OutputRefusedError, SettingsDifferError, UsageError
from fgfast.expand import table
from fgfast.expand.chosen import spread
from fgfast.expand.kind import Kind
from fgfast.expand.plan import How
from fgfast.expand.run import run
from fgfast.io.ledger import Ledger
from fgfast.pipeline.mending import Change, Mender
from fgfast.pipeline.twin import folder_name
from fgfast.pipeline.verify import verify

pa = pytest.importorskip("pyarrow.parquet", reason="tables need the extra expand")

KINDS = (
    Kind("test", "tests", "expanding:Options", "expanding:plan_everything"),
    Kind("bare", "one file", "expanding:Options", "expanding:plan_bare"),
)
ABOUT = {f"fgfast/{name}" for name in ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(table, "KINDS", KINDS)
    return made(tmp_path, name="run")


def expanded(source: Path, out: Path, **more: Any) -> dict[str, bytes]:
    """What an expansion writes, without what holds times."""
    running = {name: more.pop(name) for name in ("mode", "workers", "in_process") if name in more}
    with planned(source, "test", out, **more) as plan:
        report = run(plan, **{"in_process": True, **running})
    assert sum(report.counts.values()) == report.total
    return {name: data for name, data in files_below(out).items() if name not in ABOUT}


def test_everything_a_product_has_is_written(source: Path, tmp_path: Path) -> None:
    found = expanded(source, tmp_path / "out")
    assert found["whole.txt"].startswith(b"4 ")
    stem = KEY.removesuffix(".jpg")
    assert {
        f"first/set/{KEY}",
        f"second/set/{KEY}",
        f"notes/{stem}.txt",
        f"parts/{stem}/0.png",
        f"parts/{stem}/1.png",
    } <= {*found}
    assert found[f"notes/{stem}.txt"] == KEY.encode()
    # The source's annotation files stand beside each data set's images.
    for folder in ("first/set", "second/set"):
        assert {f"{folder}/images.txt", f"{folder}/bounding_boxes.txt"} <= {*found}
    rows = pa.read_table(tmp_path / "out/tables/numbers.parquet").to_pylist()
    assert [row["n"] for row in rows] == [0, 1] * 4
    assert rows[0]["key"] == KEY and rows[0]["label"] and rows[0]["split"] == "train"
    facts = json.loads((tmp_path / "out/fgfast/run.json").read_text())
    assert facts["source"]["run"] == "../run" and len(facts["source"]["run_sha256"]) == 64
    assert verify(tmp_path / "out").intact


def test_workers_do_not_change_a_byte_and_the_seed_does(source: Path, tmp_path: Path) -> None:
    alone = expanded(source, tmp_path / "alone")
    assert expanded(source, tmp_path / "two", in_process=False, workers=2) == alone
    other = expanded(source, tmp_path / "other", how=How(seed=1))
    assert other.keys() == alone.keys() and other[f"first/set/{KEY}"] != alone[f"first/set/{KEY}"]
    some = expanded(source, tmp_path / "some", selection=Selection(limit=2))
    images = {name for name in some if name.endswith((".jpg", ".png"))}
    assert len(images) == 8 and all(some[name] == alone[name] for name in images)


def test_a_resumed_expansion_makes_what_is_lost(source: Path, tmp_path: Path) -> None:
    whole = expanded(source, tmp_path / "out")
    (tmp_path / "out" / f"first/set/{KEY}").unlink()
    with planned(source, "test", tmp_path / "out") as plan:
        report = run(plan, in_process=True)
    assert report.resumed == 3 and report.changes.damaged == (KEY,)
    assert {n: d for n, d in files_below(tmp_path / "out").items() if n not in ABOUT} == whole
    assert expanded(source, tmp_path / "out", mode="overwrite") == whole


def test_a_corrected_mask_is_made_again_and_nothing_else(source: Path, tmp_path: Path) -> None:
    before = expanded(source, tmp_path / "out")
    with Mender.open(source) as mender:
        mender.decide([Change(KEY, "mask", "brush", 0, bits=disc()), Change(OTHER, "reject", "reject", 0)], "me")
    with planned(source, "test", tmp_path / "out") as plan:
        report = run(plan, in_process=True)
    assert report.changes.changed == (KEY,)
    after = {name: data for name, data in files_below(tmp_path / "out").items() if name not in ABOUT}
    assert after[f"first/set/{KEY}"] != before[f"first/set/{KEY}"]
    assert any("skipped" in reason for reason in plan.reasons)
    assert report.changes.excluded == (OTHER,) and f"first/set/{OTHER}" in before
    assert not any(Path(OTHER).stem in name for name in after)
    assert after["tables/numbers.parquet"] != before["tables/numbers.parquet"]
    anew = expanded(source, tmp_path / "anew")
    numbered = "fgfast/instances.json"  # samples keep the numbers that they had
    assert after.keys() == anew.keys() and all(after[name] == anew[name] for name in anew if name != numbered)


def test_another_kind_takes_the_place_of_the_first_and_leaves_nothing_of_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    expanded(source, out)
    (out / "whole.txt.mine").write_text("a person's own file")
    with planned(source, "bare", out) as plan, pytest.raises(SettingsDifferError, match="expansion: 'test' -> 'bare'"):
        run(plan, in_process=True)
    with planned(source, "bare", out) as plan:
        run(plan, in_process=True, mode="overwrite")
    tops = {path.name for path in out.iterdir()}
    assert tops == {"bare", "fgfast", "whole.txt.mine"}


def test_each_sample_ends_as_an_outcome_with_a_sentence(source: Path, tmp_path: Path) -> None:
    third = "images/002.Jay/Jay_0001_30.jpg"
    options = Options(refuse=KEY, skip=OTHER, unused=third)
    with planned(source, "test", tmp_path / "out", options=options) as plan:
        report = run(plan, in_process=True)
        again = run(plan, in_process=True)
    assert report.counts == {"done": 1, "flagged": 0, "skipped": 2, "failed": 1} == again.counts
    assert again.resumed == 3  # what failed is tried again
    assert "refused" in (tmp_path / "out/fgfast/failed.csv").read_text()
    assert KEY not in {*files_below(tmp_path / "out/first/set")}
    page = (tmp_path / "out/fgfast/report.html").read_text()
    assert "it is passed over" in page and "the plan leaves it out" in page


def test_a_bug_and_a_crash_cost_one_sample_each(source: Path, tmp_path: Path) -> None:
    whole = expanded(source, tmp_path / "whole")
    with planned(source, "test", tmp_path / "out", options=Options(raises=KEY, dies=OTHER)) as plan:
        report = run(plan, workers=2)
    assert report.counts == {"done": 2, "flagged": 0, "skipped": 0, "failed": 2}
    assert report.failures == {"internal error": 1, "crash": 1}
    failed = (tmp_path / "out/fgfast/failed.csv").read_text()
    assert "RuntimeError: a bug; please report it" in failed and "worker process crashed" in failed
    others = {name: data for name, data in files_below(tmp_path / "out/first/set").items() if name.endswith(".jpg")}
    assert len(others) == 2 and all(whole[f"first/set/{name}"] == data for name, data in others.items())
    assert not list((tmp_path / "out").rglob("*.part"))


def test_an_image_that_changed_since_the_run_fails(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/cub/CUB_200_2011" / KEY
    image.write_bytes((tmp_path / "data/cub/CUB_200_2011" / OTHER).read_bytes())
    with planned(source, "test", tmp_path / "out") as plan:
        report = run(plan, in_process=True)
    assert report.failures == {"changed": 1}
    assert "run convert again" in (tmp_path / "out/fgfast/failed.csv").read_text()


def changed_row(source: Path, key: str, column: str, value: object) -> None:
    """Let the run's ledger say something else about a sample."""
    with contextlib.closing(sqlite3.connect(source / "fgfast/ledger.sqlite", isolation_level=None)) as database:
        which = "WHERE id = (SELECT id FROM samples WHERE key = ?)"
        database.execute(f"UPDATE outcomes SET {column} = ? {which}", (value, key))


def test_a_run_that_changes_meanwhile_costs_only_what_it_changed(source: Path, tmp_path: Path) -> None:
    third = "images/002.Jay/Jay_0001_30.jpg"
    with planned(source, "test", tmp_path / "out") as plan:
        with Mender.open(source) as mender:
            mender.decide([Change(KEY, "reject", "reject", 0)], "me")
        with Ledger(source / "fgfast/ledger.sqlite") as ledger:
            ledger.intend([OTHER], [])  # convert makes it again
        changed_row(source, third, "rle", b"junk")
        report = run(plan, in_process=True)
    assert report.counts == {"done": 1, "flagged": 0, "skipped": 0, "failed": 3}
    assert report.failures == {"changed": 2, "damaged mask": 1}
    listed = (tmp_path / "out/fgfast/failed.csv").read_text()
    assert "no mask for it any more" in listed and "its mask in the run's ledger is damaged" in listed
    with planned(source, "test", tmp_path / "out") as plan:  # the rejected one leaves, the one that is made again stays
        assert run(plan, in_process=True).counts == {"done": 1, "flagged": 0, "skipped": 0, "failed": 1}


def test_a_run_that_is_begun_anew_costs_no_product(source: Path, tmp_path: Path) -> None:
    before = expanded(source, tmp_path / "out")
    with Ledger(source / "fgfast/ledger.sqlite") as ledger:
        ledger.intend([KEY, OTHER], [])  # as convert --overwrite does that was stopped
    with planned(source, "test", tmp_path / "out") as plan:
        report = run(plan, in_process=True)
    assert any("2 of the run's images are not converted yet" in reason for reason in plan.reasons)
    assert report.changes.kept == (KEY, OTHER) and report.resumed == 4 and report.changes.excluded == ()
    after = {name: data for name, data in files_below(tmp_path / "out").items() if name not in ABOUT}
    assert after == before


def test_flagged_samples_leave_with_skip_and_come_back_with_use(source: Path, tmp_path: Path) -> None:
    changed_row(source, KEY, "status", "flagged")
    changed_row(source, KEY, "reasons", json.dumps(["fill"]))
    out = tmp_path / "out"
    whole = expanded(source, out)
    with planned(source, "test", out, how=How(flagged="skip")) as plan:
        assert run(plan, in_process=True).counts == {"done": 3, "flagged": 0, "skipped": 0, "failed": 0}
    after = {name: data for name, data in files_below(out).items() if name not in ABOUT}
    assert f"first/set/{KEY}" in whole and not any(Path(KEY).stem in name for name in after)
    numbered = "fgfast/instances.json"
    again = expanded(source, out)
    assert again.keys() == whole.keys() and all(again[name] == whole[name] for name in whole if name != numbered)


def test_a_rejected_sample_moves_no_other_one_of_a_limit(source: Path, tmp_path: Path) -> None:
    def selected() -> set[str]:
        with planned(source, "test", tmp_path / "out", selection=Selection(limit=2)) as plan:
            return {sample.key for sample in plan.selected}

    before = selected()
    gone = sorted(before)[0]
    with Mender.open(source) as mender:
        mender.decide([Change(gone, "reject", "reject", 0)], "me")
    assert len(selected()) == 2 and selected() & before == before - {gone}


@pytest.mark.parametrize("lost", range(0, 100, 7))
def test_a_limit_is_spread_and_stays(lost: int) -> None:
    everything = list(range(0, 200, 2))
    before = spread(everything, set(everything), 10)
    assert before == tuple(range(0, 200, 20))
    after = spread(everything, set(everything) - {everything[lost]}, 10)
    assert len(after) == 10 and len(set(before) - set(after)) == (everything[lost] in before)
    assert spread(everything, set(everything[:5]), 10) == tuple(everything[:5])


def test_a_limit_takes_the_next_free_sample_from_each_place_on() -> None:
    draw = random.Random(5)
    for _ in range(300):
        everything = draw.sample(range(1000), draw.randint(1, 60))
        usable = {n for n in everything if draw.random() < draw.choice((0.1, 0.5, 0.95))}
        limit = draw.randint(1, len(everything))
        taken: set[int] = set()
        for number in range(min(limit, len(usable))):
            start = number * len(everything) // limit
            turned = everything[start:] + everything[:start]
            taken.add(next(n for n in turned if n in usable and n not in taken))
        expected = everything if limit >= len(usable) else taken
        assert spread(everything, usable, limit) == tuple(n for n in everything if n in usable and n in expected)


def test_a_limit_of_bunched_samples_takes_no_time() -> None:
    everything = range(200_000)  # as in a run half done; one after the other would take minutes
    started = time.process_time()
    assert spread(everything, set(range(100_000)), 99_000)[:3] == (0, 1, 2)
    assert time.process_time() - started < 3


def test_a_run_given_as_two_dots_has_its_name(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source / "fgfast")
    with planned("..", "test", tmp_path / "out") as plan:  # type: ignore[arg-type]
        assert plan.out == tmp_path / "out"
    with pytest.raises(OutputRefusedError, match="inside the run"), planned("..", "test", None):  # type: ignore[arg-type]
        pass
    assert folder_name(Path("..")) == "run" and folder_name(Path()) == "fgfast"


@pytest.mark.parametrize("call", [2, 5, 11])
def test_a_full_disk_ends_an_expansion_and_what_is_finished_stays(
    call: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = expanded(source, tmp_path / "whole")
    calls, create = iter(range(1, 10_000)), os.open

    def full(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path).endswith(".part") and flags & os.O_CREAT and next(calls) >= call:
            raise OSError(28, "No space left on device", str(path))
        return create(path, flags, *more, **named)

    with planned(source, "test", tmp_path / "out") as plan, monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OutputFailedError, match="free some space"):
            run(plan, in_process=True)
    assert expanded(source, tmp_path / "out") == whole
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_is_refused(source: Path, tmp_path: Path) -> None:
    expanded(source, tmp_path / "out")
    with pytest.raises(OutputRefusedError, match=r"is an expansion \(test\), not a run of convert: give .*run"):
        planned(tmp_path / "out", "test", tmp_path / "more")
    with pytest.raises(OutputRefusedError, match="is an expansion"):
        Mender.open(tmp_path / "out")
    for inside in (source, source / "more", tmp_path):
        with pytest.raises(OutputRefusedError):
            planned(source, "test", inside)
    with (
        planned(source, "test", tmp_path / "out", options=Options(colour=8)) as plan,
        pytest.raises(SettingsDifferError, match="colour: 9 -> 8"),
    ):
        run(plan, in_process=True)
    with pytest.raises(UsageError, match="colour must be a whole number from 0 to 255"):
        planned(source, "test", tmp_path / "new", options=Options(colour=300))
    with planned(source, "test", tmp_path / "new") as plan, pytest.raises(UsageError, match="in one process"):
        run(plan, in_process=True, workers=2)
    listed = tmp_path / "keys.txt"
    listed.write_text("\n".join(path for path in files_below(tmp_path / "out/first/set") if path.endswith(".jpg")))
    with pytest.raises(UsageError, match="no image of"):
        planned(source, "test", tmp_path / "new", selection=Selection(exclude=(str(listed),)))
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UsageError, match="--root"):
        planned(source, "test", tmp_path / "new")


def test_no_path_of_this_machine_is_in_the_output(source: Path, tmp_path: Path) -> None:
    for given, name in ((str(source), "run"), (f"places:{source}", "places:run")):
        with planned(source, "test", tmp_path / "out", options=Options(skip=given)) as plan:
            run(plan, in_process=True, mode="overwrite" if name != "run" else "auto")
            assert plan.fingerprint["skip"] == name
        facts = json.loads((tmp_path / "out/fgfast/run.json").read_text())
        assert facts["source"]["options"]["skip"] == name.replace("run", "../run")
        assert str(tmp_path).encode() not in (tmp_path / "out/fgfast/run.json").read_bytes()
        assert str(tmp_path).encode() not in (tmp_path / "out/fgfast/ledger.sqlite").read_bytes()
        assert str(tmp_path).encode() not in (tmp_path / "out/fgfast/report.html").read_bytes()


def test_the_command(source: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fgfast.cli import main

    out = tmp_path / "out"

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["expand", *arguments])

    dry = call(str(source), "test", "--out", str(out), "--dry-run")
    assert dry.exit_code == 0 and "test of cub: 4 of 4 images" in dry.output and not out.exists()
    found = call(str(source), "test", "--out", str(out), "--in-process", "--colour", "3", "--json")
    assert found.exit_code == 0 and json.loads(found.stdout)["counts"]["done"] == 4
    assert "the run comes first: fgfast expand RUN test" in call("test", str(source)).output
    assert "--colour" in call(str(source), "test", "--help").output
    assert call(str(source), "test", "--out", str(out), "--resume", "--overwrite").exit_code == 2


def test_help_imports_nothing_heavy() -> None:
    assert "waterbirds" in command("expand", "--help").stdout
