"""Oxford Flowers-102: numbered images; two MATLAB files give label and split by number.

https://www.robots.ox.ac.uk/~vgg/data/flowers/102/
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets.annotation_files import copy_file, unique_samples
from fgfast.datasets.layout import Dataset, ImagePlacements
from fgfast.datasets.loaders import load_line, own_line
from fgfast.datasets.mat_files import one_process, read_mat, whole_numbers, write_mat
from fgfast.errors import DatasetError
from fgfast.records import Sample
from fgfast.writing import Target

# Variable of setid.mat -> split; torchvision datasets/flowers102.py, _splits_map.
SPLITS = {"trnid": "train", "valid": "val", "tstid": "test"}

# MD5 of the official files, which torchvision checks; datasets/flowers102.py, _file_dict.
_OFFICIAL = {"imagelabels.mat": "e0620be6f572b9609742df49c70aed4d", "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c"}


# Of 102 classes and 8189 images; larger numbers are no labels and ids, and each class up to them would get a name.
_MOST_CLASSES, _MOST_IMAGES = 100_000, 10_000_000


def _key(ident: int) -> str:
    return f"jpg/image_{ident:05d}.jpg"


class Flowers(Dataset):
    """Flowers-102.

    Classes are the numbers "1", "2", ..., because the data do not contain their names. torchvision finds images as
    `image_%05d.jpg` and checks the MD5 of setid.mat, which differs where images are missing.
    """

    name = "flowers"
    title = "Oxford Flowers-102"
    how_to_get = "`fgfast datasets --download flowers` fetches it (350 MB) from Oxford."
    expected = "setid.mat and imagelabels.mat"
    markers = ("setid.mat", "imagelabels.mat")
    usual_folders = ("flowers-102", "flowers102", "flowers", "oxford-flowers-102")
    subject = ("flower",)
    fixed_names = True

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the ids in setid.mat."""
        sets = read_mat(root / "setid.mat", *SPLITS)
        return sum(int(np.size(sets[variable])) for variable in SPLITS)

    @classmethod
    @one_process()
    def _read(cls, root: DataPath, labels: str | None) -> Flowers:
        """Read both MATLAB files; the samples are in the order train, val, test, each as in setid.mat."""
        path = root / "imagelabels.mat"
        numbers = whole_numbers(path, "labels", read_mat(path, "labels")["labels"], _MOST_CLASSES)
        path = root / "setid.mat"
        sets = read_mat(path, *SPLITS)
        samples = []
        for variable, split in SPLITS.items():
            for ident in whole_numbers(path, variable, sets[variable], _MOST_IMAGES):
                if not 1 <= ident <= len(numbers):
                    problem = f"{variable} names image {ident}; imagelabels.mat has 1 to {len(numbers)}"
                    raise DatasetError(root / "setid.mat", problem)
                key = _key(ident)
                samples.append(Sample(key, root / key, str(numbers[ident - 1]), split))
        classes = tuple(str(number) for number in range(1, int(numbers.max(initial=0)) + 1))
        return cls(root, classes, unique_samples(root / "setid.mat", samples))

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for torchvision's Flowers102, without its check where the lists are not the official ones."""
        counts = Counter(sample.split for sample in self.samples if sample.key in placements)
        split = next((name for name in SPLITS.values() if counts[name] > 1), None)
        if split is None:
            return own_line(twin, "Flowers102 cannot read a list of a single image")
        digests = {name: hashlib.md5((twin / name).read_bytes()).hexdigest() for name in _OFFICIAL}
        before = "" if digests == _OFFICIAL else "Flowers102._check_integrity = lambda self: True"
        return load_line("torchvision.datasets", "Flowers102", twin.parent, before=before, split=split)

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write imagelabels.mat whole, because it is indexed by image id, and setid.mat without missing images."""
        written = [copy_file(self.root / "imagelabels.mat", out / "imagelabels.mat")]
        source, target = self.root / "setid.mat", out / "setid.mat"
        if all(sample.key in placements for sample in self.samples):
            return [*written, copy_file(source, target)]
        sets = read_mat(source, *SPLITS, squeeze=False)
        for variable in SPLITS:
            there = [_key(int(ident)) in placements for ident in sets[variable].ravel()]
            sets[variable] = sets[variable].reshape(1, -1)[:, np.array(there, bool)]
        return [*written, write_mat(target, sets)]
