"""Paths inside a data set: users read them as they read a Path, and no link leads them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import BUILDERS
from PIL import Image

import fgfast
from fgfast.config import Settings
from fgfast.data_paths import LinkOutError
from fgfast.datasets import open_dataset
from fgfast.errors import UsageError


def test_a_sample_is_read_as_with_a_path(tmp_path: Path) -> None:
    dataset = open_dataset("cub", root=BUILDERS["cub"](tmp_path))
    path = dataset.samples[0].path
    plain = Path(path)
    assert path.read_bytes() == plain.read_bytes()
    with path.open("rb") as file:
        assert file.read() == plain.read_bytes()
    assert (dataset.root / "images.txt").read_text() == (Path(dataset.root) / "images.txt").read_text()
    with Image.open(path) as image, Image.open(plain) as same:
        assert image.size == same.size
    assert (path.parts, path.as_posix(), path.name) == (plain.parts, plain.as_posix(), plain.name)
    inside = plain.relative_to(tmp_path / "CUB_200_2011").as_posix()
    assert str(path.relative_to(dataset.root)) == str(path.relative_to(tmp_path / "CUB_200_2011")) == inside
    with pytest.raises(ValueError, match="opened for reading alone, not with 'wb'"):
        path.open("wb")


def test_reading_follows_no_link_out(tmp_path: Path) -> None:
    root = BUILDERS["cub"](tmp_path)
    dataset = open_dataset("cub", root=root)
    path = dataset.samples[0].path
    (tmp_path / "private").write_text("private")
    Path(path).unlink()
    Path(path).symlink_to(tmp_path / "private")
    for read in (path.read_bytes, path.read_text, path.open):
        with pytest.raises(LinkOutError, match="leads out of the data set"):
            read()


def test_a_sample_of_a_data_set_is_given_as_any_path_is(tmp_path: Path) -> None:
    dataset = open_dataset("cub", root=BUILDERS["cub"](tmp_path))
    path = dataset.samples[0].path
    settings = Settings(segmenter="box", background=path)
    assert settings.fill.path == Path(path)
    whole = fgfast.cut_out(str(path), settings=settings)
    assert np.array_equal(fgfast.cut_out(path, settings=settings).pixels, whole.pixels)
    with fgfast.Cutter(settings) as cutter, pytest.raises(UsageError, match="for one image there is cut"):
        cutter.cut_many(path)
    again = fgfast.convert(dataset.root, tmp_path / "out", settings=settings)
    assert again.counts["done"] == len(dataset.samples)
