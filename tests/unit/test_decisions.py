"""Decisions are stored durably, all or none, and never changed; a file of them may come from a stranger."""

from __future__ import annotations

import resource
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_database import Change, outcome, plain, schemas

from fgfast.errors import OutputFailedError, OutputRefusedError, UsageError
from fgfast.io import decisions as module
from fgfast.io.decisions import Decision, Decisions, decided_in, in_force, undecided
from fgfast.io.ledger import Ledger
from fgfast.ops import rle_encode
from fgfast.records import Outcome, Size

BOX = np.array([1, 2, 20, 15.5], np.float32)


def mask(seed: int) -> bytes:
    return rle_encode(np.random.default_rng(seed).random((20, 30)) < 0.5)


def decision(key: str = "a.png", verdict: str = "accept", **more: Any) -> Decision:
    masks: dict[str, Any] = {"before": mask(0)}
    if verdict == "mask":
        masks |= {"after": mask(1), "box": BOX}
    given = {"how": verdict, "who": "ann", "when": "2026-12-01T02:20:00+00:00", "seen": 0, "size": Size(20, 30)}
    return Decision(key, verdict, **{**given, "source": b"\1" * 32, **masks, **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "out/fgfast").mkdir(parents=True)
    return tmp_path / "out/fgfast/decisions.sqlite"


def same(a: object, b: object) -> bool:
    if isinstance(a, (Decision, Outcome)):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b  # type: ignore[arg-type]


def test_what_is_stored_comes_back(path: Path) -> None:
    was = replace(outcome("a.png", rle=mask(0)), numbers={"empty": 0.25}, doubt=0.5)
    given = [
        decision(was=was, doubt=0.25, cause="wrong subject", note="it's\nthe \u202ebird", seen=0),
        decision("b/\xe4.png", "mask", how="brush"),
        decision("c.png", "reject", before=None, size=None, source=b""),
        decision("a.png", "undo", undoes=1, seen=1, after=mask(0)),
    ]
    with Decisions(path, write=True) as db:
        assert db.append(given[:3]) == [1, 2, 3]
        assert db.append(given[3:]) == [4]
        db.finish([2, 1])
    with Decisions(path) as db:
        found = [*db.all()]
        assert [d.number for d in found] == [1, 2, 3, 4]
        assert [d.done for d in found] == [True, True, False, False]
        assert all(same(replace(d, number=0, done=False), g) for d, g in zip(found, given, strict=True))
        assert [d.number for d in db.unfinished()] == [3, 4]
        assert [d.number for d in db.of("a.png")] == [1, 4]
        assert (db.last(), db.last("a.png"), db.last("c.png"), db.last("no")) == (4, 4, 3, 0)
        assert (db.get(9), db.get(2) is not None) == (None, True)
        assert db.in_force().keys() == {"b/\xe4.png", "c.png"}


def test_a_decision_of_no_form_is_refused_before_it_is_stored() -> None:
    for wrong in (
        *({"key": "../x"}, {"verdict": "perhaps"}, {"cause": "bad luck"}, {"when": "yesterday"}, {"doubt": 1.5}),
        *(
            {"who": "x" * 201},
            {"how": "x" * 101},
            {"note": "x" * 10_001},
            {"note": "\ud800"},
            {"source": b"\0"},
            {"size": None},
        ),
        *({"size": Size(0, 5)}, {"size": Size(1 << 20, 1 << 20)}, {"undoes": 1}, {"number": 3, "seen": 3}),
        *({"before": b"\xff"}, {"box": np.array([0, 0, np.inf, 1], np.float32)}),
        *({"verdict": "mask"}, {"verdict": "undo"}),
    ):
        with pytest.raises(ValueError, match=r"is|are|has|undoes"):
            replace(decision(), **wrong)


def numbered(*decisions: Decision) -> list[Decision]:
    return [replace(d, number=n) for n, d in enumerate(decisions, 1)]


def undo(number: int) -> Decision:
    return decision(verdict="undo", undoes=number)


@pytest.mark.parametrize(
    ("decisions", "holds", "run_is_seen_by"),
    [
        ([], None, None),
        ([decision()], 1, 1),
        ([decision(), decision(verdict="mask")], 2, 1),
        ([decision(), decision(verdict="mask"), undo(2)], 1, 1),
        ([decision(), decision(verdict="mask"), undo(2), undo(3)], 2, 1),
        ([decision(), undo(1)], None, 1),
        ([decision(), undo(1), undo(2)], 1, 3),
        ([decision(), undo(1), undo(2), undo(3)], None, 3),
        ([decision(), undo(1), decision(verdict="reject")], 3, 3),
        # An older one is undone: what came later stays.
        ([decision(), decision(verdict="mask"), undo(1)], 2, 1),
        ([decision(), decision(verdict="mask"), undo(1), undo(2)], None, 1),
    ],
)
def test_undoing_and_undoing_that(decisions: list[Decision], holds: int | None, run_is_seen_by: int | None) -> None:
    ordered = numbered(*decisions)
    held, first = in_force(ordered[::-1]), undecided(ordered)
    assert (held and held.number) == holds
    assert (first and first.number) == run_is_seen_by


def test_the_digest_is_of_what_holds_and_not_of_who_or_when(path: Path) -> None:
    digests = {}
    for name, given in {
        "none": [],
        "one": [decision()],
        "another person": [decision(who="bob", when="2027-01-01T00:00:00Z", note="?")],
        "mask": [decision(verdict="mask")],
        "other mask": [decision(verdict="mask", after=mask(2))],
        "other box": [decision(verdict="mask", box=BOX + 1)],
        "other image": [decision(source=b"\2" * 32)],
        "undone": [decision(), undo(1)],
        "other order": [decision("b.png"), decision("a.png")],
        "two": [decision("a.png"), decision("b.png")],
    }.items():
        path.unlink(missing_ok=True)
        with Decisions(path, write=True) as db:
            db.append(given)
            digests[name] = db.digest()
    assert digests["one"] == digests["another person"]
    assert digests["none"] == digests["undone"]
    assert digests["two"] == digests["other order"]
    assert len(set(digests.values())) == len(digests) - 3


def test_where_nobody_decided_there_is_nothing(path: Path) -> None:
    assert decided_in(path.parent) == {}
    with pytest.raises(OutputRefusedError, match="there is no file of decisions"):
        Decisions(path)
    with pytest.raises(UsageError, match=r"give a decisions\.sqlite"):
        Decisions.named(path.parent.parent)
    path.touch()  # of a review that was killed before it wrote
    assert decided_in(path.parent) == {}
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(OutputRefusedError):
        decided_in(path.parent)


def test_a_file_is_named_by_itself_or_by_its_output(path: Path, tmp_path: Path) -> None:
    with Decisions(path, write=True) as db:
        db.append([decision()])
    (tmp_path / "link").symlink_to(path.parent)
    for given in (tmp_path / "out", path, tmp_path / "link/decisions.sqlite"):
        with Decisions.named(given) as db:
            assert db.last() == 1


def test_a_ledger_is_no_file_of_decisions_and_the_other_way_round(path: Path) -> None:
    with Ledger(path.with_name("ledger.sqlite")):
        pass
    with Decisions(path, write=True):
        pass
    with pytest.raises(OutputRefusedError, match="not a ledger"):
        Ledger(path)
    shutil.copy(path.with_name("ledger.sqlite"), path)
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(OutputRefusedError, match="not a file of decisions of fgfast; give another file"):
            Decisions(path, write)
    assert path.read_bytes() == before


SCHEMAS: dict[str, Change] = {
    **schemas("decisions", "finished"),
    "view": lambda db: db.executescript("DROP TABLE finished; CREATE VIEW finished AS SELECT 1 AS number"),
    "version": lambda db: db.execute("PRAGMA user_version = 9"),
}


@pytest.mark.parametrize("change", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_another_schema_is_refused_and_nothing_changes(change: Change, path: Path) -> None:
    with Decisions(path, write=True) as db:
        db.append([decision()])
    with plain(path) as raw:
        change(raw)
    before = path.read_bytes()
    for read in (lambda: Decisions(path), lambda: Decisions(path, write=True), lambda: decided_in(path.parent)):
        with pytest.raises(OutputRefusedError, match="move"):
            read()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        *(
            "key = '../../x'",
            "key = x'00'",
            "verdict = 'perhaps'",
            "moment = 'now'",
            "who = replace(hex(zeroblob(200)),'0','x')",
        ),
        *("seen = 7", "seen = -1", "cause = 'bad'", "doubt = 'x'", "doubt = 9e99", "source = x'00'"),
        *("height = NULL", "height = 0", "height = 1 << 40", "x0 = NULL", "x0 = 9e99", "before = 'text'"),
        *("before = x'ff'", "undoes = 5", "undoes = 1", "was = '{}'", "was = '[1]'", "number = -4", "number = 1 << 62"),
        *(
            "was = replace(hex(zeroblob(5000)), '0', '[')",
            "was = '[' || was || ']'",
            "was = replace(was, 'done', 'gone')",
        ),
        *("was = replace(was, '1.5', '9e99')", "was = replace(was, '\"write\"', '7')"),
    ],
)
def test_a_value_that_no_review_writes_is_damage(change: str, path: Path) -> None:
    with Decisions(path, write=True) as db:
        db.append([decision(verdict="mask", was=outcome("a.png", rle=mask(0)))])
        assert len([*db.all()]) == 1
    with plain(path) as raw:
        assert raw.execute(f"UPDATE decisions SET {change}").rowcount == 1
    with Decisions(path) as db, pytest.raises(OutputRefusedError, match="is damaged"):
        db.last(), [*db.all()]
    with pytest.raises(OutputRefusedError, match=r"restore it from a copy"):
        decided_in(path.parent) and Decisions(path).last()


def test_a_full_disk_stores_none_of_a_batch_and_keeps_the_earlier_ones(path: Path) -> None:
    with Decisions(path, write=True) as db:
        db.append([decision()])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4096, hard))
        try:
            with pytest.raises(OutputFailedError, match="Earlier decisions are kept: free some space"):
                db.append([decision(f"{n}.png", note="x" * 9000) for n in range(50)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert db.last() == 1
        assert db.append([decision("b.png")]) == [2]
    with Decisions(path) as db:
        assert [d.key for d in db.all()] == ["a.png", "b.png"]


def test_the_name_of_the_file_is_the_one_that_an_overwritten_output_may_hold() -> None:
    from fgfast.io import output

    assert {module.FILE, f"{module.FILE}-journal"} <= {*output._BEFORE_THE_LEDGER}
