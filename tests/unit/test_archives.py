"""A file or a folder of archives in place of a data set: the error says what it is and what to do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from layouts import make_image

from fgfast.datasets import open_dataset
from fgfast.errors import UsageError


def tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".tgz", ".gz") else "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def refused(name: str | Path, root: Path | None = None) -> str:
    with pytest.raises(UsageError) as error:
        open_dataset(str(name), root)
    return str(error.value)


@pytest.mark.parametrize("name", ["birds.tar", "birds.tgz", "birds.tar.gz", "birds"])
def test_a_tar_archive_is_to_be_unpacked(name: str, tmp_path: Path) -> None:
    path = tar(tmp_path / name, ["birds/001.jpg", "birds/002.jpg", "birds/a.b/003.jpg"])
    assert f"is a tar archive, not a folder. Unpack it and give the folder: mkdir birds && tar -xf {path}" in refused(
        path
    )
    assert "is a tar archive, not a folder" in refused("cub", path)
    assert "is a tar archive, not a folder" in refused("folder", path)


def test_a_web_data_set_loses_its_classes_when_it_is_unpacked(tmp_path: Path) -> None:
    path = tar(tmp_path / "train-000.tar", ["0001.jpg", "0001.cls", "0002.jpg", "0002.cls"])
    assert "is a tar archive of a WebDataset, not a folder. Write its images into one folder per class" in refused(path)


def test_a_zip_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "my birds.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    assert f"unzip '{tmp_path / 'my birds.zip'}' -d 'my birds'" in refused(tmp_path / "my birds.zip")


def test_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"label": [1, 2]}), tmp_path / "train-00000-of-00001.parquet")
    assert "is a Parquet file, as the Hugging Face hub has them, not a folder" in refused(
        tmp_path / "train-00000-of-00001.parquet"
    )
    text = refused(tmp_path)
    assert text.startswith("no image in") and "It holds train-00000-of-00001.parquet, which is a Parquet file" in text


def test_a_folder_of_shards_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for n in range(3):
        tar(tmp_path / f"data/{n}.tar", ["1.jpg", "1.cls"])
    assert "It holds data/0.tar and 2 more, which is a tar archive of a WebDataset" in refused(tmp_path)


def test_an_image_and_any_other_file(tmp_path: Path) -> None:
    assert "is an image, not a folder of images. For one image: fgfast cut" in refused(make_image(tmp_path / "a.png"))
    (tmp_path / "labels.csv").write_text("a,b\n")
    assert "labels.csv is a file, not a folder" in refused(tmp_path / "labels.csv")
    (tmp_path / "broken.tar").write_bytes(b"")
    assert "broken.tar is a " in refused(tmp_path / "broken.tar")


def test_the_page_that_the_error_names_exists() -> None:
    page = Path(__file__).parents[2] / "docs/setups.md"
    if not page.parent.is_dir():
        pytest.skip("docs/ is not here (it is left out of source distributions)")
    assert "\n## Images that are not in a folder\n" in page.read_text(encoding="utf-8")
