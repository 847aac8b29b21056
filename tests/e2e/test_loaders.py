"""Twins are loaded by the loaders that people use: torchvision's, Hugging Face's and WILDS', with the same labels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from click.testing import CliRunner
from layouts import BUILDERS, HEIGHT, WIDTH, make_image, mat, text

import fgfast
from fgfast.cli import main
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
from fgfast.studies import torchvision_shim

torchvision_shim.declare()
# WILDS warns about groups that are empty here; datasets leaves files open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:wilds"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
torchvision = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")

Labels = dict[str, int]
# Splits of the loaders that have them.
SPLITS = {
    "StanfordCars": ("train", "test"),
    "FGVCAircraft": ("train", "val", "trainval", "test"),
    "OxfordIIITPet": ("trainval", "test"),
    "Flowers102": ("train", "val", "test"),
}
VARIANTS: dict[str, tuple[Settings, Selection]] = {
    "unchanged": (Settings(segmenter="box"), Selection()),
    "png": (Settings(segmenter="box", format="png"), Selection()),
    "webp": (Settings(segmenter="box", format="webp"), Selection()),
    "square": (Settings(segmenter="box", format="png", crop="square", pad=0.5), Selection()),
    "limit": (Settings(segmenter="box", format="png"), Selection(limit=2)),
}


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
    check = torchvision.Flowers102._check_integrity
    datasets.disable_progress_bars()
    yield
    torchvision.Flowers102._check_integrity = check  # a line of a partial twin replaces it


def load(line: str) -> Any:
    """Run a line that loads a twin."""
    names: dict[str, Any] = {}
    exec(line, names)
    return names["twin"]


def with_split(line: str, split: str) -> str:
    return re.sub(r"split='\w+'", f"split='{split}'", line)


def labels(loaded: Any) -> Labels:
    """File name without suffix -> label, and every image can be opened."""
    pairs = {
        "ImageFolder": lambda: loaded.samples,
        "StanfordCars": lambda: loaded._samples,
        "FGVCAircraft": lambda: zip(loaded._image_files, loaded._labels, strict=True),
        "OxfordIIITPet": lambda: zip(loaded._images, loaded._labels, strict=True),
        "Flowers102": lambda: zip(loaded._image_files, loaded._labels, strict=True),
        "WaterbirdsDataset": lambda: zip(loaded._input_array, loaded.y_array.tolist(), strict=True),
    }[type(loaded).__name__]
    found = {Path(path).with_suffix("").as_posix().split("/")[-1]: int(label) for path, label in pairs()}
    for n in range(len(loaded)):
        assert loaded[n][0].getbbox() is not None
    assert len(found) == len(loaded)
    return found


def everything(line: str, in_list: Callable[[str], int]) -> dict[str, Labels]:
    """Split -> labels, with a loader's line. `in_list` counts a split's images."""
    loader = next((name for name in SPLITS if f"import {name};" in line), "")
    if not loader:
        return {"": labels(load(line))}
    # StanfordCars and Flowers102 squeeze arrays: they cannot read a list of a single image, in no data set.
    squeezes = loader in ("StanfordCars", "Flowers102")
    return {s: labels(load(with_split(line, s))) for s in SPLITS[loader] if not (squeezes and in_list(s) == 1)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["cub", "cars", "aircraft", "pets", "dogs", "flowers", "folder", "waterbirds"])
def test_the_line_at_the_end_loads_the_twin_with_the_labels_of_the_data_set(
    name: str, variant: str, tmp_path: Path
) -> None:
    if name == "waterbirds":
        pytest.importorskip("wilds", reason="wilds is not installed")
    settings, selection = VARIANTS[variant]
    build = {"waterbirds": as_wilds_has_it, "flowers": more_flowers}.get(name, BUILDERS[name])
    root = build(tmp_path / "in")
    if variant == "limit" and name == "flowers":
        selection = Selection(limit=4)
    report = fgfast.convert(name, tmp_path / "out", root=root, settings=settings, selection=selection, in_process=True)
    assert "fgfast.datasets" not in report.load
    there = open_dataset(name, report.twin)
    counts = {split: sum(s.split == split for s in there.samples) for split in ("train", "val", "test")}
    twin = everything(report.load, lambda split: counts[split])
    line = report.load.replace(str(report.out), str(root.parent)).replace(", allow_empty=True", "")
    # The tiny data set is not the official one, either.
    line = line.replace("Flowers102; twin", "Flowers102; Flowers102._check_integrity = lambda self: True; twin")
    source = everything(line, lambda split: 2)
    for split, found in twin.items():
        assert found == {stem: label for stem, label in source[split].items() if stem in found}
        if variant != "limit":
            assert found == source[split] and found
    if variant == "limit":
        listed = {Path(sample.key).stem for sample in there.samples}
        loaded = {stem for found in twin.values() for stem in found}
        assert loaded <= listed and loaded


def more_flowers(parent: Path) -> Path:
    """Flowers with at least two images in every split."""
    root = BUILDERS["flowers"](parent)
    for ident in range(6, 9):
        make_image(root / f"jpg/image_{ident:05d}.jpg", ident)
    mat(root / "imagelabels.mat", labels=np.array([[3, 1, 2, 3, 1, 2, 2, 1]], np.uint8))
    splits = {"trnid": [4, 1, 6], "valid": [5, 7], "tstid": [2, 3, 8]}
    mat(root / "setid.mat", **{name: np.array([idents], np.uint16) for name, idents in splits.items()})
    return root


def as_wilds_has_it(parent: Path) -> Path:
    """Waterbirds under the name of WILDS' copy, with its RELEASE file."""
    root = BUILDERS["waterbirds"](parent).rename(parent / "waterbirds_v1.0")
    text(root / "RELEASE_v1.0.txt", "")
    return root


def test_wilds_reads_groups_and_splits_of_the_twin(tmp_path: Path) -> None:
    wilds = pytest.importorskip("wilds", reason="wilds is not installed")
    root = as_wilds_has_it(tmp_path / "in")
    report = fgfast.convert("waterbirds", tmp_path / "out", root=root.parent, settings=VARIANTS["png"][0])
    assert report.twin.name == "waterbirds_v1.0"
    before, after = (
        wilds.get_dataset("waterbirds", root_dir=str(parent), download=False) for parent in (root.parent, report.out)
    )
    assert before.metadata_array.tolist() == after.metadata_array.tolist()
    assert before.split_array.tolist() == after.split_array.tolist()
    assert len(after.get_subset("train")) == 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("waterbird_complete95_forest2water2", "waterbird_complete95_forest2water2"),
        ("waterbirds", "waterbird_complete95_forest2water2"),
        ("my_copy", "waterbird_complete95_forest2water2"),
    ],
)
def test_another_copy_of_waterbirds_gets_the_name_of_its_loader(found: str, expected: str, tmp_path: Path) -> None:
    root = BUILDERS["waterbirds"](tmp_path / "in").rename(tmp_path / "in" / found)
    assert open_dataset("waterbirds", root).folder == expected
    text(root / "RELEASE_v1.0.txt", "")
    assert open_dataset("waterbirds", root).folder == "waterbirds_v1.0"


def images_below(loaded: Any) -> set[str]:
    import datasets

    split = loaded.cast_column("image", datasets.Image(decode=False))
    return {row["image"]["path"] for row in split}


def test_masks_never_become_samples_of_the_output_folder(tmp_path: Path) -> None:
    """On OUT, and on OUT/fgfast, ImageFolder raises; Hugging Face's imagefolder reads the twin."""
    import datasets

    keys = ("cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "eel/d.jpg")
    for n, key in enumerate(keys):
        make_image(tmp_path / "in" / key, n)
    report = fgfast.convert("folder", tmp_path / "out", root=tmp_path / "in", settings=VARIANTS["png"][0])
    assert len(list((report.out / ".masks").rglob("*.png"))) == len(keys)
    for folder in (report.out, report.out / "fgfast"):
        with pytest.raises(FileNotFoundError):
            torchvision.ImageFolder(folder)
    for folder in (report.out, report.twin):
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
        assert images_below(loaded) == {str(report.twin / Path(key).with_suffix(".png")) for key in keys}
        assert loaded.features["label"].names == ["cat", "dog", "eel"]
        assert loaded["label"] == [0, 0, 1, 2]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_output_folder_reads_like_the_data_set_in_imagefolder(name: str, tmp_path: Path) -> None:
    """Whatever imagefolder makes of the data set, it makes of OUT: no mask is added, no label changes."""
    import datasets

    root = BUILDERS[name](tmp_path / "in")
    report = fgfast.convert(name, tmp_path / "out", root=root, settings=VARIANTS["unchanged"][0], in_process=True)

    def read(folder: Path) -> Any:
        try:
            loaded = datasets.load_dataset("imagefolder", data_dir=str(folder))
        except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
            return str(type(error))
        return {
            split: [
                (Path(row["image"]["path"]).name, row.get("label"))
                for row in rows.cast_column("image", datasets.Image(decode=False))
            ]
            for split, rows in loaded.items()
        }

    assert read(root.parent) == read(report.out)
    with pytest.raises(FileNotFoundError):
        torchvision.ImageFolder(report.out)


@pytest.mark.parametrize("tables", [(), ("metadata.csv",)], ids=["flat", "with metadata"])
def test_a_folder_without_classes_is_loaded_by_imagefolder(tables: tuple[str, ...], tmp_path: Path) -> None:
    for n in range(3):
        make_image(tmp_path / f"in/{n}.jpg", n)
    for table in tables:
        text(tmp_path / "in" / table, "file_name,text", *(f"{n}.jpg,caption {n}" for n in range(3)))
    report = fgfast.convert("folder", tmp_path / "out", root=tmp_path / "in", settings=VARIANTS["png"][0])
    assert "load_dataset('imagefolder'" in report.load
    loaded = load(report.load)["train"]
    assert sorted(Path(path).name for path in images_below(loaded)) == ["0.png", "1.png", "2.png"]
    if tables:
        assert sorted(loaded["text"]) == ["caption 0", "caption 1", "caption 2"]


def test_images_that_imagefolder_does_not_know_are_loaded_by_another_loader(tmp_path: Path) -> None:
    for n, key in enumerate(("cat/a.jfif", "dog/b.jpg")):
        make_image(tmp_path / "in" / key, n)
    report = fgfast.convert("folder", tmp_path / "out", root=tmp_path / "in", settings=VARIANTS["unchanged"][0])
    loaded = load(report.load)["train"]
    assert loaded["label"] == [0, 1] and len(images_below(loaded)) == 2


@pytest.mark.parametrize("name", ["cub", "dogs", "folder"])
def test_classes_keep_their_numbers_whatever_is_converted(name: str, tmp_path: Path) -> None:
    """The first class is not selected, or all of its images fail: the others are numbered as in the data set."""
    root = BUILDERS[name](tmp_path / "in")
    dataset = open_dataset(name, root)
    first, other = dataset.classes[0], dataset.classes[1]
    selected = fgfast.convert(
        name, tmp_path / "a", root=root, settings=VARIANTS["unchanged"][0], selection=Selection(classes=(other,))
    )
    for sample in dataset.samples:
        if sample.label == first:
            Path(sample.path).write_bytes(b"junk")
    failed = fgfast.convert(name, tmp_path / "b", root=root, settings=VARIANTS["unchanged"][0])
    assert failed.counts["failed"] > 0
    for report in (selected, failed):
        assert "allow_empty=True" in report.load
        loaded = load(report.load)
        assert loaded.classes == [first, other]
        assert set(labels(loaded).values()) == {1}


def test_imagefolder_numbers_the_classes_of_the_tree_where_it_is_given_their_names(tmp_path: Path) -> None:
    """The example of docs/datasets.md."""
    import datasets

    for n, key in enumerate(("cat/a.jpg", "dog/b.jpg", "eel/c.jpg")):
        make_image(tmp_path / "in" / key, n)
    selection = Selection(classes=("dog", "eel"))
    report = fgfast.convert(
        "folder", tmp_path / "out", root=tmp_path / "in", settings=VARIANTS["png"][0], selection=selection
    )
    names = sorted(folder.name for folder in report.twin.iterdir())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    loaded = datasets.load_dataset("imagefolder", data_dir=str(report.twin), features=features, split="train")
    assert names == ["cat", "dog", "eel"] and loaded["label"] == [1, 2]


def test_names_are_kept_for_loaders_that_build_them(tmp_path: Path) -> None:
    root = BUILDERS["flowers"](tmp_path / "in")
    report = fgfast.convert("flowers", tmp_path / "out", root=root, settings=VARIANTS["png"][0])
    files = sorted((report.twin / "jpg").iterdir())
    assert [file.name for file in files] == [f"image_{n:05d}.jpg" for n in range(1, 6)]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_a_list_of_one_image_is_left_to_another_reader(tmp_path: Path) -> None:
    """Where StanfordCars cannot read what is left, the line says so and loads the twin all the same."""
    root = BUILDERS["cars"](tmp_path / "in")
    report = fgfast.convert(
        "cars", tmp_path / "out", root=root, settings=VARIANTS["unchanged"][0], selection=Selection(limit=1)
    )
    assert "StanfordCars cannot read a list of a single image" in report.load
    assert [sample.label for sample in load(report.load).samples if sample.path.is_file()] == [
        "AM General Hummer SUV 2000"
    ]


def test_other_copies_of_cars_have_a_line_that_loads_them(tmp_path: Path) -> None:
    by_class = layouts.cars(tmp_path / "kaggle", nested=True, class_folders=True)
    (by_class / "cars_train/cars_train/AC Aceca").mkdir()
    report = fgfast.convert("cars", tmp_path / "a", root=by_class, settings=VARIANTS["png"][0], in_process=True)
    loaded = load(report.load)
    assert Path(loaded.root).name == "cars_train" and loaded.classes[0] == "AC Aceca"
    assert sorted(labels(loaded).values()) == [1, 2, 2]
    nested = layouts.cars(tmp_path / "nested", nested=True)
    report = fgfast.convert("cars", tmp_path / "c", root=nested, settings=VARIANTS["png"][0], in_process=True)
    assert "torchvision does not read this layout" in report.load
    older = layouts.cars_older(tmp_path / "older")
    report = fgfast.convert("cars", tmp_path / "b", root=older, settings=VARIANTS["png"][0], in_process=True)
    assert "torchvision does not read this layout" in report.load
    assert len(load(report.load).samples) == 3


def test_the_command_prints_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = BUILDERS["cub"](tmp_path / "in")
    out = tmp_path / "it's out"
    arguments = ["convert", "--dataset", "cub", "--root", str(root), "--out", str(out), "--segmenter", "box"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    line = re.search(r"^Load: +(.*)$", done.output, re.M)
    assert line and len(load(line[1])) == 4
    assert load(line[1])[0][0].size[::-1] == (HEIGHT, WIDTH)
    # The output goes to others: its own files name the twin from the folder that holds the output.
    portable = line[1].replace(f"{tmp_path}/", "")
    facts = json.loads((out / "fgfast/run.json").read_text())
    assert facts["result"]["load"] == portable != line[1]
    assert json.dumps(portable) in (out / "fgfast/report.html").read_text()
    monkeypatch.chdir(tmp_path)
    assert len(load(portable)) == 4
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(done.stdout)["load"] == line[1]
