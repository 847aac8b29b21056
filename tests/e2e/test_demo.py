"""`make demo`: both data sets of real photographs, converted, and read as torchvision's loaders read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

import demo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert demo.convert(folder) == 0
    return folder


def fgvc_aircraft(root: Path, split: str, level: str) -> list[tuple[Path, int]]:
    """What `torchvision.datasets.FGVCAircraft(root, split, level)` reads: `.jpg` appended to ids, classes by line."""
    data = root / "fgvc-aircraft-2013b" / "data"
    names = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
    classes = (data / names[level]).read_text().splitlines()
    samples = []
    for line in (data / f"images_{level}_{split}.txt").read_text().splitlines():
        ident, label = line.split(" ", 1)
        samples.append((data / "images" / f"{ident}.jpg", classes.index(label)))
    return samples


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_the_aircraft_twin_loads_like_the_original(made: Path, split: str, level: str) -> None:
    before = fgvc_aircraft(made / "data", split, level)
    after = fgvc_aircraft(made / "aircraft_fg", split, level)
    assert len(before) == len(after) > 0
    for (old, old_label), (new, new_label) in zip(before, after, strict=True):
        assert old_label == new_label
        assert old.name == new.name
        with pillow.open(old) as a, pillow.open(new) as b:
            assert a.size == b.size
            assert b.format == "JPEG"


def test_the_background_is_white_and_the_banner_is_gone(made: Path) -> None:
    for file, _ in fgvc_aircraft(made / "aircraft_fg", "test", "variant"):
        with pillow.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert (pixels[-16:] == 255).all()
        assert 0.3 < (pixels == 255).all(2).mean() < 0.99


def test_the_cub_twin_has_the_same_lists(made: Path) -> None:
    before, after = (made / name / "CUB_200_2011" for name in ("data", "cub_fg"))
    lists = [p.relative_to(before) for p in before.rglob("*.txt")]
    assert len(lists) == 7
    for name in lists:
        assert (before / name).read_bytes() == (after / name).read_bytes()
    assert len(list(after.rglob("*.jpg"))) == 28


def test_there_is_something_to_look_at(made: Path) -> None:
    with pillow.open(made / "before_after.png") as sheet:
        assert sheet.width > 1000
    for name in ("aircraft_fg", "cub_fg"):
        assert (made / name / "fgfast" / "report.html").stat().st_size > 50_000
