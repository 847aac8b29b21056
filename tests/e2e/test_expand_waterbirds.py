"""Waterbirds from a run on disk to its readers: group-DRO's format, WILDS and fgfast's own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_places import drawn_places
from expanding import planned
from layouts import cub, files_below
from PIL import Image

import fgfast
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.errors import UsageError
from fgfast.expand.kinds.waterbirds import Options
from fgfast.expand.plan import How
from fgfast.expand.run import run

FOLDER = "waterbird_complete95_forest2water2"
# Ends of files that hold times.
TIMES = ("ledger.sqlite", "run.json", "report.html", "lock", "lock.owner")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four drawn birds, beside places for them."""
    top = tmp_path_factory.mktemp("waterbirds")
    drawn_places(top / "places")
    root = cub(top)
    fgfast.convert("cub", top / "run", root=root, settings=Settings(segmenter="box", format="png"), in_process=True)
    return top / "run"


def expanded(source: Path, out: Path, **more: Any) -> dict[str, bytes]:
    """Make Waterbirds of it; return the files that hold no times."""
    running = {name: more.pop(name) for name in ("workers", "in_process") if name in more}
    options = Options(places=str(source.parent / "places"), **more.pop("options", {}))
    with planned(source, "waterbirds", out, options=options, **more) as plan:
        report = run(plan, **{"in_process": True, **running})
    assert report.counts["done"] == report.total
    return {name: data for name, data in files_below(out).items() if not name.endswith(TIMES)}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_data_set_is_group_dro_s(source: Path, tmp_path: Path) -> None:
    expanded(source, tmp_path / "out")
    rows = rows_of(tmp_path / "out" / FOLDER)
    assert [row["img_filename"] for row in rows] == [
        "001.Auk/Auk_0001_10.jpg",
        "001.Auk/Auk_0002_20.jpg",
        "002.Jay/Jay_0001_30.jpg",
        "002.Jay/Jay_0002_40.jpg",
    ]
    assert [row["img_id"] for row in rows] == ["1", "2", "7", "9"]
    for row in rows:
        pixels = np.asarray(Image.open(tmp_path / "out" / FOLDER / row["img_filename"])).astype(int)
        assert pixels.shape == (36, 48, 3)
        colour = (1, 2)[int(row["place"])]  # land is green, water blue
        assert pixels[-4:].argmax(axis=2).min() == pixels[-4:].argmax(axis=2).max() == colour
    opened = open_dataset(str(tmp_path / "out" / FOLDER))
    assert opened.name == "waterbirds" and all(Path(sample.path).is_file() for sample in opened.samples)


def test_the_same_seed_is_the_same_bytes_and_another_other_places(source: Path, tmp_path: Path) -> None:
    alone = expanded(source, tmp_path / "alone")
    assert expanded(source, tmp_path / "two", in_process=False, workers=2) == alone
    other = expanded(source, tmp_path / "other", how=How(seed=5))
    name = f"{FOLDER}/metadata.csv"
    assert other.keys() == alone.keys() and other[name] != alone[name]
    some = expanded(source, tmp_path / "some", selection=Selection(limit=2))
    images = [name for name in some if name.endswith(".jpg")]
    assert len(images) == 2 and all(some[name] == alone[name] for name in images)
    kept = some[name].decode().splitlines()
    assert len(kept) == 3 and set(kept) <= set(alone[name].decode().splitlines())


def test_as_published_has_smaller_files(source: Path, tmp_path: Path) -> None:
    plain, published = (
        expanded(source, tmp_path / name, options={"as_published": as_published})
        for name, as_published in (("plain", False), ("published", True))
    )
    for name in plain:
        if name.endswith(".jpg"):
            assert len(published[name]) < len(plain[name])


def test_too_few_places_write_nothing(source: Path, tmp_path: Path) -> None:
    few = drawn_places(tmp_path / "few", each=0)
    for category in ("b/bamboo_forest", "f/forest/broadleaf", "o/ocean", "l/lake/natural"):
        (few / "data_large" / category).mkdir(parents=True)
    with pytest.raises(UsageError, match="images are missing for land"):
        planned(source, "waterbirds", tmp_path / "out", options=Options(places=str(few)))
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:wilds")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wilds_reads_its_layout(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    wilds = pytest.importorskip("wilds", reason="wilds is not installed")
    out = tmp_path / "out"
    expanded(source, out, options={"layout": "wilds"})
    found = wilds.get_dataset("waterbirds", root_dir=str(out), download=False)
    rows = rows_of(out / "waterbirds_v1.0")
    assert found.split_array.tolist() == [int(row["split"]) for row in rows]
    assert found.metadata_array[:, :2].tolist() == [[int(row["place"]), int(row["y"])] for row in rows]
    image, y, _ = found[0]
    assert image.size == (48, 36) and int(y) == int(rows[0]["y"])
