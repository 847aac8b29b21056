"""A command that cannot do its work, or only looks, leaves no folder and no file behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from layouts import BUILDERS, make_image

from fgfast.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["datasets"],
        ["datasets", "--download", "pets"],
        ["convert", "cub"],
        ["convert", "pets", "--download"],
        ["convert", "cub", "--root", "store", "--dry-run"],
        ["convert", "cub", "--root", "store", "--segmenter", "sam"],
        ["convert", "cub", "--root", "store", "--detector", "detic"],
        ["convert", "cub", "--root", "store", "--background", "gone.png"],
        ["convert", "--like", "store"],
        ["models", "list"],
        ["models", "pull", "sam_vit_b"],
        ["models", "pull", "lvis"],
        ["models", "verify", "detic"],
        ["export", "sam_vit_b"],
        ["cut", "gone.png", "-o", "new/x.png"],
        ["cut", "bird.png", "--segmenter", "sam", "-o", "new/x.png"],
    ],
    ids=" ".join,
)
def test_nothing_is_made_before_it_is_needed(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUILDERS["cub"](tmp_path / "here/store")
    make_image(tmp_path / "here/bird.png")
    monkeypatch.chdir(tmp_path / "here")
    for name in ("FGFAST_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache" / name))
    monkeypatch.setenv("FGFAST_OFFLINE", "1")
    monkeypatch.delenv("FGFAST_DATA", raising=False)
    before = sorted(path for path in tmp_path.rglob("*"))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (0, 1, 2, 3), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert sorted(path for path in tmp_path.rglob("*")) == before
