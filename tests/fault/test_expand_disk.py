"""An expansion on a file system that is really full: it says so, keeps what is finished, and goes on given room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from birds import many_birds
from layouts import files_below

import fgfast
from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.config import Settings

ABOUT = {f"fgfast/{name}" for name in ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")}
IMAGES = 60

pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, of which nothing is taken."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def expand(run: Path, kind: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fgfast", "expand", str(run), kind, "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def result(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name not in ABOUT}


def taken(out: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in out.rglob("*"))


@pytest.mark.parametrize("kind", ["backgrounds", "contours", "statistics"])
def test_a_full_file_system_loses_nothing(kind: str, tmp_path: Path, small: Path) -> None:
    pytest.importorskip("pyarrow", reason="tables need the extra expand")
    pytest.importorskip("pyefd", reason="contours need the extra expand")
    source, whole = tmp_path / "run", tmp_path / "whole"
    settings = Settings(detector="annotations", segmenter="box", masks="none")
    fgfast.convert("cub", source, root=many_birds(tmp_path, IMAGES), settings=settings, in_process=True)
    assert expand(source, kind, whole).returncode == 0
    wanted, out = result(whole), small / "out"
    full = 0
    for part in range(1, 40):  # from a file system that holds little to one that holds all
        size = part * taken(whole) // 24
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small)], check=True)
        done = expand(source, kind, out)
        if done.returncode == 0:
            break
        assert done.returncode != EXIT_SOME_FAILED, done.stderr  # an image is no failure of its own
        assert "free some space" in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert "internal error" not in done.stderr, done.stderr
        for name, data in result(out).items():  # what has its final name is whole
            if name in wanted and "/" in name and not name.startswith(("fgfast/", "tables/")):
                assert data == wanted[name], name
        full += 1
    assert full > 5 and done.returncode == 0, (full, done.stderr)
    assert result(out) == wanted
    with suppress(FileNotFoundError):
        assert not list(out.rglob("*.part"))
