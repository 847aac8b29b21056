"""A ledger from a stranger: nothing in it acts, and what a run would not write is an error with a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_database import STAMP, Change, outcome, plain, schemas

from fgfast.errors import OutputRefusedError
from fgfast.io import database
from fgfast.io.ledger import Ledger
from fgfast.io.output import Output
from fgfast.ops import rle_encode
from fgfast.pipeline.verify import verify
from fgfast.records import Sample


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output of two images, whose files are not there."""
    (tmp_path / "out/fgfast").mkdir(parents=True)
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite") as ledger:
        ledger.register((n, Sample(key, Path(key))) for n, key in enumerate(("a.png", "b.png")))
        ledger.record(outcome(key, files={f"twin/{key}": STAMP}) for key in ("a.png", "b.png"))
        ledger.set_meta({"fingerprint": {}, "folder": "twin", "clean": True, "source": {"root": "../in"}})
    return tmp_path / "out"


@pytest.fixture
def path(out: Path) -> Path:
    return out / "fgfast/ledger.sqlite"


def rewrite_schema(db: sqlite3.Connection, old: str, new: str) -> None:
    db.execute("PRAGMA writable_schema = ON")
    assert db.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?)", (old, new)).rowcount
    db.execute("PRAGMA writable_schema = RESET")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS name, i AS value FROM n"
SCHEMAS: dict[str, Change] = {
    **schemas("meta", "files"),
    "view": lambda db: db.executescript(f"DROP TABLE meta; CREATE VIEW meta AS {ENDLESS}"),
    "another view": lambda db: db.execute(f"CREATE VIEW more AS {ENDLESS}"),
    "index": lambda db: db.execute("CREATE INDEX more ON files (abs(size))"),
    "virtual table": lambda db: db.execute("CREATE VIRTUAL TABLE more USING fts5(x)"),
    "generated column": lambda db: rewrite_schema(db, "label    TEXT NOT NULL", "label TEXT AS (hex(key)) VIRTUAL"),
    "check": lambda db: rewrite_schema(db, "CHECK (status IN", "CHECK (1 OR status IN"),
    "statistics": lambda db: db.execute("ANALYZE"),
    "two tables on one page": lambda db: db.executescript(
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 2 WHERE type = 'table'"
    ),
}


@pytest.mark.parametrize("change", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_another_schema_is_refused_by_every_reader_and_nothing_changes(
    change: Change, out: Path, path: Path, tmp_path: Path
) -> None:
    with plain(path) as db:
        change(db)
    before = path.read_bytes()
    output = Output(out, "twin")
    readers: list[Callable[[], object]] = [
        lambda: Ledger(path),
        lambda: verify(out),
        lambda: output.preflight("auto", {}),
        lambda: output.preflight("overwrite", {}),
        output.recorded,
        output.known_keys,
        lambda: output.open("overwrite", {}, tmp_path / "in"),
    ]
    for read in readers:
        with pytest.raises(OutputRefusedError, match="choose another --out"):
            read()
    output.__exit__()
    assert path.read_bytes() == before


def interrupted(path: Path, to: Path) -> None:
    """Copy a ledger as a kill in the middle of a transaction leaves it, with its journal."""
    with plain(path) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.executemany("INSERT INTO meta VALUES (?, ?)", ((f"n{n}", "x" * 900) for n in range(200)))
        to.parent.mkdir(parents=True)
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{to}{suffix}")


def test_a_journal_that_names_another_file_would_delete_it_and_is_refused(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "precious.txt"

    def attack(name: str) -> Path:
        copy = tmp_path / name / "ledger.sqlite"
        interrupted(path, copy)
        victim.write_text("precious")
        named = str(victim).encode()
        with Path(f"{copy}-journal").open("ab") as journal:  # pager.c, writeSuperJournal
            journal.write(struct.pack(">I", 0x40000000 // 4096 + 1) + named)
            journal.write(struct.pack(">II", len(named), sum(named)) + bytes.fromhex("d9d505f920a163d7"))
        return copy

    with contextlib.closing(sqlite3.connect(attack("as SQLite does"))) as db:
        db.execute("SELECT * FROM meta")
    assert not victim.exists()
    for write in (True, False):
        with pytest.raises(OutputRefusedError, match="names another file"):
            Ledger(attack(str(write)), write)
        assert victim.read_text() == "precious"


@pytest.mark.parametrize("write", [True, False])
def test_our_own_journal_is_rolled_back(write: bool, path: Path, tmp_path: Path) -> None:
    interrupted(path, tmp_path / "copy/ledger.sqlite")
    with Ledger(tmp_path / "copy/ledger.sqlite", write) as ledger:
        assert (ledger.meta("n1"), ledger.meta("folder")) == (None, "twin")
        ledger.check()


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-journal", "ledger.sqlite-wal", "ledger.sqlite-shm"])
def test_links_and_logs_beside_the_ledger_are_refused(name: str, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes())
    link = path.with_name(name)
    link.unlink(missing_ok=True)
    link.symlink_to(other)
    for write in (True, False):
        with pytest.raises(OutputRefusedError, match="was not made by fgfast"):
            Ledger(path, write)


def make_endless(path: Path) -> None:
    """Replace the table of samples by a tree whose pages all lead to the same page below, eight levels deep."""
    with plain(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'samples'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    count, cells = len(data) // size, 400
    leaf = bytes(data[(root - 1) * size : root * size])
    for level in range(8):
        below = count + level + 1
        page = bytearray(size)
        page[:12] = struct.pack(">BHHHBI", 5, 0, cells, size - 5 * cells, 0, below)
        for n in range(cells):
            page[12 + 2 * n : 14 + 2 * n] = struct.pack(">H", size - 5 * (n + 1))
            page[size - 5 * (n + 1) : size - 5 * n] = struct.pack(">IB", below, 1)
        if level == 0:
            data[(root - 1) * size : root * size] = page
        else:
            data += page
    data += leaf
    data[28:32] = struct.pack(">I", len(data) // size)
    path.write_bytes(data)


def test_a_tree_without_end_ends(path: Path) -> None:
    make_endless(path)
    with Ledger(path, write=False) as ledger, pytest.raises(OutputRefusedError, match="more work than it has content"):
        ledger.labels()


def test_a_hole_in_the_file_explains_no_work(path: Path) -> None:
    make_endless(path)
    os.truncate(path, 1 << 40)
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("no holes on this disk")
    with Ledger(path, write=False) as ledger, pytest.raises(OutputRefusedError, match="more work than it has content"):
        next(ledger._rows("SELECT sum(length(label)) FROM samples"))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_signal_interrupts_a_query(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_endless(path)
    monkeypatch.setattr(database, "STEPS", 1 << 60)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with Ledger(path, write=False) as ledger:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                next(ledger._rows("SELECT sum(length(label)) FROM samples"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


DEEP = "[" * 100_000
META: list[tuple[str, Any]] = [
    ("fingerprint", "[]"),
    ("fingerprint", DEEP),
    ("fingerprint", '{"a":' * 100_000),
    ("fingerprint", "9" * 5000),
    ("fingerprint", b"\xff\xfe{"),
    ("fingerprint", " " * (2 << 20)),
    ("folder", '"../other"'),
    ("folder", '"/tmp"'),
    ("folder", '"a/b"'),
    ("folder", "3"),
    ("clean", '"yes"'),
    ("being_deleted", "1"),
    ("committing", "{}"),
    ("committing", '["../x"]'),
    ("committing", '["twin/../../x"]'),
    ("committing", '["/etc/passwd"]'),
    ("committing", '["a\\u0000b"]'),
    ("committing", "[1]"),
    ("whole_files", "[1, 2]"),
    ("whole_files", '{"../x": [1, "00"]}'),
    ("whole_files", '{"x": 3}'),
    ("whole_files", '{"x": [1e999, "00"]}'),
    ("source", '{"root": 3}'),
    ("source", '{"root": "a\\u0000"}'),
    ("source", '{"root": "a\\udfff"}'),
    ("committing", '["a\\ud800"]'),
    ("runs", '[{"processed": 1e400, "seconds": NaN}]'),
    ("runs", "[3]"),
]


@pytest.mark.parametrize(("name", "value"), META)
def test_other_values_than_a_run_stores_are_damage(name: str, value: Any, path: Path) -> None:
    with plain(path) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
    with Ledger(path, write=False) as ledger, pytest.raises(OutputRefusedError, match="damaged"):
        ledger.meta(name)


ROWS: list[tuple[str, Any]] = [
    ("status", "odd"),
    ("status", "failed"),  # with a twin
    ("stage", b"write"),
    ("reasons", "{"),
    ("reasons", "[1]"),
    ("reasons", DEEP),
    ("numbers", '{"empty": "x"}'),
    ("numbers", '{"empty": 1e999}'),
    ("numbers", '{"empty": ' + "9" * 400 + "}"),
    ("numbers", "[]"),
    ("doubt", "much"),
    ("doubt", 9e999),
    ("detail", "x" * (2 << 20)),
    ("warnings", "null"),
    ("twin", "/etc/passwd"),
    ("twin", "../../precious.png"),
    ("twin", "a\\..\\b.png"),
    ("twin", "a\0.png"),
    ("twin", None),
    ("width", -30),
    ("width", 1 << 40),
    ("width", 30.5),
    ("twin_height", None),
    ("offset_x", 1 << 40),
    ("x0", "left"),
    ("x0", None),
    ("x0", 1e300),
    ("others", "[[1]]"),
    ("others", '[[1, 2, 3, 4, "x", "bird"]]'),
    ("others", DEEP),
    ("area", "large"),
    ("rle", None),
    ("rle", b"\xff\xff"),
    ("rle", "text"),
    ("quality", b"1"),
    ("source_size", -1),
    ("source_size", None),
    ("source_sha256", b""),
    ("annotation", "text"),
    ("seconds", '{"decode": null}'),
    ("seconds", DEEP),
]


@pytest.mark.parametrize(("column", "value"), ROWS, ids=[f"{column}-{str(value)[:20]!r}" for column, value in ROWS])
def test_other_rows_than_a_run_writes_are_damage(column: str, value: Any, out: Path, path: Path) -> None:
    with plain(path) as db:
        db.execute(f"UPDATE outcomes SET {column} = ? WHERE id = 2", (value,))
    with Ledger(path, write=False) as ledger, pytest.raises(OutputRefusedError, match="damaged"):
        list(ledger.outcomes())
    with pytest.raises(OutputRefusedError, match="damaged"):
        verify(out)


@pytest.mark.parametrize("key", ["../a.png", "/a.png", "x" * 5000, b"a.png", "a\0"])
def test_other_keys_than_a_run_has_are_damage(key: Any, path: Path) -> None:
    with plain(path) as db:
        db.execute("UPDATE samples SET key = ? WHERE id = 2", (key,))
    with Ledger(path, write=False) as ledger:
        for read in (ledger.labels, lambda: list(ledger.outcomes()), lambda: list(ledger.finished())):
            with pytest.raises(OutputRefusedError, match="damaged"):
                read()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("path", "../../x"),
        ("path", "/x"),
        ("path", b"x"),
        ("size", -1),
        ("size", "x"),
        ("mtime_ns", 0.5),
        ("sha256", b""),
    ],
)
def test_other_files_than_a_run_writes_are_damage(column: str, value: Any, path: Path) -> None:
    with plain(path) as db:
        db.execute(f"UPDATE files SET {column} = ? WHERE id = 2", (value,))
    with Ledger(path) as ledger:
        with pytest.raises(OutputRefusedError, match="damaged"):
            list(ledger.finished())
        if column == "path":
            for read in (lambda: list(ledger.paths()), lambda: ledger.intend(["b.png"], [])):
                with pytest.raises(OutputRefusedError, match="damaged"):
                    read()


def test_a_mask_of_another_size_is_damage(tmp_path: Path) -> None:
    from fgfast.io import coco

    wrong = outcome("a.png")
    object.__setattr__(wrong, "rle", rle_encode(np.ones((3, 3), np.bool_)))
    with pytest.raises(OutputRefusedError, match="damaged"), coco.instances(tmp_path / "i.json", {}, (), "x") as add:
        add(wrong)


@pytest.mark.parametrize("folder", ["twin", "src"])
def test_only_the_user_s_word_deletes_and_only_what_a_run_writes(
    folder: str, out: Path, path: Path, tmp_path: Path
) -> None:
    mine = ["src/main.c", "notes.txt", "fgfast/diary.txt"]
    theirs = ["twin/a.png", ".masks/a.png"]
    for name in mine + theirs:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    with Ledger(path) as ledger:
        ledger.set_meta({"being_deleted": True, "folder": folder, "committing": mine})
        ledger.set_meta({"whole_files": {name: [3, "0" * 64] for name in mine}})
    with plain(path) as db:
        for name in mine + theirs:
            db.execute("INSERT OR REPLACE INTO files VALUES (?, 1, 3, 5, ?)", (name, b"\0" * 32))
    with Output(out, "twin") as output:
        for mode in ("auto", "resume"):
            with pytest.raises(OutputRefusedError, match="--overwrite to finish"):
                output.preflight(mode, {})  # type: ignore[arg-type]
        with pytest.raises(OutputRefusedError, match="--overwrite to finish"):
            output.open("auto", {}, tmp_path / "in")
    assert all((out / name).is_file() for name in mine + theirs)
    with Output(out, "twin") as output:
        output.open("overwrite", {}, tmp_path / "in")
    assert all((out / name).read_text() == name for name in mine)
    assert (out / "twin/a.png").exists() == (folder == "src")  # there only what is as recorded is deleted
    assert not (out / ".masks").exists()


def test_junk_costs_what_it_weighs(path: Path) -> None:
    with plain(path) as db:
        db.execute("BEGIN")
        insert = "INSERT INTO samples (key, position, label, split) VALUES (?, 0, ?, '')"
        db.executemany(insert, ((f"k{n}", "x") for n in range(100_000)))
        db.execute(insert, ("long", "x" * (1 << 24)))
        db.execute("COMMIT")
    with Ledger(path, write=False) as ledger, pytest.raises(OutputRefusedError, match="label"):
        ledger.labels()


def test_meta_is_what_was_stored(path: Path) -> None:
    with Ledger(path) as ledger:
        values = {"whole_files": {"twin/x.txt": [3, "0" * 64]}, "committing": ["twin/a.png"], "being_deleted": False}
        ledger.set_meta(values)
        assert {name: ledger.meta(name) for name in values} == json.loads(json.dumps(values))
