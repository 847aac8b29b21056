"""Tests of single annotated layouts."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
import scipy.io
from layouts import SHARED, placements
from PIL import Image

from fgfast.datasets import open_dataset
from fgfast.datasets.layout import ImagePlacement
from fgfast.errors import DatasetError, UnknownNameError
from fgfast.records import Size


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


class TestCub:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("cub", root=layouts.cub(tmp_path))
        assert dataset.classes == ("001.Auk", "002.Jay")
        assert [sample.key for sample in dataset.samples][2] == "images/002.Jay/Jay_0001_30.jpg"
        assert [sample.split for sample in dataset.samples] == ["train", "test", "train", "test"]
        assert dataset.samples[0].boxes.tolist() == [[8, 6, 32, 26]]
        assert dataset.subject == ("bird",)

    def test_ids_keep_their_numbers_and_unmoved_lines_their_text(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("cub", root=layouts.cub(tmp_path)), tmp_path / "out"
        some = placements(dataset, (4, 5), Size(16, 20), without=(dataset.samples[1].key,))
        key = dataset.samples[0].key
        some[key] = ImagePlacement(key, (0, 0), Size(36, 48), Size(36, 48))
        dataset.write_annotations(out, some)
        assert lines(out / "train_test_split.txt") == ["1 1", "7 1", "9 0"]
        boxes = ["1 8.0 6.0 24.0 20.0", "7 4.0 1.0 16.0 15.0", "9 4.0 1.0 16.0 15.0"]
        assert lines(out / "bounding_boxes.txt") == boxes
        assert lines(out / "parts/part_locs.txt")[:4] == [
            "1 1 10.0 8.0 1",
            "1 2 0.0 0.0 0",
            "7 1 6.0 3.0 1",
            "7 2 0.0 0.0 0",
        ]
        assert len(lines(out / "attributes/image_attribute_labels.txt")) == 3

    def test_a_part_outside_the_crop_becomes_invisible(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("cub", root=layouts.cub(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, (12, 0), Size(20, 20)))
        assert lines(out / "parts/part_locs.txt")[0] == "1 1 0.0 0.0 0"

    def test_a_box_outside_the_crop_is_read_as_no_box(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("cub", root=layouts.cub(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, (40, 30), Size(6, 8)))
        assert all(sample.boxes.shape == (0, 4) for sample in open_dataset("cub", root=out).samples)

    def test_windows_files_are_read(self, tmp_path: Path) -> None:
        root = layouts.cub(tmp_path)
        for path in root.glob("*.txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
        dataset, out = open_dataset("cub", root=root), tmp_path / "out"
        assert dataset.samples[3].key == "images/002.Jay/Jay_0002_40.jpg"
        dataset.write_annotations(out, placements(dataset, without=(dataset.samples[0].key,)))
        kept = b"\xef\xbb\xbf2 1\r\n7 2\r\n9 2\r\n\r\n\r\n"
        assert (out / "image_class_labels.txt").read_bytes() == kept

    @pytest.mark.parametrize(
        ("file", "line", "message"),
        [
            ("images.txt", "11 ../../x.jpg", r"images\.txt:5: expected a path inside"),
            ("images.txt", "11 001.Auk/Auk_0001_10.jpg", "image id 11"),
            ("images.txt", "1 001.Auk/other.jpg", r"images\.txt:5: id '1' is listed twice"),
            ("images.txt", "12", r"images\.txt:5: expected <id> <value>"),
            ("bounding_boxes.txt", "9 a b c d", "listed twice"),
            ("classes.txt", "", None),
        ],
    )
    def test_errors_name_file_and_line(self, tmp_path: Path, file: str, line: str, message: str | None) -> None:
        root = layouts.cub(tmp_path)
        with (root / file).open("a") as stream:
            stream.write(f"{line}\n")
        if message is None:
            assert open_dataset("cub", root=root).classes == ("001.Auk", "002.Jay")
            return
        with pytest.raises(DatasetError, match=message):
            open_dataset("cub", root=root)

    def test_one_image_under_two_ids_is_refused(self, tmp_path: Path) -> None:
        root = layouts.cub(tmp_path)
        for file, value in (("images.txt", "001.Auk/Auk_0001_10.jpg"), ("image_class_labels.txt", "1")):
            with (root / file).open("a") as stream:
                stream.write(f"11 {value}\n")
        with (root / "train_test_split.txt").open("a") as stream:
            stream.write("11 1\n")
        with pytest.raises(DatasetError, match="listed twice"):
            open_dataset("cub", root=root)

    def test_a_number_that_is_none(self, tmp_path: Path) -> None:
        root = layouts.cub(tmp_path)
        layouts.text(root / "bounding_boxes.txt", "1 8.0 6.0 nan 20.0")
        with pytest.raises(DatasetError, match=r"bounding_boxes\.txt:1: expected a finite number, got 'nan'"):
            open_dataset("cub", root=root)

    @pytest.mark.skipif(not (SHARED / "CUB_200_2011").is_dir(), reason=f"no photographs in {SHARED}")
    def test_the_real_piece(self, tmp_path: Path) -> None:
        dataset = open_dataset("cub", root=SHARED)
        assert len(dataset.samples) == len(lines(SHARED / "CUB_200_2011/images.txt"))
        sizes = {}
        for sample in dataset.samples:
            with Image.open(sample.path) as image:
                sizes[sample.key] = Size(image.height, image.width)
            (x0, y0, x1, y1), (height, width) = sample.boxes[0], sizes[sample.key]
            assert 0 <= x0 < x1 <= width + 1
            assert 0 <= y0 < y1 <= height + 1
        crop = {}
        for sample in dataset.samples:
            x0, y0, x1, y1 = (int(v) for v in sample.boxes[0])
            crop[sample.key] = ImagePlacement(sample.key, (x0, y0), Size(y1 - y0, x1 - x0), sizes[sample.key])
        dataset.write_annotations(tmp_path / "CUB_200_2011", crop)
        for sample in open_dataset("cub", root=tmp_path).samples:
            placement = crop[sample.key]  # some boxes run a pixel past the edge of the image
            (x, y), (height, width) = placement.offset, placement.stored_size
            inside = min(placement.size.width, width - x), min(placement.size.height, height - y)
            assert sample.boxes.tolist() == [[0, 0, *inside]]
        same = {key: ImagePlacement(key, (0, 0), size, size) for key, size in sizes.items()}
        for path in dataset.write_annotations(tmp_path / "same", same):
            assert path.read_bytes() == (dataset.root / path.relative_to(tmp_path / "same")).read_bytes()


def as_torchvision_reads(path: Path) -> list[tuple[str, int]]:
    annotations = scipy.io.loadmat(path, squeeze_me=True)["annotations"]
    return [(str(a["fname"]), a["class"] - 1) for a in annotations]


class TestCars:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("cars", root=layouts.cars(tmp_path))
        keys = [sample.key for sample in dataset.samples]
        assert keys[0] == "cars_train/00001.jpg"
        assert keys[3] == "cars_test/00001.jpg"
        assert dataset.classes == layouts.CAR_NAMES
        assert [sample.label for sample in dataset.samples] == [layouts.CAR_NAMES[i] for i in (0, 1, 0, 1, 0)]
        assert dataset.samples[0].boxes.tolist() == [[8, 6, 32, 26]]

    def test_a_test_list_without_classes(self, tmp_path: Path) -> None:
        dataset = open_dataset("cars", root=layouts.cars(tmp_path, labelled=False))
        assert [sample.label for sample in dataset.samples if sample.split == "test"] == ["", ""]

    def test_images_without_any_list(self, tmp_path: Path) -> None:
        root = layouts.cars(tmp_path, labelled=False)
        (root / "devkit/cars_test_annos.mat").unlink()
        with pytest.raises(DatasetError, match=r"cars_test_annos_withlabels\.mat: this file is missing"):
            open_dataset("cars", root=root)

    @pytest.mark.parametrize("class_folders", [False, True])
    @pytest.mark.parametrize("nested", [False, True])
    def test_copies_from_kaggle(self, tmp_path: Path, nested: bool, class_folders: bool) -> None:
        root = layouts.cars(tmp_path, nested=nested, class_folders=class_folders)
        dataset = open_dataset("cars", root=root)
        assert len(dataset.samples) == 5
        assert all(sample.path.is_file() for sample in dataset.samples)

    def test_one_name_in_two_class_folders_is_refused(self, tmp_path: Path) -> None:
        root = layouts.cars(tmp_path, class_folders=True)
        first = next((root / "cars_train").glob("*/00001.jpg"))
        (root / "cars_train/other").mkdir()
        (root / "cars_train/other/00001.jpg").write_bytes(first.read_bytes())
        with pytest.raises(DatasetError, match="have the same name, by which the lists know an image"):
            open_dataset("cars", root=root)

    def test_the_rewritten_list_loads_as_torchvision_loads_it(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("cars", root=layouts.cars(tmp_path)), tmp_path / "out"
        gone = ("cars_train/00002.jpg",)
        written = dataset.write_annotations(out, placements(dataset, (4, 5), Size(16, 20), ".png", without=gone))
        assert len(set(written)) == len(written)
        found = as_torchvision_reads(out / "devkit/cars_train_annos.mat")
        assert found == [("00001.png", 0), ("00003.png", 0)]
        assert all(np.issubdtype(type(label), np.integer) for _, label in found)
        annotation = scipy.io.loadmat(out / "devkit/cars_train_annos.mat", squeeze_me=True)["annotations"][0]
        assert [int(annotation[f"bbox_{c}"]) for c in ("x1", "y1", "x2", "y2")] == [5, 2, 20, 16]
        assert (out / "devkit/cars_meta.mat").is_file()
        assert (out / "devkit/README.txt").is_file()

    @pytest.mark.parametrize("left", [0, 1])
    def test_lists_with_one_image_and_with_none_are_read_again(self, tmp_path: Path, left: int) -> None:
        dataset, out = open_dataset("cars", root=layouts.cars(tmp_path)), tmp_path / "out"
        train = [sample.key for sample in dataset.samples if sample.split == "train"]
        dataset.write_annotations(out, placements(dataset, without=tuple(train[left:])))
        twin = open_dataset("cars", root=out)
        assert [s.key for s in twin.samples if s.split == "train"] == train[:left]
        loaded = scipy.io.loadmat(out / "devkit/cars_train_annos.mat", squeeze_me=True)["annotations"]
        assert np.size(loaded) == left
        assert "fname" in loaded.dtype.names

    def test_the_older_layout(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("cars", root=layouts.cars_older(tmp_path)), tmp_path / "out"
        assert [(s.key, s.split) for s in dataset.samples] == [
            ("car_ims/000001.jpg", "train"),
            ("car_ims/000002.jpg", "train"),
            ("car_ims/000003.jpg", "test"),
        ]
        gone = (dataset.samples[1].key,)
        dataset.write_annotations(out, placements(dataset, suffix=".png", without=gone))
        twin = open_dataset("cars", root=out)
        assert [s.key for s in twin.samples] == ["car_ims/000001.png", "car_ims/000003.png"]
        assert twin.classes == dataset.classes

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        root = layouts.cars(tmp_path)
        (root / "devkit/cars_train_annos.mat").write_bytes(b"no")
        with pytest.raises(DatasetError, match=r"cars_train_annos\.mat: not a MATLAB file"):
            open_dataset("cars", root=root)


class TestAircraft:
    @pytest.mark.parametrize(
        ("labels", "label"), [(None, "F-16A/B"), ("family", "F-16"), ("manufacturer", "Lockheed Martin")]
    )
    def test_three_kinds_of_labels(self, tmp_path: Path, labels: str | None, label: str) -> None:
        dataset = open_dataset("aircraft", root=layouts.aircraft(tmp_path), labels=labels)
        first = dataset.samples[0]
        assert (first.key, first.label) == ("data/images/0034309.jpg", label)
        assert [sample.split for sample in dataset.samples] == ["train", "val", "test", "test"]
        assert first.boxes.tolist() == [[8, 6, 32, 26]]
        assert first.banner_rows == 20
        assert label in dataset.classes

    def test_other_labels_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="manufacturer"):
            open_dataset("aircraft", root=layouts.aircraft(tmp_path), labels="manufacturers")

    def test_all_lists_lose_a_missing_image_and_class_lists_stay(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("aircraft", root=layouts.aircraft(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, without=("data/images/0034309.jpg",)))
        for path in (out / "data").glob("images_*.txt"):
            assert "0034309" not in path.read_text()
        assert lines(out / "data/images_family_trainval.txt") == ["1025794 Boeing 707"]
        assert lines(out / "data/images_variant_train.txt") == []
        assert lines(out / "data/variants.txt") == ["707-320", "F-16A/B"]
        assert (out / "README.md").is_file()

    def test_an_image_in_train_and_test_is_refused(self, tmp_path: Path) -> None:
        root = layouts.aircraft(tmp_path)
        layouts.text(root / "data/images_variant_test.txt", "0034309 F-16A/B")
        with pytest.raises(DatasetError, match="listed twice"):
            open_dataset("aircraft", root=root)

    def test_trainval_alone_is_train(self, tmp_path: Path) -> None:
        root = layouts.aircraft(tmp_path)
        for split in ("train", "val"):
            (root / f"data/images_variant_{split}.txt").unlink()
        dataset = open_dataset("aircraft", root=root)
        assert [sample.split for sample in dataset.samples] == ["train", "train", "test", "test"]


class TestWaterbirds:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("waterbirds", root=layouts.waterbirds(tmp_path))
        assert [sample.label for sample in dataset.samples] == ["waterbird", "waterbird", "landbird"]
        assert [sample.split for sample in dataset.samples] == ["train", "val", "test"]

    def test_boxes_of_cub_beside_it(self, tmp_path: Path) -> None:
        layouts.cub(tmp_path)
        dataset = open_dataset("waterbirds", root=layouts.waterbirds(tmp_path))
        assert all(sample.boxes.tolist() == [[8, 6, 32, 26]] for sample in dataset.samples)

    def test_columns_keep_their_order_and_commas(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("waterbirds", root=layouts.waterbirds(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, suffix=".png", without=(dataset.samples[0].key,)))
        assert lines(out / "metadata.csv") == [
            "img_id,img_filename,y,split,place,place_filename",
            '2,001.Auk/Auk_0002_20.png,1,1,1,"/o/ocean, far/00000002.jpg"',
            "7,002.Jay/Jay_0001_30.png,0,2,1,/o/ocean/00000003.jpg",
        ]

    def test_a_split_that_is_none(self, tmp_path: Path) -> None:
        root = layouts.waterbirds(tmp_path)
        with (root / "metadata.csv").open("a") as stream:
            stream.write("8,a.jpg,1,3,0,x\n")
        with pytest.raises(DatasetError, match=r"metadata\.csv:5: split must be one of 0, 1, 2, not '3'"):
            open_dataset("waterbirds", root=root)


class TestPets:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("pets", root=layouts.pets(tmp_path))
        assert dataset.classes == ("Abyssinian", "Great Pyrenees")
        assert [(s.key, s.label, s.split) for s in dataset.samples] == [
            ("images/great_pyrenees_1.jpg", "Great Pyrenees", "train"),
            ("images/Abyssinian_12.jpg", "Abyssinian", "train"),
            ("images/great_pyrenees_3.jpg", "Great Pyrenees", "test"),
        ]
        assert all(sample.boxes.tolist() == [[8, 6, 32, 26]] for sample in dataset.samples)

    def test_trimaps_and_heads_are_cropped_with_the_image(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("pets", root=layouts.pets(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, (-4, 2), Size(20, 40), ".png"))
        with Image.open(out / "annotations/trimaps/Abyssinian_12.png") as trimap:
            window = np.asarray(trimap)
        expected = np.full((20, 40), 2, np.uint8)
        with Image.open(dataset.root / "annotations/trimaps/Abyssinian_12.png") as trimap:
            expected[:, 4:] = np.asarray(trimap)[2:22, :36]
        np.testing.assert_array_equal(window, expected)
        head = (out / "annotations/xmls/Abyssinian_12.xml").read_text()
        for part in ("<xmin>15<", "<ymin>6<", "<xmax>24<", "<ymax>12<", "Abyssinian_12.png", "<width>40<"):
            assert part in head

    def test_missing_trimaps_give_no_boxes(self, tmp_path: Path) -> None:
        root = layouts.pets(tmp_path)
        (root / "annotations/trimaps/Abyssinian_12.png").unlink()
        assert [len(s.boxes) for s in open_dataset("pets", root=root).samples] == [1, 0, 1]

    def test_a_broken_trimap_is_named(self, tmp_path: Path) -> None:
        root = layouts.pets(tmp_path)
        (root / "annotations/trimaps/Abyssinian_12.png").write_bytes(b"no")
        with pytest.raises(DatasetError, match=r"Abyssinian_12\.png"):
            open_dataset("pets", root=root)

    def test_the_comment_of_the_list_stays(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("pets", root=layouts.pets(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, without=(dataset.samples[0].key,)))
        assert lines(out / "annotations/list.txt")[0].startswith("#Image")
        assert len(lines(out / "annotations/list.txt")) == 3
        assert not (out / "annotations/trimaps/great_pyrenees_1.png").exists()
        assert not list(out.rglob("._*"))
        assert not list(out.rglob("*.mat"))


class TestDogs:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("dogs", root=layouts.dogs(tmp_path))
        assert dataset.classes == ("n02085620-Chihuahua", "n02086079-Pekinese")
        assert [sample.split for sample in dataset.samples] == ["train", "train", "test"]
        assert dataset.samples[2].boxes.tolist() == [[8, 6, 32, 26], [0, 0, 5, 5]]

    def test_without_lists_the_folders_are_read(self, tmp_path: Path) -> None:
        dataset = open_dataset("dogs", root=layouts.dogs(tmp_path, lists=False))
        assert [s.key for s in dataset.samples] == sorted(s.key for s in dataset.samples)
        assert len(dataset.samples) == 3
        assert all(len(sample.boxes) for sample in dataset.samples)

    def test_rows_of_all_variables_stay_together(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("dogs", root=layouts.dogs(tmp_path)), tmp_path / "out"
        gone = "Images/n02085620-Chihuahua/n02085620_7.jpg"
        dataset.write_annotations(out, placements(dataset, suffix=".png", without=(gone,)))
        found = scipy.io.loadmat(out / "file_list.mat")
        assert [cell[0][0] for cell in found["file_list"]] == [
            "n02085620-Chihuahua/n02085620_9.png",
            "n02086079-Pekinese/n02086079_1.png",
        ]
        assert found["labels"].tolist() == [[1], [2]]
        assert not (out / "Annotation/n02085620-Chihuahua/n02085620_7").exists()

    def test_a_dog_outside_the_crop_is_removed(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("dogs", root=layouts.dogs(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, (8, 6), Size(25, 30)))
        assert open_dataset("dogs", root=out).samples[2].boxes.tolist() == [[0, 0, 24, 20]]

    @pytest.mark.parametrize("content", ["<annotation><object>", "<annotation><object/></annotation>", ""])
    def test_malformed_xml_is_named(self, tmp_path: Path, content: str) -> None:
        root = layouts.dogs(tmp_path)
        (root / "Annotation/n02086079-Pekinese/n02086079_1").write_text(content)
        with pytest.raises(DatasetError, match="n02086079_1"):
            open_dataset("dogs", root=root)


class TestFlowers:
    def test_reading(self, tmp_path: Path) -> None:
        dataset = open_dataset("flowers", root=layouts.flowers(tmp_path))
        assert dataset.classes == ("1", "2", "3")
        assert [(s.key[10:15], s.label, s.split) for s in dataset.samples] == [
            ("00004", "3", "train"),
            ("00001", "3", "train"),
            ("00005", "1", "val"),
            ("00002", "1", "test"),
            ("00003", "2", "test"),
        ]

    def test_positions_stay_when_an_image_is_missing(self, tmp_path: Path) -> None:
        dataset, out = open_dataset("flowers", root=layouts.flowers(tmp_path)), tmp_path / "out"
        dataset.write_annotations(out, placements(dataset, without=("jpg/image_00003.jpg", "jpg/image_00005.jpg")))
        sets = scipy.io.loadmat(out / "setid.mat")
        assert {name: sets[name].tolist() for name in ("trnid", "tstid")} == {
            "trnid": [[4, 1]],
            "tstid": [[2]],
        }
        assert sets["valid"].size == 0
        assert np.size(scipy.io.loadmat(out / "imagelabels.mat")["labels"]) == 5

    def test_an_id_without_a_label(self, tmp_path: Path) -> None:
        root = layouts.flowers(tmp_path)
        layouts.mat(root / "imagelabels.mat", labels=np.array([[1, 2]], np.uint8))
        with pytest.raises(DatasetError, match="names image 4; imagelabels"):
            open_dataset("flowers", root=root)


class TestClassNumbers:
    """Numbers of classes come from the data set's lists and folders, not from the images that are there."""

    def test_pets_keep_the_numbers_of_the_lists(self, tmp_path: Path) -> None:
        root = layouts.pets(tmp_path)
        for name in ("trainval", "test"):
            path = root / f"annotations/{name}.txt"
            path.write_text(path.read_text().replace(" 2 2 1", " 4 2 1"))
        assert open_dataset("pets", root).classes == ("Abyssinian", "2", "3", "Great Pyrenees")
        some = placements(open_dataset("pets", root), without=("images/Abyssinian_12.jpg",))
        open_dataset("pets", root).write_annotations(tmp_path / "out", some)
        assert open_dataset("pets", tmp_path / "out").classes == ("1", "2", "3", "Great Pyrenees")

    @pytest.mark.parametrize("number", ["0", "x", "1.5", "-1"])
    def test_a_class_number_that_is_none_is_refused(self, number: str, tmp_path: Path) -> None:
        root = layouts.pets(tmp_path)
        layouts.text(root / "annotations/test.txt", f"great_pyrenees_3 {number} 2 1")
        with pytest.raises(DatasetError, match=r"test\.txt:1: expected a class number"):
            open_dataset("pets", root)

    def test_folders_without_an_image_are_in_the_twin(self, tmp_path: Path) -> None:
        for name, below in (("cub", "images/001.Aardvark"), ("dogs", "Images/n02085620-Aardvark")):
            root = layouts.BUILDERS[name](tmp_path / name)
            (root / below).mkdir()
            dataset = open_dataset(name, root)
            dataset.write_annotations(tmp_path / f"out_{name}", placements(dataset))
            assert (tmp_path / f"out_{name}" / below).is_dir()
        assert dataset.classes[0] == "n02085620-Aardvark"
