"""Models on the command line and in `fgfast.convert`: choices, names, absent weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import fgfast as command
from layouts import BUILDERS, make_image

import fgfast
from fgfast.config import Settings
from fgfast.errors import ModelNotCachedError, UsageError

pytest.importorskip("torch", reason="models need the extra models")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))


def test_auto_says_what_it_took_and_how_to_get_the_models(tmp_path: Path) -> None:
    BUILDERS["cub"](tmp_path)
    done = command("convert", "--dataset", "cub", "--dry-run", cwd=tmp_path, FGFAST_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0
    assert "segmenter grabcut" in done.stdout
    assert "fgfast models pull sam_vit_l" in done.stdout


@pytest.mark.parametrize("method", [{"segmenter": "sam"}, {"detector": "detic"}])
def test_a_model_asked_for_by_name_and_absent_is_an_error_that_says_what_to_type(method: dict, tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    with pytest.raises(ModelNotCachedError, match="fgfast models pull"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=Settings(**method))
    assert not (tmp_path / "out").exists()


def test_a_folder_must_say_what_it_shows(tmp_path: Path) -> None:
    make_image(tmp_path / "images" / "a.jpg")
    settings = Settings(detector="detic", segmenter="box", model_weights="random:0")
    with pytest.raises(UsageError, match="--vocabulary"):
        fgfast.convert("folder", tmp_path / "out", root=tmp_path / "images", settings=settings)


def test_models_are_listed_and_missing_ones_named(tmp_path: Path) -> None:
    cache = {"FGFAST_CACHE": str(tmp_path / "cache")}
    listed = command("models", "list", **cache)
    assert listed.returncode == 0
    assert "sam_vit_l" in listed.stdout
    assert {row["name"] for row in json.loads(command("models", "list", "--json", **cache).stdout)} >= {"detic", "lvis"}
    missing = command("models", "path", "sam_vit_b", **cache)
    assert missing.returncode == 2
    assert "fgfast models pull sam_vit_b" in missing.stderr
    assert "Did you mean 'sam_vit_b'" in command("models", "verify", "sam_vitb", **cache).stderr


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = BUILDERS["cub"](tmp_path)
    settings = Settings(segmenter="sam_vit_b", model_weights="random:0", devices="cuda:7")
    with pytest.raises(UsageError, match="there is: cpu"):
        fgfast.convert("cub", tmp_path / "out", root=source, settings=settings)
