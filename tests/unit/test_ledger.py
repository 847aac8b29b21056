from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgfast.errors import OutputLockedError, OutputRefusedError
from fgfast.files import FileStamp
from fgfast.io.ledger import Ledger
from fgfast.io.lock import OutputLock
from fgfast.io.output import Mode, Output
from fgfast.records import Outcome, Sample, Size

STAMP = FileStamp(3, 5, b"\0" * 32)


def done(key: str) -> Outcome:
    return Outcome(
        key=key,
        status="flagged",
        stage="write",
        reasons=("fragments", "no box"),
        twin=key + ".png",
        size=Size(20, 30),
        twin_size=Size(12, 10),
        offset=(-1, 4),
        box=np.array([1.5, 2, 8, 9], np.float32),
        box_reason="annotated box",
        others=((1.0, 2.0, 3.0, 4.5, 0.25, "bird"),),
        area=17,
        rle=b"abc\\\"'",
        quality=0.75,
        stability=0.5,
        box_score=0.25,
        box_name="jay",
        numbers={"fragments": 0.25},
        doubt=0.125,
        warnings=("odd tag",),
        source=STAMP,
        annotation=b"digest",
        files={f"twin/{key}.png": STAMP, f"fgfast/masks/{key}.png": STAMP},
        seconds={"decode": 0.5},
    )


def failed(key: str) -> Outcome:
    return Outcome(key=key, status="failed", stage="decode", reasons=("missing",), detail="gone")


def register(ledger: Ledger, *keys: str) -> None:
    ledger.register((n, Sample(key, Path(key), "jay" if key == "b" else "")) for n, key in enumerate(keys))


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "a", "b")
        ledger.record([done("b"), failed("a")])
    with Ledger(tmp_path / "l.sqlite") as ledger:
        first, second = ledger.outcomes()
        assert (first.key, first.status, first.reasons, first.detail) == ("a", "failed", ("missing",), "gone")
        assert (first.size, first.box, first.twin, first.rle, first.source) == (None,) * 5
        for name in set(Outcome.__slots__) - {"box", "files", "id"}:
            assert getattr(second, name) == getattr(done("b"), name), name
        np.testing.assert_array_equal(second.box, done("b").box)
        assert (first.id, second.id) == (1, 2)
        assert ledger.counts() == {"done": 0, "flagged": 1, "skipped": 0, "failed": 1}
        (row,) = ledger.finished()
        assert row == ("b", "flagged", "b.png", STAMP, b"digest", {"twin/b.png": STAMP, "fgfast/masks/b.png": STAMP})
        assert [o.key for o in ledger.outcomes(("failed",))] == ["a"]
        assert (ledger.keys("failed"), ledger.labels()) == ({"a"}, {"a": "", "b": "jay"})


def test_a_retried_sample_has_one_outcome(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "a")
        ledger.record([failed("a")])
        ledger.record([done("a")])
        assert [o.status for o in ledger.outcomes()] == ["flagged"]


def test_a_number_is_given_once_and_the_order_is_the_data_set_s(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "b", "d")
        ledger.record([done("b"), done("d")])
        register(ledger, "a", "b", "c", "d")
        ledger.forget(["d"])
        ledger.record([done("a"), done("c"), done("d")])
        assert [(o.key, o.id) for o in ledger.outcomes()] == [("a", 3), ("b", 1), ("c", 4), ("d", 2)]


def test_a_sample_that_is_written_again_has_no_outcome_in_between(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "a", "b")
        ledger.record([done("a"), done("b")])
        old = ledger.intend(["a"], ["twin/new.png"])
        assert sorted(old) == ["fgfast/masks/a.png", "twin/a.png"]
    with Ledger(tmp_path / "l.sqlite") as ledger:  # as after a kill
        assert [o.key for o in ledger.outcomes()] == ["b"]
        assert sorted(ledger.paths()) == ["fgfast/masks/b.png", "twin/b.png"]
        assert sorted(ledger.meta("committing")) == ["fgfast/masks/a.png", "twin/a.png", "twin/new.png"]


def test_a_record_is_whole_or_absent(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "a", "b", "c")
        statements: list[str] = []
        ledger._db.set_trace_callback(statements.append)
        ledger.record([done("a")])
        ledger._db.set_trace_callback(None)
        assert [s for s in statements if s in ("BEGIN", "COMMIT")] == ["BEGIN", "COMMIT"]
        with pytest.raises(OutputRefusedError, match="NOT NULL"):
            ledger.record([done("b"), replace(done("c"), stage=None)])  # type: ignore[arg-type]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert [o.key for o in ledger.outcomes()] == ["a"]


def test_products_that_are_not_files(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, "a", "b")
        ledger.record([replace(done("b"), data={"contour": b"2"}), replace(done("a"), data={"contour": b"1"})])
        ledger.record([replace(done("b"), data={"contour": b"3"})])
        assert list(ledger.data("contour")) == [("a", b"1"), ("b", b"3")]
        assert list(ledger.data("other")) == []
        ledger.intend(["b"], [])  # a killed run leaves no product beside a row that is not there
        assert list(ledger.data("contour")) == [("a", b"1")]


def test_the_ledger_does_not_limit_the_pipeline(tmp_path: Path) -> None:
    batches = [[done(f"{n:05}") for n in range(start, start + 256)] for start in range(0, 4096, 256)]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        register(ledger, *(o.key for batch in batches for o in batch))
        start = time.perf_counter()
        for batch in batches:
            ledger.intend([o.key for o in batch], [path for o in batch for path in o.files])
            ledger.record(batch)
        # 2,000 images per second are wanted; a fast disk takes 30,000.
        assert 4096 / (time.perf_counter() - start) > 2000


def test_foreign_files_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to look at" * 40)
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE x (y)")
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputRefusedError, match="choose another --out"):
            Ledger(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("mode", ["auto", "resume", "overwrite"])
def test_a_ledger_of_another_version_is_refused_and_kept(mode: Mode, tmp_path: Path) -> None:
    path = tmp_path / "out" / "fgfast" / "ledger.sqlite"
    path.parent.mkdir(parents=True)
    with Ledger(path) as ledger:
        ledger._db.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    refused = r"ledger version 1, but this fgfast reads only version 3; choose another --out, or delete this output"
    with Output(tmp_path / "out", "twin") as output:
        with pytest.raises(OutputRefusedError, match=refused):
            output.preflight(mode, {})
        with pytest.raises(OutputRefusedError, match=refused):
            output.open(mode, {}, tmp_path / "in")
    assert path.read_bytes() == before


def test_an_outcome_is_checked() -> None:
    with pytest.raises(ValueError, match="done needs twin"):
        Outcome(key="a", status="done", stage="write")
    with pytest.raises(ValueError, match="failed has no twin"):
        Outcome(key="a", status="failed", stage="write", twin="a")


def test_a_second_process_is_kept_out_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "fgfast" / "lock"
    path.parent.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from fgfast.io.lock import OutputLock\n"
        f"lock = OutputLock(Path({str(path)!r})); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputLockedError, match=f"process {holder.pid} on .*--read-only"):
            OutputLock(path)
        holder.kill()
        holder.wait()
    with OutputLock(path):
        pass


def test_who_reads_outcomes_one_by_one_keeps_nobody_from_writing(tmp_path: Path) -> None:
    path = tmp_path / "fgfast/ledger.sqlite"
    path.parent.mkdir()
    with Ledger(path) as ledger:
        register(ledger, *"abc")
        ledger.record([done("c"), failed("b"), done("a")])
        with Ledger(path, write=False) as other:
            reading = other.outcomes()
            assert next(reading).key == "a"
            begun = time.perf_counter()
            ledger.set_meta({"lists_stale": True})
            assert time.perf_counter() - begun < 5
            assert [o.key for o in reading] == ["b", "c"]
            assert [o.key for o in other.outcomes(("flagged",))] == ["a", "c"]


def test_a_ledger_that_is_being_written_for_long_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgfast.io.database._PATIENCE", 0.05)
    path = tmp_path / "fgfast/ledger.sqlite"
    path.parent.mkdir()
    with Ledger(path) as ledger, Ledger(path, write=False) as other:
        ledger._db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputLockedError, match="try again"):
            other.counts()
        ledger._db.execute("ROLLBACK")
        assert other.counts()["done"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its name there")
def test_who_has_a_deleted_ledger_open_leaves_the_new_one_alone(tmp_path: Path) -> None:
    """--overwrite beside a reader: the journal of the new ledger has the name of the old one's."""
    path = tmp_path / "fgfast/ledger.sqlite"
    path.parent.mkdir()
    with Ledger(path) as ledger:
        register(ledger, "a")
    with Ledger(path, write=False) as reader:
        assert reader.labels() == {"a": ""}
        path.unlink()
        with Ledger(path) as ledger:
            register(ledger, "b")
            with pytest.raises(OutputRefusedError, match="start the command again"):
                reader.labels()
    with Ledger(path, write=False) as reader:
        assert reader.labels() == {"b": "jay"}
