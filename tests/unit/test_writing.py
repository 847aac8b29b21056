from __future__ import annotations

import os
from pathlib import Path

import pytest

from fgfast.errors import OutputFailedError
from fgfast.writing import (
    Folders,
    Target,
    commit,
    files,
    sweep_temp_files,
    sync_folders,
    write_file,
    write_temp,
)


def temps_of(root: Path, names: list[str], data: bytes = b"x") -> list[tuple[str, str]]:
    """Write temporary files; return the pairs for `commit`."""
    return [(write_temp(Target(root, name), data)[0], name) for name in names]


def test_a_written_file_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.bin"
    write_file(Target(tmp_path, "deep/x.bin"), b"old")
    write_file(Target(tmp_path, "deep/x.bin"), b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["x.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("count", [1, 40])
def test_a_failing_disk_is_an_error_that_names_the_file(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(files, "_syncfs", lambda: None)
    temps = temps_of(tmp_path, [f"{n}.bin" for n in range(count)])
    with pytest.raises(OutputFailedError, match=r"0\.bin.*No space left"):
        commit(tmp_path, temps)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_writable_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **more: object) -> None:
        raise OSError(13, "Permission denied")

    temps = temps_of(tmp_path, ["a.bin"])
    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(OutputFailedError, match=r"a\.bin: Permission denied.*make the folder writable"):
        commit(tmp_path, temps)


def test_temp_files_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".fgfast-12-3.part").write_bytes(b"half")
    (tmp_path / "a" / "kept.part").write_bytes(b"not ours")
    assert sweep_temp_files([Target(tmp_path)]) == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["kept.part"]


def test_many_temp_files_are_committed_at_once(tmp_path: Path) -> None:
    temps = []
    for n in range(40):
        temps += temps_of(tmp_path, [f"{n % 3}/{n}.bin"], bytes([n]))
    assert not list(tmp_path.rglob("*.bin"))
    commit(tmp_path, temps)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*.*")} == {f"{n}.bin": bytes([n]) for n in range(40)}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("count", [1, 40])
def test_content_is_synced_before_it_is_renamed_and_names_after(
    count: int, at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace, syncfs = os.fsync, os.replace, files._syncfs() if at_once else None
    temps = temps_of(tmp_path, [f"{n}" for n in range(count)])
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names, **at: (order.append("rename"), replace(*names, **at)))
    flush = None if syncfs is None else lambda handle: order.append("sync") or syncfs(handle)
    monkeypatch.setattr(files, "_syncfs", lambda: flush)
    commit(tmp_path, temps)
    first, last = order.index("rename"), len(order) - 1 - order[::-1].index("rename")
    assert order[:first] == ["sync"] * (1 if flush or count == 1 else count)
    assert "sync" not in order[first:last]
    assert "sync" in order[last:]
    assert order.count("rename") == count


@pytest.mark.skipif(files._syncfs() is None, reason="no syncfs here")
def test_many_folders_are_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, syncfs = os.fsync, files._syncfs()
    assert syncfs is not None
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append("one"), fsync(handle)))
    monkeypatch.setattr(files, "_syncfs", lambda: lambda handle: synced.append("all") or syncfs(handle))
    names = [f"{n}/x" for n in range(40)]
    commit(tmp_path, temps_of(tmp_path, names))
    assert synced == ["all", "all"]
    assert all((tmp_path / name).read_bytes() == b"x" for name in names)
    with Folders(tmp_path) as folders:
        sync_folders(folders, ["0", "1", "2"])
    assert synced == ["all", "all", "one", "one", "one"]
