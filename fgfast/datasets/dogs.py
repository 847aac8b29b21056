"""Stanford Dogs: class folders, one VOC file per image, and MATLAB lists for the splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import boxes_from, copy_file, safe_key, unique_samples
from fgfast.datasets.layout import Dataset, ImagePlacements, folders_in
from fgfast.datasets.loaders import image_folder_line
from fgfast.datasets.mat_files import one_process, read_mat, write_mat
from fgfast.datasets.voc_files import read_voc, rewrite_voc
from fgfast.records import Sample, no_boxes
from fgfast.writing import Target

# The archives unpack to the first folder; Kaggle's copy has the second.
_IMAGES = ("Images", "images/Images")
_ANNOTATIONS = ("Annotation", "annotations/Annotation")
_LISTS = {"train_list.mat": "train", "test_list.mat": "test"}
# Lists whose rows are images. file_list.mat is train and test together.
_BY_ROW = ("train_list.mat", "test_list.mat", "file_list.mat")


def _first(root: AnyPath, folders: tuple[str, ...]) -> str:
    """Return the first of `folders` that exists, else the usual one."""
    return next((folder for folder in folders if (root / folder).is_dir()), folders[0])


def _names(variables: dict[str, Any]) -> list[str]:
    """Return a list's images, `<class>/<file>.jpg`; cells are strings, or arrays around them."""
    return [str(next(iter(np.ravel(name)), "")) for name in np.ravel(variables["file_list"])]


def _walk(folder: AnyPath) -> list[str]:
    """Return the images of the class folders, `<class>/<file>.jpg`, sorted."""
    images = (path for path in folder.glob("*/*") if path.name.lower().endswith((".jpg", ".jpeg")))
    return sorted(f"{path.parent.name}/{path.name}" for path in images)


def _folders(folder: AnyPath) -> list[str]:
    """Return the class folders; loaders that number by folder count those without images, too."""
    return [path.name for path in folder.glob("*/") if path.is_dir() and not path.name.startswith(".")]


@dataclass(frozen=True, eq=False)
class Dogs(Dataset):
    """Stanford Dogs. A label is its folder's name.

    Attributes:
        images: the folder of the images, relative to the root.
        annotations: the folder of the VOC files, relative to the root.
    """

    images: str
    annotations: str

    name = "dogs"
    title = "Stanford Dogs"
    how_to_get = (
        "Get images.tar, annotation.tar and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ "
        "and unpack them into one folder."
    )
    expected = "Images/ with folders like n02085620-Chihuahua"
    usual_folders = ("StanfordDogs", "stanford_dogs", "stanford-dogs", "dogs")
    subject = ("dog",)

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether Images/ holds a folder named after a WordNet id, or the root holds lists and VOC files."""
        if (path / "train_list.mat").is_file() and any((path / folder).is_dir() for folder in _ANNOTATIONS):
            return True
        return any(any((path / folder).glob("n[0-9]*-*/")) for folder in _IMAGES)

    @classmethod
    @one_process()
    def _read(cls, root: DataPath, labels: str | None) -> Dogs:
        """Read the lists, or the class folders where lists are absent, and every VOC file."""
        images, annotations = _first(root, _IMAGES), _first(root, _ANNOTATIONS)
        listed = []
        for name, split in _LISTS.items():
            path = root / name
            keys = _names(read_mat(path, "file_list")) if path.is_file() else []
            listed += [(path, image, split) for image in keys]
        lists = bool(listed)
        if not lists:
            listed = [(root / images, image, "") for image in _walk(root / images)]
        samples = []
        for path, image, split in listed:
            key = safe_key(path, image, below=images)
            voc = (root / annotations / image).with_suffix("")
            boxes = boxes_from(voc, read_voc(voc)) if voc.is_file() else no_boxes()
            samples.append(Sample(key, root / key, Path(image).parent.name, split, boxes))
        folders = {Path(folder).name for folder in folders_in(root, images)}
        classes = tuple(sorted({sample.label for sample in samples} | folders))
        return cls(root, classes, unique_samples(root, samples), images, annotations)

    def image_folders(self) -> set[str]:
        """Return the folders of the images and every folder beside them; see `Dataset.image_folders`."""
        return super().image_folders() | folders_in(self.root, self.images)

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for ImageFolder: the class folders are numbered."""
        filled = {key.rpartition("/")[0] for key in placements}
        return image_folder_line(twin / self.images, self.image_folders(), filled)

    @one_process()
    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the lists, and one VOC file per image that is present."""
        written = [self._write_list(name, out, placements) for name in _BY_ROW if (self.root / name).is_file()]
        for sample in self.samples:
            placement = placements.get(sample.key)
            below = Path(self.annotations) / Path(sample.key).relative_to(self.images).with_suffix("")
            if placement is None or not (self.root / below).is_file():
                continue
            if placement.same_as(sample.key):
                written.append(copy_file(self.root / below, out / below, sync=False))
            else:
                written.append(rewrite_voc(self.root / below, out / below, placement))
        return written

    def _write_list(self, name: str, out: Target, placements: ImagePlacements) -> Target:
        """Write a list with the rows whose images are present, under their new names."""
        source = self.root / name
        variables = read_mat(source, "file_list", squeeze=False)
        old = _names(variables)
        placed = [placements.get(safe_key(source, image, below=self.images)) for image in old]
        new = [None if p is None else p.key.removeprefix(f"{self.images}/") for p in placed]
        if new == old:
            return copy_file(source, out / name)
        there = np.array([image is not None for image in new], bool)
        for variable, rows in variables.items():
            if len(rows) == len(old):
                variables[variable] = rows[there]
        cells = np.empty((int(there.sum()), 1), object)
        cells[:, 0] = [image for image in new if image is not None]
        return write_mat(out / name, {**variables, "file_list": cells})
