"""A wheel built from the source tree works away from it, with a compiler and without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from layouts import cub

SOURCE = Path(__file__).resolve().parents[2]

pytest.importorskip("scikit_build_core", reason="the build backend is part of the dev environment only")
pytestmark = pytest.mark.skipif(not (SOURCE / "CMakeLists.txt").is_file(), reason="the source tree is not here")


def build(tmp_path: Path, **environment: str) -> Path:
    """The wheel, built from a copy of the source tree."""
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "demo", "site", "docs", "tests", "__pycache__")
    shutil.copytree(SOURCE, tree, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (wheel,) = tmp_path.glob("fgfast-*.whl")
    (tmp_path / "log").write_text(done.stdout + done.stderr)
    return wheel


def run(wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the wheel's content in place of the editable install (-S leaves its import hook out)."""
    target = wheel.parent / "installed"
    if not target.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    path = os.pathsep.join((str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        capture_output=True,
        text=True,
        cwd=wheel.parent,
        env={**os.environ, "PYTHONPATH": path, "FGFAST_DATA": ""},
        check=False,
    )


WHERE = "import fgfast, fgfast.export, fgfast.bench.io, fgfast.ops as o; print(fgfast.__file__, o.implementation())"


def test_with_a_compiler_the_wheel_brings_the_native_ops(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    assert {name.partition("/")[0].partition("-")[0] for name in zipfile.ZipFile(wheel).namelist()} == {"fgfast"}
    done = run(wheel, "-c", WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "installed/fgfast/__init__.py"), "native"]
    with zipfile.ZipFile(wheel) as archive:  # the scripts of bench/ stay in the source tree
        assert {name.partition("/")[0].partition("-")[0] for name in archive.namelist()} == {"fgfast"}
    cub(tmp_path)
    done = run(wheel, "-m", "fgfast", "convert", "--dataset", "cub")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cub_fg/fgfast/report.html").is_file()


def test_without_a_compiler_it_installs_and_says_that_it_uses_the_reference(tmp_path: Path) -> None:
    wheel = build(tmp_path, CC="/nowhere/cc", CXX="/nowhere/c++")
    assert wheel.name.endswith("py3-none-any.whl")
    assert "The NumPy reference ops are used" in (tmp_path / "log").read_text()
    done = run(wheel, "-c", WHERE)
    assert done.stdout.split()[1] == "reference", done.stderr
    cub(tmp_path)
    done = run(wheel, "-m", "fgfast", "convert", "--dataset", "cub", "--segmenter", "box")
    assert done.returncode == 0, done.stderr
    assert "ops reference: NumPy; the native ops are not installed" in done.stderr
