"""Notes that only this user can have written, and the key that makes them so."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest

from fgfast import keyed_notes
from fgfast.errors import OutputFailedError
from fgfast.keyed_notes import Stamp
from fgfast.writing import Target

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists instead of modes")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FGFAST_CACHE", raising=False)
    keyed_notes._key_in.cache_clear()
    return tmp_path / "state" / "fgfast"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "cache" / "file"
    file.parent.mkdir()
    file.write_bytes(b"content")
    return file


def noted(file: Path) -> Path:
    note = file.with_name("note")
    keyed_notes.write(note, "digest", file, Stamp.of(file), {"sha256": "a"})
    return note


def test_a_note_says_what_was_found_until_the_file_changes(file: Path, state: Path) -> None:
    note = noted(file)
    found = keyed_notes.read(note, "digest", file)
    assert found["sha256"] == "a" and keyed_notes.unchanged(found, file)
    assert note.stat().st_mode & 0o777 == (state / "note.key").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700 and (state / "note.key").stat().st_size == 32
    before = file.stat()
    file.write_bytes(b"forgery")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as tar does
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not keyed_notes.unchanged(found, file)


@pytest.mark.parametrize(
    "forged",
    [
        *(b"", b"{", b"[]", b"null", b"[" * 100_000, b"{}", b'{"mac": 1}', b'{"mac": "a", "kind": "digest"}', b"\xff"),
        b'{"kind": "digest", "n": ' + b"9" * 5000 + b"}",
        b" " * (keyed_notes._MOST_BYTES + 1),
    ],
)
def test_what_is_no_note_counts_as_none(file: Path, forged: bytes) -> None:
    note = noted(file)
    note.write_bytes(forged)
    assert keyed_notes.read(note, "digest", file) == {}


def test_a_note_of_something_else_counts_as_none(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = noted(file)
    assert keyed_notes.read(note, "engine", file) == {}
    assert keyed_notes.read(note, "digest", file.with_name("other")) == {}
    facts = json.loads(note.read_text())
    for change in ({"sha256": "b"}, {"size": 8}, {"kind": "engine"}, {"mac": "0" * 64}, {"more": 1}):
        note.write_text(json.dumps({**facts, **change}))
        assert keyed_notes.read(note, "digest", file) == keyed_notes.read(note, "engine", file) == {}
    note.write_text(json.dumps(facts))
    assert keyed_notes.read(note, "digest", file)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert keyed_notes.read(note, "digest", file) == {}


@pytest.mark.parametrize("fault", ["readable", "link", "hard link", "folder", "folder open", "folder link", "too long"])
def test_a_key_that_is_not_private_is_not_used(
    file: Path, state: Path, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    note = noted(file)
    key, known = state / "note.key", (state / "note.key").read_bytes()
    if fault == "readable":
        key.chmod(0o640)
    elif fault == "link":
        key.rename(tmp_path / "key")
        key.symlink_to(tmp_path / "key")
    elif fault == "hard link":
        os.link(key, tmp_path / "key")
    elif fault == "folder":
        key.unlink()
        key.mkdir()
    elif fault == "folder open":
        state.chmod(0o770)
    elif fault == "folder link":
        state.rename(tmp_path / "elsewhere")
        state.symlink_to(tmp_path / "elsewhere")
    else:
        key.write_bytes(known + b"x")
    keyed_notes._key_in.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert keyed_notes.read(note, "digest", file) == {}
        noted(file)
        # Within the process the note is known; the one on disk, made with the right key, stays.
        assert keyed_notes.read(note, "digest", file)["sha256"] == "a" and not keyed_notes.private_name("x")
    assert len(caplog.records) == 1 and "note.key cannot keep the key" in caplog.text
    assert "XDG_STATE_HOME" in caplog.text


def test_a_key_within_the_cache_is_not_used(
    state: Path, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(state.parent))
    note = noted(file)
    assert not note.exists() and not state.exists() and "which an archive could bring" in caplog.text


def test_half_a_key_of_a_killed_process_is_made_anew(state: Path, file: Path) -> None:
    state.mkdir(parents=True)
    (state / "note.key").write_bytes(b"half")
    (state / "note.key").chmod(0o600)
    assert keyed_notes.read(noted(file), "digest", file)
    assert (state / "note.key").stat().st_size == 32


def test_a_note_of_a_folder_that_is_not_writable_goes_to_the_users_own(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, note = keyed_notes.write_file, file.with_name("note")

    def refused(target: Target, data: bytes, mode: int) -> None:
        if target.path.parent == file.parent:
            raise OutputFailedError(f"cannot write {target.path}: Permission denied")
        real(target, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(keyed_notes, "write_file", refused)
        noted(file)
    assert not note.exists() and keyed_notes.read(note, "digest", file)
    noted(file)
    keyed_notes.remove(note)
    assert not note.exists() and not keyed_notes.read(note, "digest", file)


def test_a_name_that_nobody_else_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = keyed_notes.private_name("compiled")
    assert mine == keyed_notes.private_name("compiled") != keyed_notes.private_name("other")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert keyed_notes.private_name("compiled") != mine


def test_a_folder_that_cannot_be_made_is_named_without_advice_about_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file/state"))
    assert keyed_notes.private_name("x") == ""
    assert "note.key cannot keep the key of this user's notes: Not a directory." in caplog.text
    assert "images" not in caplog.text
