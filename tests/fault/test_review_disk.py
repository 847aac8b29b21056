"""A disk that is full during a review: the old state stays, the error says so, and nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import BUILDERS, HEIGHT, WIDTH, files_below

from fgfast import convert
from fgfast.config import Settings
from fgfast.errors import OutputFailedError
from fgfast.io.ledger import Ledger
from fgfast.pipeline.mending import Change, Mender
from fgfast.pipeline.verify import verify
from fgfast.records import Bool, Outcome

KEYS = ("images/001.Auk/Auk_0001_10.jpg", "images/001.Auk/Auk_0002_20.jpg", "images/002.Jay/Jay_0001_30.jpg")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")


def disc(r: float) -> Bool:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    bits: Bool = (columns - 20) ** 2 + (rows - 16) ** 2 < r * r
    return bits


def made(parent: Path, out: Path) -> Path:
    root = BUILDERS["cub"](parent / "data")
    settings = Settings(detector="annotations", segmenter="box", devices="cpu", format="png")
    convert("cub", out, root=root, settings=settings, in_process=True)
    return out


def rows(out: Path) -> dict[str, tuple[Any, ...]]:
    with Ledger(out / "fgfast/ledger.sqlite", write=False) as ledger:
        return {o.key: (o.status, o.reasons, o.twin, o.rle, o.area) for o in ledger.outcomes()}


def images(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_below(out).items() if name.endswith(".png")}


@contextlib.contextmanager
def no_larger_file_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_image_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    out = made(tmp_path, tmp_path / "out")
    before, decided = (rows(out), images(out)), [Change(key, "mask", "brush", 0, bits=disc(9)) for key in KEYS]
    with Mender.open(out) as mender:
        with no_larger_file_than(100), pytest.raises(OutputFailedError, match="free some space"):
            mender.decide(decided, "ann")
        assert mender.decisions.last() == 0
        assert not mender.stale
        assert (rows(out), images(out)) == before
        assert not list(out.rglob("*.part"))
        assert all(isinstance(answer, Outcome) for answer in mender.decide(decided, "ann"))


def test_a_decision_that_cannot_be_stored_changes_nothing(tmp_path: Path) -> None:
    out = made(tmp_path, tmp_path / "out")
    before = rows(out), images(out)
    with Mender.open(out) as mender:
        mender.decide([Change(KEYS[0], "accept", "accept", 0)], "ann")
        long = Change(KEYS[1], "mask", "brush", 0, bits=disc(9), note="x" * 10_000)
        with (
            no_larger_file_than(mender.decisions.path.stat().st_size),
            pytest.raises(OutputFailedError, match="Earlier decisions are kept"),
        ):
            mender.decide([long], "ann")
        assert mender.decisions.last() == 1
        assert (rows(out), images(out)) == before
        assert not list(out.rglob("*.part"))


def test_a_row_that_cannot_be_recorded_comes_back_and_the_decision_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgfast.pipeline import work

    out = made(tmp_path, tmp_path / "out")
    before = rows(out), images(out)

    def full(*_: object, **__: object) -> None:
        raise OutputFailedError("cannot write: No space left on device")

    with Mender.open(out) as mender:
        change = Change(KEYS[0], "mask", "brush", 0, bits=disc(9))
        with monkeypatch.context() as patched:
            patched.setattr(work, "commit", full)
            with pytest.raises(OutputFailedError, match="is stored, and follows"):
                mender.decide([change], "ann")
        assert (rows(out), images(out)) == before
        assert not list(out.rglob("*.part"))
        assert mender.decisions.last() == 1
        # The next decision brings the earlier one to its end.
        mender.decide([Change(KEYS[1], "accept", "accept", 0)], "ann")
        assert rows(out)[KEYS[0]][4] == disc(9).sum()
        mender.finish()
    assert verify(out).intact


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if (
        not shutil.which("mount")
        or os.geteuid()
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_however_much_is_left_on_the_disk_twin_and_decisions_agree(small_disk: Path, tmp_path: Path) -> None:
    out = made(tmp_path, small_disk / "out")
    filler = small_disk / "filler"
    failed = acknowledged = 0
    for n, left in enumerate((0, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 4, 12, 20, 28)):
        with Mender.open(out) as mender:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            filler.write_bytes(bytes(max(0, free - left * 1024)))
            seen = mender.decisions.last(KEYS[n % 3])
            change = Change(KEYS[n % 3], "mask", "brush", seen, bits=disc(4 + n / 2), note="x" * 3000)
            try:
                (answer,) = mender.decide([change], "ann")
                assert isinstance(answer, Outcome)
                acknowledged = mender.decisions.last()
            except OutputFailedError:
                failed += 1
        filler.unlink()
        with Mender.open(out) as mender:
            assert not mender.problems
            assert mender.decisions.last() >= acknowledged
            assert not mender.decisions.unfinished()
            for key, decision in mender.decisions.in_force().items():
                outcome = mender.output.ledger.outcome_of(key)
                assert outcome is not None and outcome.rle == decision.after
        found = verify(out)
        assert not (found.missing or found.damaged)
        assert not list(out.rglob("*.part"))
    assert failed and acknowledged > 3
    with Mender.open(out) as mender:
        mender.finish()
    assert verify(out).intact
