"""The reader of what a run left."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from layouts import BUILDERS
from PIL import Image as Pillow

import fgfast
from fgfast.config import Settings
from fgfast.errors import OutputRefusedError, SampleError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.pipeline.twin import Twin

SETTINGS = Settings(detector="annotations", segmenter="box", crop="box", masks="png")


@pytest.fixture
def converted(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of CUB's layout, and the output of its run."""
    root = BUILDERS["cub"](tmp_path / "data")
    out = tmp_path / "out"
    fgfast.convert("cub", out, root=root, settings=SETTINGS)
    return Path(root), out


def test_a_run_is_read_with_nothing_but_its_output(converted: tuple[Path, Path]) -> None:
    root, out = converted
    with Twin.open(out) as twin:
        entries = list(twin.entries())
        assert [o.key for o in entries] == [s.key for s in twin.dataset.samples]
        assert twin.labels() == {s.key: s.label for s in twin.dataset.samples}
        assert twin.splits() == {s.key: s.split for s in twin.dataset.samples}
        assert twin.classes == tuple(sorted({s.label for s in twin.dataset.samples}))
        assert twin.title == "cub" and twin.run["title"] == "cub"
        assert twin.settings["segmenter"] == "box"
        first = entries[0]
        assert first.id is not None and twin.outcome(first.id) is not None
        image, mask = twin.image(first.key), twin.mask(first)
        assert image.size == first.size == mask.shape
        with Pillow.open(root / first.key) as stored:
            assert np.array_equal(image.pixels, np.asarray(stored.convert("RGB")))
        result = twin.result(first)
        assert result is not None
        with Pillow.open(result) as cut:
            assert cut.size == first.twin_size[::-1] != first.size[::-1]
        assert twin.source_same(first) and twin.sample(first.key).label == first.key.split("/")[1]


def test_a_data_set_that_moved_is_named_and_found_with_root(converted: tuple[Path, Path]) -> None:
    root, out = converted
    moved = root.parent / "elsewhere"
    root.rename(moved)
    with Twin.open(out) as twin:
        first = next(twin.entries())
        assert twin.mask(first).any() and not twin.source_same(first)
        with pytest.raises(SampleError):
            twin.image(first.key)
        with pytest.raises(UsageError, match="--root"):
            _ = twin.dataset
    with Twin.open(out, moved) as twin:
        assert twin.image(first.key).size == first.size and twin.source_same(first)
        with pytest.raises(UsageError, match="no longer has"):
            twin.sample("images/none.jpg")


def test_a_run_without_run_json_is_read(converted: tuple[Path, Path]) -> None:
    _, out = converted
    path = out / "fgfast" / "run.json"
    for content in (b"", b"[1]", b"{", b"[" * 100_000):
        path.write_bytes(content)
        with Twin.open(out) as twin:
            assert twin.run == {} and len(list(twin.entries(("done", "flagged")))) > 1
    path.unlink()
    with Twin.open(out) as twin:
        assert twin.run == {}


def test_outcomes_are_looked_up_by_number_and_unknown_ones_are_none(converted: tuple[Path, Path]) -> None:
    with Twin.open(converted[1]) as twin:
        for o in twin.entries():
            assert o.id is not None
            again = twin.outcome(o.id)
            assert again is not None and again.key == o.key and again.rle == o.rle
        assert twin.outcome(10**6) is None and twin.outcome(-1) is None


def test_folders_without_a_run_are_refused(tmp_path: Path, converted: tuple[Path, Path]) -> None:
    _, out = converted
    with pytest.raises(OutputRefusedError, match="no folder"):
        Twin.open(tmp_path / "none")
    with pytest.raises(OutputRefusedError, match="holds no run"):
        Twin.open(tmp_path)
    with pytest.raises(OutputRefusedError, match="inside an output"):
        Twin.open(out / "fgfast")
    twin = next(folder for folder in out.iterdir() if folder.name != "fgfast")
    with pytest.raises(OutputRefusedError, match=f"the folder around it, {out}$"):
        Twin.open(twin)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", {"root": "x", "dataset": 3}),
        ("source", {"root": "x"}),
        ("source", {"root": "x", "dataset": "cub", "labels": []}),
        ("source", 7),
        ("fingerprint", None),
        ("folder", "../up"),
        ("being_deleted", True),
    ],
)
def test_a_ledger_that_no_run_wrote_is_refused(converted: tuple[Path, Path], name: str, value: object) -> None:
    _, out = converted
    with sqlite3.connect(out / "fgfast" / "ledger.sqlite") as db:
        if value is None:
            db.execute("DELETE FROM meta WHERE name = ?", (name,))
        else:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))
    db.close()
    with pytest.raises(OutputRefusedError):
        Twin.open(out)


def test_a_folder_of_images_is_turned_as_a_viewer_turns_it(tmp_path: Path) -> None:
    root = tmp_path / "holiday"
    (root / "a").mkdir(parents=True)
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Pillow.new("RGB", (40, 30), "red").save(root / "a" / "turned.jpg", exif=exif)
    fgfast.convert(root, tmp_path / "out", settings=Settings(detector="center", segmenter="box"))
    with Twin.open(tmp_path / "out") as twin:
        (only,) = twin.entries()
        assert only.size == twin.image(only.key).size == (40, 30)
        assert twin.title == "holiday"


def test_the_parent_of_the_data_set_serves_as_its_root(converted: tuple[Path, Path]) -> None:
    root, out = converted
    with Twin(out, root.parent) as twin:
        first = next(twin.entries())
        assert twin.source.root == root and twin.image(first.key).size == first.size
        assert twin.source_same(first)


def test_a_name_that_no_system_takes_is_a_data_set_that_is_not_there(converted: tuple[Path, Path]) -> None:
    _, out = converted
    with Ledger(out / "fgfast" / "ledger.sqlite") as ledger:
        ledger.set_meta({"source": {**ledger.meta("source"), "root": "x" * 100_000}})
    with Twin.open(out) as twin, pytest.raises(UsageError, match="--root"):
        _ = twin.dataset
