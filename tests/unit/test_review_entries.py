"""What `fgfast review` lists: columns of the ledger, sorted and filtered as the rows themselves would be."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from fgfast import ops
from fgfast.errors import OutputRefusedError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_columns import columns
from fgfast.records import STATUSES, Outcome, Sample, Size
from fgfast.review.entries import Entries, Query

RLE = ops.rle_encode(np.ones((4, 5), np.bool_))
KEYS = ["b/2.jpg", "a/<script>alert(1)</script>.jpg", "a/1..2.jpg", "c/ü é.jpg", "B/3:4.jpg", "a/0.jpg"]
CLASSES = ["two", "<b>", "", "two", "two", "<b>"]
DOUBTS = [0.5, None, 0.9, 0.5, 0.0, 1.0]


def ledger(folder: Path) -> Path:
    path = folder / "fgfast" / "ledger.sqlite"
    path.parent.mkdir(parents=True)
    with Ledger(path) as made:
        samples = [Sample(key, Path(key), label, "test") for key, label in zip(KEYS, CLASSES, strict=True)]
        made.register(reversed([*enumerate(samples)]))
        made.register([(99, Sample("z/none.jpg", Path("z"), "two"))])
        made.record(outcome(n, key) for n, key in enumerate(KEYS))
    return path


def outcome(n: int, key: str) -> Outcome:
    status = STATUSES[n % 4]
    written = status in ("done", "flagged")
    return Outcome(
        *(key, status, "write"), twin=key if written else None, size=Size(4, 5), twin_size=Size(4, 5), rle=RLE,
        doubt=DOUBTS[n], numbers={"fill": 0.5},
    )  # fmt: skip


@pytest.fixture
def entries(tmp_path: Path) -> Entries:
    with Ledger(ledger(tmp_path), write=False) as opened:
        return Entries(columns(opened))


def keys(entries: Entries, **query: object) -> list[str]:
    return [entries.columns.keys[n] for n in entries.query(Query(**query))]  # type: ignore[arg-type]


def test_columns_are_those_of_the_rows(tmp_path: Path) -> None:
    with Ledger(ledger(tmp_path), write=False) as opened:
        found, rows = columns(opened), [*opened.outcomes()]
    assert found.keys == [o.key for o in rows] == KEYS
    assert found.ids.tolist() == [o.id for o in rows]
    assert [STATUSES[code] for code in found.statuses] == [o.status for o in rows]
    assert [None if np.isnan(d) else pytest.approx(float(d)) for d in found.doubts] == DOUBTS
    assert [found.classes[code] for code in found.labels] == CLASSES


def test_order_and_filters(entries: Entries) -> None:
    by_doubt = ["a/0.jpg", "a/1..2.jpg", "b/2.jpg", "c/ü é.jpg", "B/3:4.jpg", "a/<script>alert(1)</script>.jpg"]
    assert keys(entries) == by_doubt  # ties in the data set's order, unknown last
    assert keys(entries, order="key") == sorted(KEYS)
    assert keys(entries, order="class")[:1] == ["a/1..2.jpg"]
    assert keys(entries, label="<b>") == ["a/0.jpg", "a/<script>alert(1)</script>.jpg"]
    assert keys(entries, status="flagged", text="SCRIPT") == ["a/<script>alert(1)</script>.jpg"]
    assert keys(entries, text="É") == ["c/ü é.jpg"]
    assert keys(entries, split="test") == by_doubt
    with pytest.raises(UsageError):
        keys(entries, label="three")
    with pytest.raises(UsageError):
        Query(order="size")


def test_decisions_flags_and_later(entries: Entries) -> None:
    assert entries.left() == 2
    entries.decide(1, "wrong subject")
    entries.later.add(5)
    assert entries.left() == 1 and keys(entries, decided="yes") == keys(entries, cause="wrong subject") == [KEYS[1]]
    assert keys(entries, decided="later") == [KEYS[5]] and len(keys(entries, decided="no")) == 5
    entries.decide(5, "")
    assert keys(entries, decided="later") == []
    entries.decide(1, None)
    entries.set_status(1, "done")
    assert entries.left() == 0 or entries.counts()["flagged"] == 1
    entries.set_flags(0, {"fill": "It is full.", "empty": "It is empty."})
    entries.set_flags(2, {"empty": "It is empty."})
    assert keys(entries, flag="empty") == [KEYS[2], KEYS[0]] and entries.flag_counts() == {"fill": 1, "empty": 2}
    assert keys(entries, flag="none") == []


def test_numbers_of_entries(entries: Entries) -> None:
    for place in range(len(entries)):
        assert entries.index(entries.number(place)) == place
    for number in (0, -1, 77, 1 << 32, 1 << 70):
        assert entries.index(number) is None
    # By the logarithm: 0.5 is in the second bin below 1, 0 with all below 0.0001.
    assert entries.histogram() == [1, *[0] * 17, 2, 2]
    assert entries.doubt_bytes(np.arange(6)).tolist() == [236, 0, 252, 236, 1, 255]


def test_flags_are_counted_while_they_are_found(entries: Entries) -> None:
    over = threading.Event()

    def find() -> None:
        while not over.is_set():
            for n in range(64):
                entries.set_flags(n % 6, {f"flag {n}": "It is one."})
            entries.flags.clear()

    finding = threading.Thread(target=find)
    finding.start()
    try:
        for _ in range(2000):
            assert all(entries.sentences[name] for name in entries.flag_counts())
    finally:
        over.set()
        finding.join()


def test_many_flags_do_not_overflow(entries: Entries) -> None:
    entries.set_flags(0, {f"flag {n}": "" for n in range(100)})
    assert len(entries.flags) == 64


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE samples SET key = '../../x' WHERE id = 2",
        "UPDATE samples SET key = x'00' WHERE id = 2",
        "UPDATE samples SET label = x'00' WHERE id = 2",
        "UPDATE samples SET position = 'x' WHERE id = 2",
        "UPDATE outcomes SET doubt = 7 WHERE id = 2",
        "UPDATE outcomes SET doubt = 'x' WHERE id = 2",
        "UPDATE outcomes SET id = 555 WHERE id = 2",
        "UPDATE samples SET id = -5 WHERE id = 2",
    ],
)
def test_a_ledger_of_a_stranger_is_checked(tmp_path: Path, damage: str) -> None:
    path = ledger(tmp_path)
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    with Ledger(path, write=False) as opened, pytest.raises(OutputRefusedError):
        columns(opened)


def test_an_output_without_outcomes(tmp_path: Path) -> None:
    path = tmp_path / "fgfast" / "ledger.sqlite"
    path.parent.mkdir()
    with Ledger(path) as opened:
        entries = Entries(columns(opened))
    assert len(entries) == 0 and entries.query(Query()).tolist() == [] and entries.left() == 0
