"""Waterbirds: CUB's birds pasted onto land and water, listed in one metadata.csv."""

from __future__ import annotations

from pathlib import Path

from fgfast.data_paths import AnyPath, DataPath
from fgfast.datasets import cub
from fgfast.datasets.annotation_files import copy_file, read_lines, safe_key, unique_samples
from fgfast.datasets.csv_files import read_csv, write_csv
from fgfast.datasets.layout import Dataset, ImagePlacements, NamedParts, understood
from fgfast.datasets.loaders import load_line, own_line
from fgfast.errors import DatasetError
from fgfast.files import open_regular
from fgfast.mask_source import MaskKind
from fgfast.records import Sample, no_boxes
from fgfast.writing import Target

# Names of the numbers in columns y, split and place; kohpangwei/group_DRO, data/cub_dataset.py.
CLASSES = ("landbird", "waterbird")
SPLITS = ("train", "val", "test")
PLACES = ("land", "water")
_COLUMNS = ("img_filename", "y", "split")


def _named(path: AnyPath, number: int, column: str, value: str, names: tuple[str, ...]) -> str:
    allowed = [str(index) for index in range(len(names))]
    if value not in allowed:
        raise DatasetError(path, f"{column} must be one of {', '.join(allowed)}, not {value!r}", number)
    return names[int(value)]


def _beside(root: DataPath) -> DataPath:
    """Return CUB's folder beside the data set's, a data set of its own."""
    return DataPath(str(root.absolute().parent / cub.Cub.usual_folders[0]), follow=root.follow)


class Waterbirds(Dataset):
    """Waterbirds, which has no boxes of its own.

    Where CUB_200_2011 is beside it, CUB's boxes are used: the birds keep their place and the images their size.
    """

    name = "waterbirds"
    title = "Waterbirds"
    how_to_get = (
        "Get waterbird_complete95_forest2water2.tar.gz as https://github.com/kohpangwei/group_DRO describes "
        "and unpack it; CUB_200_2011 beside it provides the birds' boxes."
    )
    expected = "metadata.csv with a column img_filename"
    masks_from = (
        "CUB's masks are its masks: put CUB_200_2011 beside it, with the contents of CUB's segmentations.tgz in "
        "CUB_200_2011/segmentations."
    )
    usual_folders = ("waterbird_complete95_forest2water2", "waterbirds_v1.0", "waterbirds")
    subject = ("bird",)

    @property
    def folder(self) -> str:
        """The name that group_DRO's loader expects; where the copy is of WILDS, that of its package."""
        release = self._release
        return self.usual_folders[0] if release is None else f"waterbirds_v{release}"

    @property
    def _release(self) -> str | None:
        """The version of WILDS' copy, by its RELEASE file; None for any other copy."""
        found = sorted(path.stem.removeprefix("RELEASE_v") for path in self.root.glob("RELEASE_v*.txt"))
        return found[-1] if found else None

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether the first line of metadata.csv names img_filename."""
        try:
            with open_regular(path / "metadata.csv") as file:
                return b"img_filename" in file.readline(1000)
        except OSError:
            return False

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the lines of metadata.csv after the first."""
        return len(read_lines(root / "metadata.csv")) - 1

    @classmethod
    def _read(cls, root: DataPath, labels: str | None) -> Waterbirds:
        """Read metadata.csv, and CUB's boxes where CUB_200_2011 is beside the data set."""
        beside = _beside(root)
        has_boxes = cub.Cub.recognises(beside) and (beside / "bounding_boxes.txt").is_file()
        boxes = cub.boxes_by_name(beside) if has_boxes else {}
        path, samples = root / "metadata.csv", []
        for number, row in read_csv(path, _COLUMNS):
            key = safe_key(path, row["img_filename"], number)
            label = _named(path, number, "y", row["y"], CLASSES)
            split = _named(path, number, "split", row["split"], SPLITS)
            samples.append(Sample(key, root / key, label, split, boxes.get(key, no_boxes())))
        return cls(root, CLASSES, unique_samples(path, samples))

    def masks(self) -> tuple[MaskKind, dict[str, AnyPath]] | None:
        """Return the masks of CUB_200_2011 beside the data set."""
        return cub.segmentations(_beside(self.root), self.samples)

    def parts(self) -> NamedParts | None:
        """Return the parts of CUB_200_2011 beside the data set, where it is: the birds keep their place."""
        beside = _beside(self.root)
        if not cub.Cub.recognises(beside):
            return None
        with understood(beside):
            return cub.named_parts(beside, cub.names_by_id(beside, {sample.key for sample in self.samples}))

    def groups(self) -> dict[str, str]:
        """Return key -> bird and place, as in "waterbird on land", of all samples.

        Raises:
            DatasetError: metadata.csv has no column place, or something else in it.
        """
        path, found = self.root / "metadata.csv", {}
        for number, row in read_csv(path, (*_COLUMNS, "place")):
            label = _named(path, number, "y", row["y"], CLASSES)
            place = _named(path, number, "place", row["place"], PLACES)
            found[safe_key(path, row["img_filename"], number)] = f"{label} on {place}"
        return found

    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line for WILDS' reader, or for fgfast's where the copy is not of WILDS."""
        if self._release is None:
            return own_line(twin, "WILDS reads its own copy, waterbirds_v1.0 with RELEASE_v1.0.txt")
        return load_line(
            "wilds", "get_dataset", "waterbirds", version=self._release, root_dir=twin.parent, download=False
        )

    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write metadata.csv with all its columns; a crop moves none of its values."""
        source, target = self.root / "metadata.csv", out / "metadata.csv"
        beside = (path for pattern in ("[Rr][Ee][Aa][Dd]*", "RELEASE_v*.txt") for path in self.root.glob(pattern))
        others = [copy_file(path, out / path.name) for path in sorted(beside) if path.is_file()]
        if self._unchanged(placements):
            return [copy_file(source, target), *others]
        rows = []
        for number, row in read_csv(source, _COLUMNS):
            placement = placements.get(safe_key(source, row["img_filename"], number))
            if placement is not None:
                rows.append({**row, "img_filename": placement.key})
        return [write_csv(source, target, rows), *others]
