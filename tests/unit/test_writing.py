from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fgfast.errors import NameRefusedError, OutputFailedError, OutputRefusedError
from fgfast.writing import (
    Folders,
    Target,
    TempFiles,
    append,
    commit,
    create,
    delete_files,
    files,
    held,
    locked,
    make_folder,
    refuse_links,
    remove,
    remove_tree,
    rename,
    replacing,
    replacing_path,
    scratch_file,
    scratch_folder,
    sweep_temp_files,
    sync_folders,
    temp_files,
    walk,
    write_file,
)


def temps_of(root: Path, names: list[str], data: bytes = b"x") -> list[tuple[str, str]]:
    """Write temporary files; return the pairs for `commit`."""
    files = TempFiles(root)
    return [(files.write(name, data)[0], name) for name in names]


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
    monkeypatch.setattr(temp_files, "_syncfs", lambda: None)
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
    (tmp_path / ".fgfast-1-1.part").write_bytes(b"half")
    (tmp_path / "a" / ".fgfast-x.part").mkdir()
    (tmp_path / "a" / ".fgfast-x.part" / "weights").write_bytes(b"half")
    assert sweep_temp_files([], [Target(tmp_path)]) == 1
    assert sweep_temp_files([Target(tmp_path)]) == 0  # a folder may be anybody's
    assert sweep_temp_files([Target(tmp_path)], folders=True) == 1
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
    fsync, replace, syncfs = os.fsync, os.replace, temp_files._syncfs() if at_once else None
    temps = temps_of(tmp_path, [f"{n}" for n in range(count)])
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names, **at: (order.append("rename"), replace(*names, **at)))
    flush = None if syncfs is None else lambda handle: order.append("sync") or syncfs(handle)
    monkeypatch.setattr(temp_files, "_syncfs", lambda: flush)
    commit(tmp_path, temps)
    first, last = order.index("rename"), len(order) - 1 - order[::-1].index("rename")
    assert order[:first] == ["sync"] * (1 if flush or count == 1 else count)
    assert "sync" not in order[first:last]
    assert "sync" in order[last:]
    assert order.count("rename") == count


@pytest.mark.skipif(temp_files._syncfs() is None, reason="no syncfs here")
def test_many_folders_are_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, syncfs = os.fsync, temp_files._syncfs()
    assert syncfs is not None
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append("one"), fsync(handle)))
    monkeypatch.setattr(temp_files, "_syncfs", lambda: lambda handle: synced.append("all") or syncfs(handle))
    names = [f"{n}/x" for n in range(40)]
    commit(tmp_path, temps_of(tmp_path, names))
    assert synced == ["all", "all"]
    assert all((tmp_path / name).read_bytes() == b"x" for name in names)
    with Folders(tmp_path) as folders:
        sync_folders(folders, ["0", "1", "2"])
    assert synced == ["all", "all", "one", "one", "one"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Path]:
    """A root with a link to a folder outside, which must be the same at the end."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "own").write_bytes(b"own")
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "link").symlink_to(tmp_path / "outside")
    yield tmp_path / "root"
    assert [p.name for p in (tmp_path / "outside").iterdir()] == ["own"]
    assert (tmp_path / "outside" / "own").read_bytes() == b"own"


BELOW = "in/link/own"


def place(root: Path) -> Target:
    return Target(root, BELOW)


WRITES: dict[str, Callable[[Path], object]] = {
    "create": lambda root: create(place(root).parent / "new"),
    "write_file": lambda root: write_file(place(root), b"x"),
    "write_temp": lambda root: TempFiles(root).write(place(root).name, b"x"),
    "commit": lambda root: commit(root, [("in/link/new", BELOW)]),
    "make_folder": lambda root: make_folder(place(root).parent / "new" / "deep"),
    "make_folder itself": lambda root: make_folder(place(root).parent),
    "held": lambda root: held(place(root)),
    "append": lambda root: append(place(root), keep=False),
    "append to a link": lambda root: append(place(root).parent, keep=True),
    "locked": lambda root: locked(place(root).parent / "lock").__enter__(),
    "remove": lambda root: remove(place(root)),
    "remove_tree": lambda root: remove_tree(place(root).parent),
    "rename from": lambda root: rename(place(root), Target(root, "mine")),
    "rename to": lambda root: rename(Target(root, "in"), place(root).parent / "in"),
    "scratch_folder": lambda root: scratch_folder("a", place(root).parent).__enter__(),
    "scratch_file": lambda root: scratch_file(place(root).parent).__enter__(),
    "replacing_path": lambda root: replacing_path(place(root)).__enter__(),
    "sweep": lambda root: sweep_temp_files([place(root).parent]),
    "refuse_links": lambda root: refuse_links([Target(root)]),
    "walk": lambda root: list(walk(place(root).parent)),
}


@pytest.mark.parametrize("by_folder", [True, False])
@pytest.mark.parametrize("name", WRITES)
def test_nothing_goes_through_a_link(name: str, by_folder: bool, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the folders' handles, and as where the system has none."""
    monkeypatch.setattr(files, "BY_FOLDER", by_folder)
    with pytest.raises(
        OutputRefusedError, match=r"is a link, which could lead out of .*: remove it, or choose another"
    ):
        WRITES[name](house)


def test_a_link_in_the_place_of_a_file_is_replaced_and_deleted_itself(house: Path) -> None:
    path = house / "file"
    path.symlink_to(house.parent / "outside" / "own")
    write_file(Target(house, "file"), b"new")
    assert not path.is_symlink() and path.read_bytes() == b"new"
    remove(Target(house, "in/link"))
    assert not (house / "in" / "link").is_symlink()


def test_a_tree_is_deleted_with_its_links_alone(house: Path) -> None:
    deep = Target(house, "in")
    for _ in range(300):
        deep = deep / "d"
    make_folder(deep)
    write_file(deep / "file", b"x", sync=False)
    remove_tree(Target(house, "in"))
    assert list(house.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "/x", "a/../b", "a//b", "./a", "a/."])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    for write in (lambda: write_file(Target(tmp_path, name), b""), lambda: delete_files(tmp_path, [name])):
        with pytest.raises(OutputRefusedError, match="no path inside"):
            write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have_is_an_error_of_its_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(NameRefusedError):
        write_file(Target(tmp_path, name), b"")


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = Target(tmp_path, "a")
    write_file(target, b"old")
    for write in (replacing, replacing_path):
        with pytest.raises(ZeroDivisionError), write(target):
            raise ZeroDivisionError
    with pytest.raises(OutputFailedError, match=r"cannot write .*a: No space"), replacing(target):
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and target.path.read_bytes() == b"old"
    with replacing_path(target, sync=True) as path:
        path.write_bytes(b"new")
    assert target.path.read_bytes() == b"new" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_scratch_folder_is_this_user_s_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_folder("a-", tmp_path / "new") as folder:
        assert folder.parent == tmp_path / "new" and folder.stat().st_mode & 0o077 == 0
    with scratch_file(Target(tmp_path, "new")) as file:
        file.write(b"abc")
        file.seek(0)
        assert file.read() == b"abc"
    assert list((tmp_path / "new").iterdir()) == []


def test_no_more_folders_are_open_than_there_may_be(tmp_path: Path) -> None:
    names = [f"{n}/{n}/x" for n in range(300)]
    commit(tmp_path, temps_of(tmp_path, names))
    with Folders(tmp_path) as folders:
        for name in names:
            folders.at(name)
            assert len(folders._open) < 80
    assert all((tmp_path / name).is_file() for name in names)


def open_handles() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_folders_are_held_between_files_and_closed_with_the_writer(tmp_path: Path) -> None:
    before = open_handles()
    writer = TempFiles(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        names = [f"{n % 50}/{n}/x" for n in range(400)]
        data = [name.encode() for name in names]
        temps = [(temp, name) for (temp, _), name in zip(pool.map(writer.write, names, data), names, strict=True)]
    assert before < open_handles() <= before + 4 * 14
    del writer
    assert open_handles() == before
    commit(tmp_path, temps)
    assert all((tmp_path / name).read_text() == name for name in names)


def test_a_folder_that_is_deleted_while_it_is_held_is_made_again(tmp_path: Path) -> None:
    writer = TempFiles(tmp_path)
    writer.write("images/a/1.jpg", b"")
    shutil.rmtree(tmp_path / "images")
    temp, mtime_ns = writer.write("images/a/2.jpg", b"x")
    assert (tmp_path / temp).stat().st_mtime_ns == mtime_ns


def test_a_folder_that_becomes_a_link_while_it_is_held_is_not_followed(house: Path) -> None:
    writer = TempFiles(house)
    temp, _ = writer.write("in/a/1.jpg", b"")
    (house / "in/a").rename(house / "in/moved")
    (house / "in/a").symlink_to(house.parent / "outside")
    writer.write("in/a/2.jpg", b"x")  # into the folder that is held
    with pytest.raises(OutputRefusedError, match="is a link"):
        commit(house, [(temp, "in/a/1.jpg")])
