"""Stanford Cars: annotations in MATLAB files, in two official layouts and in the nestings of Kaggle's copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import (
    box_from_pixels,
    boxes_from,
    copy_file,
    numbers_of,
    pixels_from_box,
    safe_key,
    unique_samples,
)
from fgfast.datasets.layout import Dataset, ImagePlacements, folders_in
from fgfast.datasets.loaders import image_folder_line, own_line, torchvision_line
from fgfast.datasets.mat_files import one_process, read_mat, write_mat
from fgfast.errors import DatasetError
from fgfast.records import Sample
from fgfast.writing import Target

# Fields of `annotations`: 1-based pixels, both ends inclusive; devkit/README.txt.
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
# Folders of the .mat files: those of torchvision's layout, then those of Kaggle's copies.
_DEVKITS = ("devkit", "", "car_devkit/devkit", "car_devkit", "devkit/devkit")
_MATS = {"cars_train_annos.mat": "train", "cars_test_annos_withlabels.mat": "test", "cars_test_annos.mat": "test"}
_OLDER = "cars_annos.mat"
# Folders of images that are not those of classes.
_IMAGES = ("cars_train", "cars_test", "car_ims")


def _find(root: AnyPath, name: str) -> AnyPath | None:
    return next((path for folder in _DEVKITS if (path := root / folder / name).is_file()), None)


def _records(path: AnyPath) -> list[dict[str, Any]]:
    """Return the entries of `annotations`, each as field -> value."""
    annotations = np.atleast_1d(read_mat(path, "annotations")["annotations"])
    fields = annotations.dtype.names or ()
    missing = [field for field in CORNERS if field not in fields]
    if missing and annotations.size:
        raise DatasetError(path, f"annotations lack {', '.join(missing)}; found: {', '.join(fields) or 'none'}")
    return [{field: record[field] for field in fields} for record in annotations.ravel() if fields]


def _class_names(path: AnyPath) -> tuple[str, ...]:
    return tuple(str(name) for name in np.atleast_1d(read_mat(path, "class_names")["class_names"]).ravel())


def _keys_by_name(root: DataPath, folder: str) -> tuple[str, dict[str, str]]:
    """Locate the images of cars_train or cars_test.

    Returns:
        Their folder, and file name -> key for copies with class folders.

    Raises:
        DatasetError: two class folders have an image of one name.
    """
    below = f"{folder}/{folder}" if (root / folder / folder).is_dir() else folder
    keys: dict[str, str] = {}
    for file in sorted((root / below).glob("*/*"), key=str):
        key = f"{below}/{file.parent.name}/{file.name}"
        if file.name in keys and not file.name.startswith("."):
            problem = f"{keys[file.name]} and {key} have the same name, by which the lists know an image"
            raise DatasetError(root / below, f"{problem}; remove one")
        keys[file.name] = key
    return below, keys


@dataclass(frozen=True, eq=False)
class Cars(Dataset):
    """Stanford Cars.

    Attributes:
        lists: .mat file with annotations -> the keys of its entries, in order.
    """

    lists: dict[AnyPath, list[str]]

    name = "cars"
    title = "Stanford Cars"
    how_to_get = (
        "Its homepage is gone; https://github.com/pytorch/vision/issues/7545 explains how to assemble "
        "stanford_cars/{cars_train,cars_test,devkit} and cars_test_annos_withlabels.mat from copies."
    )
    expected = "devkit/cars_train_annos.mat or cars_annos.mat"
    usual_folders = ("stanford_cars", "stanford-cars", "StanfordCars", "cars")
    subject = ("car", "truck", "van", "pickup truck", "minivan", "jeep", "convertible")

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether one of the MATLAB files or of the image folders exists."""
        folders = ("cars_train", "cars_test")
        return any((path / name).is_dir() for name in folders) or any(_find(path, n) for n in (*_MATS, _OLDER))

    @classmethod
    @one_process()
    def _read(cls, root: DataPath, labels: str | None) -> Cars:
        split_folders = any((root / name).is_dir() for name in ("cars_train", "cars_test"))
        older = root / _OLDER
        if older.is_file() and ((root / "car_ims").is_dir() or not split_folders):
            return cls._open_older(root, older)
        meta = _find(root, "cars_meta.mat") or _find(root, _OLDER)
        if meta is None:
            raise DatasetError(root / "devkit/cars_meta.mat", "this file is missing; it names the classes")
        classes = _class_names(meta)
        lists: dict[AnyPath, list[str]] = {}
        samples: dict[str, Sample] = {}
        for name, split in _MATS.items():
            path = _find(root, name)
            if path is not None:
                found = cls._read_list(root, path, split, classes)
                lists[path] = [sample.key for sample in found]
                for sample in unique_samples(path, found):
                    samples.setdefault(sample.key, sample)
        cls._refuse_missing(root, lists)
        return cls(root, classes, tuple(samples.values()), lists)

    @staticmethod
    def _refuse_missing(root: DataPath, lists: dict[AnyPath, list[str]]) -> None:
        """Raise DatasetError where a split has images but no annotations."""
        there = {_MATS[path.name] for path in lists}
        for split, name in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            if split not in there and (root / f"cars_{split}").is_dir():
                problem = f"this file is missing; without it the images in cars_{split} have no boxes"
                raise DatasetError(root / name, f"{problem} (devkit/cars_test_annos.mat has boxes without labels)")

    @classmethod
    def _read_list(cls, root: DataPath, path: AnyPath, split: str, classes: tuple[str, ...]) -> list[Sample]:
        """Read the entries of one list; those of cars_test_annos.mat have no class."""
        below, keys = _keys_by_name(root, f"cars_{split}")
        samples = []
        for record in _records(path):
            name = str(record.get("fname", ""))
            key = keys.get(name) or safe_key(path, name, below=below)
            samples.append(cls._sample(root, path, key, split, classes, record))
        return samples

    @classmethod
    def _open_older(cls, root: DataPath, path: AnyPath) -> Cars:
        """Read the older layout, cars_annos.mat and car_ims/: one list with paths and a test flag."""
        classes, samples = _class_names(path), []
        for record in _records(path):
            key = safe_key(path, str(record.get("relative_im_path", "")))
            split = "test" if numbers_of(path, None, [record.get("test", 0)])[0] else "train"
            samples.append(cls._sample(root, path, key, split, classes, record))
        return cls(root, classes, unique_samples(path, samples), {path: [sample.key for sample in samples]})

    @staticmethod
    def _sample(
        root: DataPath, path: AnyPath, key: str, split: str, classes: tuple[str, ...], record: dict[str, Any]
    ) -> Sample:
        (value,) = numbers_of(path, None, [record["class"]]) if "class" in record else (0.0,)
        number = int(value)
        if "class" in record and not (1 <= number <= len(classes) and value == number):
            raise DatasetError(path, f"class of {key} must be 1 to {len(classes)}, not {value:g}")
        boxes = boxes_from(path, [box_from_pixels(path, None, [record[corner] for corner in CORNERS])])
        return Sample(key, root / key, classes[number - 1] if number else "", split, boxes)

    def image_folders(self) -> set[str]:
        """Return the folders of the images and, in copies with class folders, every folder beside them."""
        own = super().image_folders()
        above = {folder.rpartition("/")[0] for folder in own} - {""}
        return own.union(*(folders_in(self.root, folder) for folder in above))

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for torchvision's StanfordCars, or for ImageFolder in copies with class folders."""
        lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
        small = ""
        for split, name in lists.items():
            there = [key for key in self.lists.get(self.root / name, ()) if key in placements]
            flat = all(str(PurePosixPath(key).parent) == f"cars_{split}" for key in there)
            if not there or not flat or not (self.root / "devkit/cars_meta.mat").is_file():
                continue
            if len(there) > 1:
                return torchvision_line("StanfordCars", twin.parent, split=split)
            small = "StanfordCars cannot read a list of a single image"
        filled = {key.rpartition("/")[0] for key in placements}
        by_class = sorted(folder for folder in filled if PurePosixPath(folder).name not in _IMAGES)
        if by_class:
            above = by_class[-1].rpartition("/")[0]  # of cars_train, where there are both
            beside = {folder for folder in self.image_folders() if folder.rpartition("/")[0] == above}
            return image_folder_line(twin / above, beside, filled)
        return own_line(twin, small or "torchvision does not read this layout of the data set")

    @one_process()
    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the lists, and copy the other files of the devkit."""
        written = [self._write_list(path, out / path.relative_to(self.root), placements) for path in self.lists]
        folders = {self.root / "devkit", *(path.parent for path in self.lists)}
        others = {path for folder in folders for path in folder.glob("*") if path.is_file()} - set(self.lists)
        suffixes = (".mat", ".txt", ".m", ".md", "")
        copied = sorted(path for path in others if path.suffix in suffixes and not path.name.startswith("."))
        return written + [copy_file(path, out / path.relative_to(self.root)) for path in copied]

    def _write_list(self, source: AnyPath, target: Target, placements: ImagePlacements) -> Target:
        """Write a list with the entries whose images are present, renamed, with boxes moved with the crop.

        A squeezing scipy cannot tell a struct array of one entry from a struct: where a single image is left, loaders
        that squeeze need np.atleast_1d.
        """
        keys = self.lists[source]
        if all((p := placements.get(key)) is not None and p.same_as(key) for key in keys):
            return copy_file(source, target)
        variables = read_mat(source, "annotations", squeeze=False)
        annotations = variables["annotations"].ravel()
        kept = [(row, key) for row, key in enumerate(keys) if key in placements]
        rows = annotations[[row for row, _ in kept]].copy()
        for record, (_, key) in zip(rows, kept, strict=True):
            placement = placements[key]
            if placement.key != key:
                field = "relative_im_path" if "relative_im_path" in (rows.dtype.names or ()) else "fname"
                new = placement.key if field == "relative_im_path" else PurePosixPath(placement.key).name
                record[field] = np.array([new])
            if placement.moved:
                box = box_from_pixels(source, None, [np.ravel(record[corner])[0] for corner in CORNERS])
                for corner, pixel in zip(CORNERS, pixels_from_box(box, placement), strict=True):
                    record[corner] = np.array([[pixel]], np.uint16)
        return write_mat(target, {**variables, "annotations": rows.reshape(1, -1)})
