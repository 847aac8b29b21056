"""Processes: where they find programs and modules, what they may take, what comes back."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
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


@pytest.mark.parametrize("command", [["-m", "fgfast", "datasets"], ["-m", "fgfast", "--help"]])
def test_python_m_imports_nothing_of_the_current_folder(foreign, command):
    # Python itself, and `import fgfast`, have looked there before fgfast can prevent it.
    for name in ("sys", "os", "fgfast", "pickle", "struct"):
        (foreign / f"{name}.py").unlink()
    for name in ("click", "psutil", "rich", "PIL", "cv2"):
        (foreign / f"{name}.py").write_text((foreign / "numpy.py").read_text())
    root = str(Path(processes.__file__).parent.parent)
    path = os.pathsep.join([root, *(entry for entry in sys.path if entry and entry != str(foreign))])
    done = subprocess.run([sys.executable, *command], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_doctor_imports_nothing_of_the_current_folder(foreign):
    from fgfast.doctor import checks

    assert checks._import("numpy") == ""


def test_git_is_asked_only_about_the_own_source_tree(tmp_path, monkeypatch):
    from fgfast.bench import stamp

    package = tmp_path / "venv" / "fgfast"
    (package / "bench").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(stamp, "__file__", str(package / "bench" / "stamp.py"))
    monkeypatch.setattr(processes, "run", None)
    assert stamp.commit.__wrapped__() == "unknown"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_repository_runs_no_program(tmp_path):
    from fgfast.bench import stamp

    repository = tmp_path / "source"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    assert processes.run(["git", "init", str(repository)], 30).returncode == 0
    (repository / ".git" / "config").write_text(f"[core]\n\tfsmonitor = {program}\n\thooksPath = {tmp_path}\n")
    assert stamp.git(repository, "status", "--porcelain") == ""
    assert not (tmp_path / "ran").exists()


def test_a_worker_sees_the_modules_that_this_process_sees(tmp_path, monkeypatch):
    (tmp_path / "of_the_notebook.py").write_text("answer = 42")
    monkeypatch.chdir(tmp_path)
    code = "import of_the_notebook; print(of_the_notebook.answer)"
    for path, found in ((["", *sys.path], "42"), ([entry for entry in sys.path if entry], "")):
        monkeypatch.setattr(sys, "path", path)
        process = processes.start_python(code, stdin=subprocess.DEVNULL)
        assert process.communicate()[0].decode().strip() == found


@pytest.mark.skipif(sys.platform == "win32", reason="a process keeps the number of its parent there")
def test_a_child_that_computes_ends_with_its_parent():
    """It does not read its input meanwhile; on a GPU it would keep the memory."""
    code = "from fgfast import processes\nwith processes.Child() as child:\n    child.call('time:sleep', 60)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        child = _first_child(psutil.Process(parent.pid))
        time.sleep(1.0)  # until it computes
    finally:
        parent.kill()
        parent.wait()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def _first_child(process):
    for _ in range(200):
        if children := process.children():
            return children[0]
        time.sleep(0.05)
    raise AssertionError("it starts no process")
