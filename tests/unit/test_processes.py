"""Processes: where they find programs and modules, what they may take, what comes back."""

import io
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fgfast import child, processes
from fgfast.errors import DatasetError, SampleError

MIB = 1 << 20
HERE = "fake_children"


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A current folder whose modules and programs leave a note when they run."""
    note = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name in ("sys", "os", "pickle", "struct", "numpy", "fgfast", "sitecustomize", "json", "torch"):
        (folder / f"{name}.py").write_text(note)
    for name in ("git", "nvidia-smi", "git.bat"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(folder)
    yield folder
    assert not (tmp_path / "ran").exists()


def call(name, *arguments, memory=256 * MIB, seconds=30.0):
    return processes.call(f"{HERE}:{name}", *arguments, memory=memory, seconds=seconds)


def test_plain_values_pass():
    objects = np.empty((2, 1), object)
    objects[:, 0] = [[1, 2], np.arange(3)]
    value = {
        "numbers": [1, 2.5, True, None, 10**30],
        "texts": ("a\udc80", b"b", Path("c")),
        "sets": [{1}, frozenset([2])],
        "arrays": [np.zeros((2, 0, 3), np.float32), np.array(["x", "yy"]), np.array(["2020-01-01"], "M8[D]")],
        "scalars": [np.float32(1.5), np.str_("s")],
    }
    back = call("same", value)
    assert repr(back) == repr(value)
    assert back["arrays"][0].flags.writeable
    back = call("same", objects)
    assert back.shape == (2, 1) and back[0, 0] == [1, 2] and back[1, 0].tolist() == [0, 1, 2]


def test_other_values_do_not_pass():
    for name in ("a_class", "a_function", "named_fields"):
        with pytest.raises(processes.ChildFailedError, match="cannot leave its process"):
            call(name)


def test_the_parent_runs_nothing_of_what_it_reads(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(processes.ChildFailedError, match="cannot be read"):
        child.result_of(b"v" + pickle.dumps(Evil()), "f", trusted=False)
    for name in ("install_command", "difflib", "no_such"):
        with pytest.raises(processes.ChildFailedError, match="cannot be read"):
            child.result_of(b"e" + pickle.dumps((name, "x", {})), "f", trusted=False)
    assert not (tmp_path / "made").exists()


def test_errors_of_fgfast_pass():
    with pytest.raises(DatasetError, match=r"list\.txt:3: no number"):
        call("dataset_error")
    with pytest.raises(SampleError, match="half of it") as caught:
        call("sample_error")
    assert caught.value.reason == "truncated"


def test_other_errors_are_said():
    with pytest.raises(processes.ChildFailedError, match="RecursionError"):
        call("recursion")
    with pytest.raises(processes.ChildFailedError, match="exit status"):
        call("crash")


@pytest.mark.parametrize("name", ["take", "take_in_numpy"])
def test_memory_is_limited(name):
    assert call(name, 64 * MIB) == 64 * MIB
    with pytest.raises(processes.MemoryExceededError):
        call(name, 1024 * MIB)


def test_a_result_is_limited():
    with pytest.raises(processes.MemoryExceededError):
        child.receive(io.BytesIO(child._LENGTH.pack(1 << 40)), 1 << 20)


@pytest.mark.parametrize("name", ["sleep", "spin"])
def test_time_is_limited(name):
    began = time.monotonic()
    with pytest.raises(processes.TimeExceededError, match="1 seconds"):
        call(name, seconds=1)
    assert time.monotonic() - began < 10


def test_a_child_writes_no_files(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has no such limit")
    with pytest.raises(processes.ChildFailedError):
        call("write", tmp_path / "file")


def test_a_trusted_child_is_called_again_and_again():
    with processes.Child() as trusted:
        first, second = (trusted.call(f"{HERE}:process_and", Path) for _ in range(2))
    assert first == second and first[0] != os.getpid() and first[1] is Path


def test_nothing_of_the_current_folder_runs(foreign):
    sys.path.insert(0, "")
    sys.path.insert(0, str(foreign))
    try:
        assert call("same", np.arange(3)).tolist() == [0, 1, 2]
        done = processes.run_python("import numpy, json; print(numpy.__name__)", 60)
        assert done.stdout.strip() == "numpy", done.stderr
    finally:
        del sys.path[:2]
    process = processes.start_python("import os, numpy, json; print(os.sep)", stdin=subprocess.DEVNULL)
    assert process.communicate()[0].decode().strip() == os.sep


def test_a_program_is_not_found_in_the_current_folder(foreign, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", os.curdir]))
    for program in ("git", "nvidia-smi"):
        with pytest.raises(FileNotFoundError, match=program):
            processes.run([program], 5)


def test_a_program_is_bounded():
    done = processes.run([sys.executable, "-c", "print('x' * 5_000_000); raise SystemExit(3)"], 30)
    assert done.returncode == 3 and len(done.stdout) == 1 << 20
    began = time.monotonic()
    with pytest.raises(processes.TimeExceededError):
        processes.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert time.monotonic() - began < 10


def test_fgfast_may_be_in_the_current_folder(monkeypatch):
    monkeypatch.chdir(Path(processes.__file__).parent.parent)
    monkeypatch.setattr(sys, "path", ["", *(entry for entry in sys.path if entry)])
    assert str(Path.cwd()) in processes.import_path() and "" not in processes.import_path()
