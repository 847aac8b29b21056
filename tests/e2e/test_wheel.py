"""A wheel built from the source tree works away from it, with a compiler and without one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layouts import cub
from PIL import Image

SOURCE = Path(__file__).resolve().parents[2]

pytest.importorskip("scikit_build_core", reason="the build backend is part of the dev environment only")
pytestmark = pytest.mark.skipif(not (SOURCE / "CMakeLists.txt").is_file(), reason="the source tree is not here")


def build(tmp_path: Path, **environment: str) -> Path:
    """The wheel, built from a copy of the source tree."""
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "demo", "site", "docs", "tests", "__pycache__", "*.so")
    shutil.copytree(SOURCE, tree, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", tmp_path, tree]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (wheel,) = tmp_path.glob("fgfast-*.whl")
    (tmp_path / "log").write_text(done.stdout + done.stderr)
    return wheel


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a compiler makes, in a folder outside the checkout."""
    return build(tmp_path_factory.mktemp("native"))


def files_of_the_package() -> set[str]:
    """What an installed fgfast needs, the page of `fgfast review` and the weights of the doubt among it."""
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "fgfast").rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyd", ".pyc")
    }
    assert {"fgfast/review/page/index.html", "fgfast/ops/doubt_weights.json", "fgfast/io/report.html"} <= found
    return found


def run(wheel: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
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
        cwd=cwd or wheel.parent,
        env={**os.environ, "PYTHONPATH": path, "FGFAST_DATA": ""},
        check=False,
    )


WHERE = "import fgfast, fgfast.export, fgfast.bench.io, fgfast.ops as o; print(fgfast.__file__, o.implementation())"


@pytest.mark.full
def test_with_a_compiler_the_wheel_brings_the_native_ops(native: Path, tmp_path: Path) -> None:
    wheel = native
    assert {name.partition("/")[0].partition("-")[0] for name in zipfile.ZipFile(wheel).namelist()} == {"fgfast"}
    done = run(wheel, "-c", WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(wheel.parent / "installed/fgfast/__init__.py"), "native"]
    with zipfile.ZipFile(wheel) as archive:  # the scripts of bench/ stay in the source tree
        assert {name.partition("/")[0].partition("-")[0] for name in archive.namelist()} == {"fgfast"}
    cub(tmp_path)
    done = run(wheel, "-m", "fgfast", "convert", "--dataset", "cub", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cub_fg/fgfast/report.html").is_file()


def quick_start() -> list[tuple[str, str]]:
    """The blocks of the README's quick start, in its order: language and text."""
    section = (
        (SOURCE / "README.md").read_text(encoding="utf-8").partition("\n## Quick start\n")[2].partition("\n## ")[0]
    )
    return re.findall(r"^```(bash|python)\n(.*?)^```$", section, flags=re.M | re.S)


@pytest.mark.full
def test_the_quick_start_of_the_readme_works_with_an_installed_wheel(native: Path, tmp_path: Path) -> None:
    """Line by line: with CUB in ./data and a photograph, as the README says, away from the checkout."""
    cub(tmp_path / "data")
    pixels = np.random.default_rng(0).integers(0, 90, (300, 400, 3), dtype=np.uint8)
    pixels[80:220, 120:280] = (230, 90, 40)
    Image.fromarray(pixels).save(tmp_path / "bird.jpg")
    ran = []
    for language, text in quick_start():
        if language == "python":
            commands = [["-c", text]]
        else:
            lines = [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
            assert all(program == "fgfast" for program, *_ in lines)
            commands = [["-m", *line] for line in lines]
        for command in commands:
            done = run(native, *command, cwd=tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            ran.append(language)
    assert ran.count("bash") >= 3 and "python" in ran
    report = "cub_try/fgfast/report.html"
    for made in ("cub_try/CUB_200_2011/images.txt", report, "bird_fg.png", "bird_cut.png", "1.png"):
        assert (tmp_path / made).is_file(), made
    assert len(list((tmp_path / "cub_try/CUB_200_2011/images").rglob("*.png"))) == 4


@pytest.mark.full
def test_the_program_that_checks_release_wheels_passes(native: Path, tmp_path: Path) -> None:
    done = run(native, str(SOURCE / "tests/wheel_smoke.py"), cwd=tmp_path)
    assert done.returncode == 0 and "the wheel works" in done.stdout, done.stderr


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
    with zipfile.ZipFile(wheel) as archive:
        assert files_of_the_package() <= set(archive.namelist())
    # The extra `review` is not there: it says so before it opens anything.
    alone = "import sys; sys.modules['starlette'] = None; from fgfast.cli import main; main(['review', 'nowhere'])"
    done = run(wheel, "-c", alone)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "fgfast review needs the package starlette of the extra 'review'" in done.stderr


def test_the_source_package_holds_every_file_of_the_package(tmp_path: Path) -> None:
    code = "import sys; from scikit_build_core.build import build_sdist; print(build_sdist(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        assert files_of_the_package() <= {name.partition("/")[2] for name in archive.getnames()}
