"""Links in a data set that lead out of it are not followed, unless that is asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from layouts import cub, folder, make_image, placements

import fgfast
from fgfast import datasets
from fgfast.datasets.folder import Folder
from fgfast.errors import LINK_OUT, DatasetError
from fgfast.io.ledger import Ledger

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")

SETTINGS = {"segmenter": "box", "detector": "center", "devices": "cpu"}


def secret(tmp_path: Path) -> Path:
    path = tmp_path / "home/private.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("-----BEGIN PRIVATE KEY-----\n")
    return path


@pytest.mark.parametrize("name", ["images.txt", "classes.txt", "bounding_boxes.txt"])
def test_a_list_is_not_read_and_not_quoted(name: str, tmp_path: Path) -> None:
    root = cub(tmp_path)
    (root / name).unlink()
    (root / name).symlink_to(secret(tmp_path))
    with pytest.raises(DatasetError, match=f"the link {name} leads out of the data set, to a file; copy") as raised:
        datasets.open_dataset("cub", root=root)
    assert "PRIVATE" not in str(raised.value)


def test_a_file_that_is_copied(tmp_path: Path) -> None:
    root = cub(tmp_path)
    (root / "README").unlink(missing_ok=True)
    (root / "README").symlink_to(secret(tmp_path))
    dataset = datasets.open_dataset("cub", root=root)
    with pytest.raises(DatasetError, match="the link README leads out of the data set, to a file"):
        dataset.write_annotations(tmp_path / "out", placements(dataset))
    assert not (tmp_path / "out/README").exists()
    followed = datasets.open_dataset("cub", root=root, follow_links=True)
    followed.write_annotations(tmp_path / "out", placements(followed))
    assert (tmp_path / "out/README").read_text() == secret(tmp_path).read_text()


def test_a_folder_of_images(tmp_path: Path) -> None:
    root = cub(tmp_path)
    inside = next((root / "images").iterdir())
    shutil.move(inside, tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=f"the link images/{inside.name} leads out of the data set, to a folder"):
        datasets.open_dataset("cub", root=root)
    assert datasets.open_dataset("cub", root=root, follow_links=True).samples


def test_links_inside_are_followed_and_the_root_may_be_one(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/cat/again.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to(root)
    found = Folder.open(tmp_path / "link")
    (sample,) = (s for s in found.samples if s.key == "train/cat/again.jpg")
    assert sample.path.is_file()


def test_an_image_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make_image(root / "cat/a.png")
    outside = make_image(tmp_path / "home/photo.png")
    (root / "cat/b.png").symlink_to(outside)
    dataset = Folder.open(root)
    assert any("1 file is not read, and will fail: links that lead out" in note for note in dataset.notes(False))
    report = fgfast.convert(root, tmp_path / "out", settings=fgfast.Settings(**SETTINGS))
    with Ledger(report.out / "fgfast" / "ledger.sqlite") as ledger:
        failed = {o.key: o.reasons for o in ledger.outcomes(("failed",))}
    assert failed == {"cat/b.png": (LINK_OUT,)}
    again = fgfast.convert(root, tmp_path / "out", settings=fgfast.Settings(**SETTINGS, follow_links=True))
    assert again.counts["failed"] == 0


def test_a_set_of_links_alone_is_refused_at_once(tmp_path: Path) -> None:
    make_image(tmp_path / "home/photo.png")
    (tmp_path / "set/cat").mkdir(parents=True)
    (tmp_path / "set/cat/b.png").symlink_to(tmp_path / "home/photo.png")
    with pytest.raises(DatasetError, match="every image is a link that leads out of the data set"):
        Folder.open(tmp_path / "set")
