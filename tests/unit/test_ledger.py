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
from fgfast.io.ledger import Ledger, OutputLock
from fgfast.io.output import Mode, Output
from fgfast.records import Outcome, Size


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
        seconds={"decode": 0.5},
    )


def failed(key: str) -> Outcome:
    return Outcome(key=key, status="failed", stage="decode", reasons=("missing",), detail="gone")


def test_what_is_recorded_comes_back(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.record([(5, done("b")), (2, failed("a"))])
    with Ledger(tmp_path / "l.sqlite") as ledger:
        first, second = ledger.outcomes()
        assert (first.key, first.status, first.reasons, first.detail) == ("a", "failed", ("missing",), "gone")
        assert (first.size, first.box, first.twin, first.rle) == (None, None, None, None)
        for name in Outcome.__slots__:
            if name != "box":
                assert getattr(second, name) == getattr(done("b"), name), name
        np.testing.assert_array_equal(second.box, done("b").box)
        assert ledger.counts() == {"done": 0, "flagged": 1, "skipped": 0, "failed": 1}
        assert list(ledger.finished()) == [("b", "b.png", "flagged")]
        assert [o.key for o in ledger.outcomes(("failed",))] == ["a"]


def test_a_retried_sample_has_one_outcome(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.record([(0, failed("a"))])
        ledger.record([(0, done("a"))])
        assert [o.status for o in ledger.outcomes()] == ["flagged"]


def test_values_are_kept_in_the_transaction_of_the_rows(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.set_meta({"committing": ["a"], "other": 1})
        statements: list[str] = []
        ledger._db.set_trace_callback(statements.append)
        ledger.record([(0, done("a"))], {"committing": ["b", "c"]})
        ledger._db.set_trace_callback(None)
        assert [s for s in statements if s in ("BEGIN", "COMMIT")] == ["BEGIN", "COMMIT"]
        assert (ledger.meta("committing"), ledger.meta("other")) == (["b", "c"], 1)
        with pytest.raises(sqlite3.IntegrityError):
            ledger.record([(1, done("b")), (2, replace(done("c"), stage=None))], {"committing": []})  # type: ignore[arg-type]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert [o.key for o in ledger.outcomes()] == ["a"]
        assert ledger.meta("committing") == ["b", "c"]


def test_the_ledger_does_not_limit_the_pipeline(tmp_path: Path) -> None:
    batches = [[(n, done(f"{n:05}")) for n in range(start, start + 256)] for start in range(0, 4096, 256)]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        start = time.perf_counter()
        for batch in batches:
            ledger.record(batch, {"committing": [o.key for _, o in batch]})
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
    refused = r"ledger version 1, but this fgfast reads only version 2; choose another --out, or delete this output"
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
        "import sys, time; from pathlib import Path; from fgfast.io.ledger import OutputLock\n"
        f"lock = OutputLock(Path({str(path)!r})); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputLockedError, match=str(holder.pid)):
            OutputLock(path)
        holder.kill()
        holder.wait()
    with OutputLock(path):
        pass
