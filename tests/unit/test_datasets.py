"""Tests of every layout: reading, twins with and without changes, finding by name and by path."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import BUILDERS, HEIGHT, SUBJECT, WIDTH, cub, files_below, flowers, make_image, placements

from fgfast import datasets
from fgfast.datasets.annotation_files import move_box, pixels_from_box, rewrite_lines, safe_key
from fgfast.datasets.layout import ImagePlacement
from fgfast.datasets.voc_files import read_voc
from fgfast.errors import DatasetError, DatasetNotFoundError, UnknownNameError, UsageError
from fgfast.records import Size
from fgfast.writing import Target

BOXLESS = {"waterbirds", "flowers"}
# A crop of every image: 20 x 16 pixels, 4 columns and 5 rows from the top left.
OFFSET, SIZE = (4, 5), Size(16, 20)
MOVED = (4.0, 1.0, 20.0, 16.0)


@pytest.fixture(params=sorted(BUILDERS))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> datasets.Dataset:
    return datasets.open_dataset(request.param, root=BUILDERS[request.param](tmp_path))


def reopen(dataset: datasets.Dataset, out: Path) -> datasets.Dataset:
    return datasets.open_dataset(dataset.name, root=out)


def test_every_image_is_a_sample_with_its_label_split_and_box(dataset: datasets.Dataset) -> None:
    assert len(dataset.samples) >= 3
    for sample in dataset.samples:
        assert sample.path == dataset.root / sample.key
        assert sample.path.is_file()
        assert sample.label in dataset.classes
        assert sample.split in ("train", "val", "test")
        assert sample.banner_rows == (20 if dataset.name == "aircraft" else 0)
    assert dataset.turn_exif == (dataset.name == "folder")
    with_boxes = [sample for sample in dataset.samples if len(sample.boxes)]
    assert bool(with_boxes) == (dataset.name not in BOXLESS)
    for sample in with_boxes:
        assert np.abs(sample.boxes[0] - SUBJECT).max() <= 0.5


def test_an_unchanged_twin_has_the_same_bytes(dataset: datasets.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = dataset.write_annotations(out, placements(dataset))
    assert sorted(files_below(out)) == sorted(path.relative_to(out).as_posix() for path in written)
    source = files_below(dataset.root)
    assert all(source[name] == content for name, content in files_below(out).items())
    for sample in dataset.samples:
        assert (out / sample.key).parent.is_dir()


def test_a_twin_lists_exactly_the_images_that_are_there(dataset: datasets.Dataset, tmp_path: Path) -> None:
    gone = dataset.samples[0].key
    out = tmp_path / "out"
    dataset.write_annotations(out, placements(dataset, without=(gone,)))
    if dataset.name == "folder":
        for sample in dataset.samples[1:]:
            make_image(out / sample.key)
    twin = reopen(dataset, out)
    rest = [sample for sample in dataset.samples if sample.key != gone]
    assert [(s.key, s.label, s.split) for s in twin.samples] == [(s.key, s.label, s.split) for s in rest]
    if dataset.name != "dogs":  # its classes are its folders
        assert set(twin.classes) <= set(dataset.classes)
    for old, new in zip(rest, twin.samples, strict=True):
        if dataset.name != "waterbirds":
            np.testing.assert_array_equal(old.boxes, new.boxes)


def test_boxes_move_with_a_crop(dataset: datasets.Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dataset.write_annotations(out, placements(dataset, OFFSET, SIZE))
    if dataset.name == "folder":
        for sample in dataset.samples:
            make_image(out / sample.key, size=(SIZE.width, SIZE.height))
    twin = reopen(dataset, out)
    assert [s.key for s in twin.samples] == [s.key for s in dataset.samples]
    for old, new in zip(dataset.samples, twin.samples, strict=True):
        if len(old.boxes):
            assert np.abs(new.boxes[0] - MOVED).max() <= 0.5


def test_the_same_placements_give_the_same_bytes(dataset: datasets.Dataset, tmp_path: Path) -> None:
    some = placements(dataset, OFFSET, SIZE, ".png", without=(dataset.samples[-1].key,))
    for name in ("one", "two"):
        dataset.write_annotations(tmp_path / name, some)
    dataset.write_annotations(tmp_path / "two", some)
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")
    assert files_below(tmp_path / "one")


@pytest.mark.parametrize("name", ["cub", "cars", "waterbirds", "dogs", "folder"])
def test_new_names_are_listed(name: str, tmp_path: Path) -> None:
    dataset = datasets.open_dataset(name, root=BUILDERS[name](tmp_path))
    out, renamed = tmp_path / "out", placements(dataset, suffix=".png")
    dataset.write_annotations(out, renamed)
    if name == "folder":
        for placement in renamed.values():
            make_image(out / placement.key)
    twin = reopen(dataset, out)
    assert {s.key for s in twin.samples} == {placement.key for placement in renamed.values()}
    old = {str(Path(s.key).with_suffix(".png")): s for s in dataset.samples}
    for sample in twin.samples:
        assert sample.label == old[sample.key].label
        np.testing.assert_array_equal(sample.boxes, old[sample.key].boxes)


@pytest.mark.parametrize("name", ["aircraft", "pets", "flowers"])
def test_lists_of_ids_stay_when_only_the_suffix_changes(name: str, tmp_path: Path) -> None:
    dataset = datasets.open_dataset(name, root=BUILDERS[name](tmp_path))
    dataset.write_annotations(tmp_path / "out", placements(dataset, suffix=".png"))
    source = files_below(dataset.root)
    written = {k: v for k, v in files_below(tmp_path / "out").items() if not k.endswith(".xml")}
    assert written
    assert all(source[key] == content for key, content in written.items())


def test_all_folders_of_images_are_made_though_all_failed(dataset: datasets.Dataset, tmp_path: Path) -> None:
    """Loaders number the classes by folder: what was selected, and what failed, must not change a number."""
    dataset.write_annotations(tmp_path / "out", {})
    assert all((tmp_path / "out" / sample.key).parent.is_dir() for sample in dataset.samples)


def test_a_root_may_be_the_folder_above(tmp_path: Path) -> None:
    for name, build in BUILDERS.items():
        if name == "folder":
            continue
        root = build(tmp_path / name)
        assert datasets.open_dataset(name, root=tmp_path / name).root == root
        assert datasets.find(name, [tmp_path / name]) == root
        assert datasets.open_dataset(str(root)).name == name


def test_a_path_without_a_layout_is_a_folder(tmp_path: Path) -> None:
    assert datasets.open_dataset(str(BUILDERS["folder"](tmp_path))).name == "folder"


def test_search_goes_through_the_variable_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    cub(here / "data")
    monkeypatch.chdir(here)
    monkeypatch.delenv("FGFAST_DATA", raising=False)
    assert datasets.find("cub").resolve() == here / "data/CUB_200_2011"
    monkeypatch.setenv("FGFAST_DATA", f"{tmp_path / 'nothing'}:{there}")
    cub(there)
    assert datasets.find("cub") == there / "CUB_200_2011"


def test_a_data_set_that_is_not_found_is_refused_with_instructions(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        datasets.find("cub", [tmp_path])
    message = str(error.value)
    assert str(tmp_path / "CUB_200_2011") in message
    assert "--root" in message
    assert "--download cub" in message


def test_errors_name_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'cub'"):
        datasets.open_dataset("cubb")
    with pytest.raises(UsageError, match=r"images\.txt"):
        datasets.open_dataset("cub", root=tmp_path)
    with pytest.raises(UsageError, match="--labels"):
        datasets.open_dataset("cub", root=cub(tmp_path), labels="family")
    with pytest.raises(UsageError, match="--root"):
        datasets.open_dataset("folder")
    with pytest.raises(DatasetNotFoundError, match="no folder"):
        datasets.open_dataset(str(tmp_path / "nothing"))


def test_the_survey_counts_what_is_there(tmp_path: Path) -> None:
    cub(tmp_path)
    flowers(tmp_path)
    found = {finding.name: finding for finding in datasets.survey([tmp_path])}
    assert tuple(found) == datasets.names()
    assert found["cub"].images == 4
    assert found["flowers"].images == 5
    assert found["pets"].path is None
    assert found["pets"].images is None


def test_each_layout_declares_its_facts() -> None:
    for name in datasets.names():
        layout = datasets.layout_named(name)
        assert layout.name == name
        assert layout.title
        assert layout.how_to_get
        assert layout.expected
        assert layout.__module__ == importlib.import_module(f"fgfast.datasets.{name}").__name__


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "C:\\a.jpg", "C:/a", "", ".", "a\\..\\..\\b"]
)
def test_paths_that_leave_the_data_set_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match=r"list\.txt:3: expected a path inside"):
        safe_key(Path("list.txt"), name, 3, "images")


sides = st.integers(1, 60)
# A ten-thousandth of a pixel, as annotations are written: an offset would swallow 1e-135.
numbers = st.floats(-20, 80, allow_nan=False).map(lambda value: round(value, 4))


@given(numbers, numbers, numbers, numbers, st.tuples(st.integers(-9, 40), st.integers(-9, 40)), sides, sides)
def test_a_moved_box_lies_in_the_twin_and_covers_what_it_covered(
    a: float, b: float, c: float, d: float, offset: tuple[int, int], width: int, height: int
) -> None:
    box = (min(a, c), min(b, d), max(a, c), max(b, d))
    placement = ImagePlacement("k", offset, Size(height, width), Size(HEIGHT, WIDTH))
    x0, y0, x1, y1 = move_box(box, placement)
    assert 0 <= x0 <= x1 <= width
    assert 0 <= y0 <= y1 <= height
    for x, y in ((0.5, 0.5), (width / 2, height / 2), (width - 0.5, height - 0.5)):
        if not (0 <= x + offset[0] <= WIDTH and 0 <= y + offset[1] <= HEIGHT):
            assert not (x0 < x < x1 and y0 < y < y1)  # padding
            continue
        before = box[0] <= x + offset[0] <= box[2] and box[1] <= y + offset[1] <= box[3]
        assert before == (x0 <= x <= x1 and y0 <= y <= y1) or not (x0 < x1 and y0 < y1)
    xmin, ymin, xmax, ymax = pixels_from_box(box, placement)
    assert 1 <= xmin <= xmax <= width
    assert 1 <= ymin <= ymax <= height
    if x0 < x1 and y0 < y1:
        assert xmin - 1 <= x0
        assert x1 <= xmax
        assert ymin - 1 <= y0
        assert y1 <= ymax


@given(st.binary(max_size=200))
def test_lines_that_are_not_edited_keep_their_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("lines")
    source = folder / "source"
    source.write_bytes(content)
    assert rewrite_lines(source, Target(folder, "target"), lambda text, number: text).path.read_bytes() == content
    assert [p.name for p in folder.iterdir() if p.name.endswith(".part")] == []


@pytest.mark.parametrize("name", ["cub", "cars", "aircraft", "dogs", "folder"])
def test_nothing_is_annotated_in_the_padding_of_a_square_crop(name: str, tmp_path: Path) -> None:
    """The images end at 24, 20: the boxes reach 8 and 6 pixels further, into the padding of a crop around the image."""
    dataset = datasets.open_dataset(name, root=BUILDERS[name](tmp_path))
    out, stored = tmp_path / "out", Size(20, 24)
    padded = {s.key: ImagePlacement(s.key, (-10, -10), Size(60, 60), stored) for s in dataset.samples}
    dataset.write_annotations(out, padded)
    if name == "folder":
        for sample in dataset.samples:
            make_image(out / sample.key, size=(60, 60))
    found = [box for sample in reopen(dataset, out).samples for box in sample.boxes.tolist()]
    assert found
    assert {tuple(np.round(box)) for box in found} <= {(18, 16, 34, 30), (10, 10, 15, 15)}


def test_parts_and_heads_in_the_padding_are_not_there(tmp_path: Path) -> None:
    birds = datasets.open_dataset("cub", root=BUILDERS["cub"](tmp_path))
    # The first part is at 10, 8: the image ends before it, though the crop goes on.
    for stored, line in ((Size(20, 24), "1 1 20.0 18.0 1"), (Size(20, 9), "1 1 0.0 0.0 0")):
        padded = {s.key: ImagePlacement(s.key, (-10, -10), Size(60, 60), stored) for s in birds.samples}
        birds.write_annotations(tmp_path / "birds", padded)
        assert (tmp_path / "birds/parts/part_locs.txt").read_text().splitlines()[0] == line
    pets = datasets.open_dataset("pets", root=BUILDERS["pets"](tmp_path))
    padded = {s.key: ImagePlacement(s.key, (-10, -10), Size(60, 60), Size(12, 15)) for s in pets.samples}
    pets.write_annotations(tmp_path / "pets", padded)
    (head,) = read_voc(tmp_path / "pets/annotations/xmls/great_pyrenees_1.xml")
    assert head == (20, 17, 25, 22)


def test_empty_class_folders_are_made_where_loaders_number_folders(dataset: datasets.Dataset, tmp_path: Path) -> None:
    above = Path(dataset.root / dataset.samples[0].key).parent.parent
    (above / "empty").mkdir()
    (above / "empty/.gitkeep").touch()
    again = datasets.open_dataset(dataset.name, root=dataset.root)
    again.write_annotations(tmp_path / "out", placements(again))
    below = above.relative_to(dataset.root)
    assert (tmp_path / "out" / below / "empty").is_dir() == (dataset.name in ("cub", "dogs", "folder"))


@pytest.mark.parametrize("address", ["https://host/cub.tgz", "hf://datasets/a/b", "S3://bucket/x"])
def test_addresses_are_no_data_sets(address: str) -> None:
    for name, root in ((address, None), ("cub", address), ("cub", Path(address))):
        with pytest.raises(UsageError, match=f"{address} is an address, and addresses are not read as data sets"):
            datasets.open_dataset(name, root=root)
