"""A decision that is cut short after any of its steps is carried out when the output is opened again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mending import OTHER, THIRD, change, disc, made, result, rows

from fgfast.io.decisions import Decisions
from fgfast.io.ledger import Ledger
from fgfast.pipeline import work
from fgfast.pipeline.mended import MendedFiles
from fgfast.pipeline.mending import Mender
from fgfast.pipeline.verify import verify

FOURTH = "images/002.Jay/Jay_0002_40.jpg"


class KilledError(BaseException):
    """Stands for a kill: nothing is tidied up after it."""


STEPS: dict[str, tuple[Any, str, str]] = {
    "before the intent": (Decisions, "append", "before"),
    "after the intent": (Decisions, "append", "after"),
    "rows are gone": (Ledger, "intend", "after"),
    "files are there": (work, "commit", "after"),
    "files have left": (work, "delete_files", "after"),
    "rows are there": (Ledger, "record", "after"),
    "before it is done": (Decisions, "finish", "before"),
}
DECISIONS: dict[str, Callable[[Mender], object]] = {
    "mask": lambda mender: mender.decide([change(verdict="mask", bits=disc(), seen=0)], "ann"),
    "reject": lambda mender: mender.decide([change(verdict="reject")], "ann"),
    "accept": lambda mender: mender.decide([change()], "ann"),
    "undo of a mask": lambda mender: mender.undo([1], "ann"),
    "undo of a reject": lambda mender: mender.undo([2], "ann"),
    "batch": lambda mender: mender.decide([change(verdict="mask", bits=disc(25)), change(FOURTH, "reject")], "ann"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output about which a few decisions were made."""
    out = made(tmp_path_factory.mktemp("steps"), crop="square")
    with Mender.open(out) as mender:
        mender.decide([change(OTHER, "mask", bits=disc(22)), change(THIRD, "reject")], "ann")
        mender.finish()
    return out


@pytest.fixture(scope="module")
def wholes(begun: Path) -> dict[str, Path]:
    """The same after each decision, undisturbed."""
    found = {}
    for n, (name, decide) in enumerate(DECISIONS.items()):
        found[name] = begun.parent / f"whole {n}"
        shutil.copytree(begun, found[name])
        with Mender.open(found[name]) as mender:
            decide(mender)
            mender.finish()
    return found


@pytest.mark.parametrize("name", DECISIONS)
def test_a_decision_that_is_cut_short_is_finished(
    name: str, begun: Path, wholes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, (owner, function, when) in STEPS.items():
        out = begun.parent / "cut short"
        shutil.copytree(begun, out)
        original, hit = getattr(owner, function), []

        def cut(*args: Any, original: Any = original, when: str = when, hit: list[int] = hit, **named: Any) -> None:
            hit.append(1)
            if when == "after":
                original(*args, **named)
            raise KilledError

        with Mender.open(out) as mender:
            with monkeypatch.context() as patched:
                patched.setattr(owner, function, cut)
                patched.setattr(MendedFiles, "discard", lambda *_: None)
                try:
                    DECISIONS[name](mender)
                except KilledError:
                    assert hit
            assert mender.output.ledger.meta("reviewing")
            before = mender.decisions.last()
            mender.decisions.finish = lambda numbers: None  # type: ignore[method-assign]
        with Mender.open(out) as mender:
            assert not mender.problems
            if before == 2:  # the intent was not stored
                assert hit and step == "before the intent"
                DECISIONS[name](mender)
            mender.finish()
        assert rows(out) == rows(wholes[name]), step
        assert result(out) == result(wholes[name]), step
        assert verify(out).intact, step
        shutil.rmtree(out)
