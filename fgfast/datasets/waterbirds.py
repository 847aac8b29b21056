"""Waterbirds: CUB's birds pasted onto land and water, listed in one metadata.csv."""

from __future__ import annotations

from pathlib import Path

from fgfast.datasets import cub
from fgfast.datasets.annotation_files import copy_file, read_csv, read_lines, safe_key, unique_samples, write_csv
from fgfast.datasets.layout import Dataset, ImagePlacements
from fgfast.errors import DatasetError
from fgfast.files import open_regular
from fgfast.records import Sample, no_boxes

# Names of the numbers in columns y and split; kohpangwei/group_DRO, data/cub_dataset.py.
CLASSES = ("landbird", "waterbird")
SPLITS = ("train", "val", "test")
_COLUMNS = ("img_filename", "y", "split")


def _named(path: Path, number: int, column: str, value: str, names: tuple[str, ...]) -> str:
    allowed = [str(index) for index in range(len(names))]
    if value not in allowed:
        raise DatasetError(path, f"{column} must be one of {', '.join(allowed)}, not {value!r}", number)
    return names[int(value)]


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
    usual_folders = ("waterbird_complete95_forest2water2", "waterbirds")
    subject = ("bird",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the first line of metadata.csv names img_filename."""
        try:
            with open_regular(path / "metadata.csv") as file:
                return b"img_filename" in file.readline(1000)
        except OSError:
            return False

    @classmethod
    def count(cls, root: Path) -> int | None:
        """Count the lines of metadata.csv after the first."""
        return len(read_lines(root / "metadata.csv")) - 1

    @classmethod
    def _read(cls, root: Path, labels: str | None) -> Waterbirds:
        """Read metadata.csv, and CUB's boxes where CUB_200_2011 is beside the data set."""
        beside = root.absolute().parent / cub.Cub.usual_folders[0]
        has_boxes = cub.Cub.recognises(beside) and (beside / "bounding_boxes.txt").is_file()
        boxes = cub.boxes_by_name(beside) if has_boxes else {}
        path, samples = root / "metadata.csv", []
        for number, row in read_csv(path, _COLUMNS):
            key = safe_key(path, row["img_filename"], number)
            label = _named(path, number, "y", row["y"], CLASSES)
            split = _named(path, number, "split", row["split"], SPLITS)
            samples.append(Sample(key, root / key, label, split, boxes.get(key, no_boxes())))
        return cls(root, CLASSES, unique_samples(path, samples))

    def _write(self, out: Path, placements: ImagePlacements) -> list[Path]:
        """Write metadata.csv with all its columns; a crop moves none of its values."""
        source, target = self.root / "metadata.csv", out / "metadata.csv"
        others = [copy_file(p, out / p.name) for p in sorted(self.root.glob("[Rr][Ee][Aa][Dd]*")) if p.is_file()]
        if self._unchanged(placements):
            return [copy_file(source, target), *others]
        rows = []
        for number, row in read_csv(source, _COLUMNS):
            placement = placements.get(safe_key(source, row["img_filename"], number))
            if placement is not None:
                rows.append({**row, "img_filename": placement.key})
        return [write_csv(source, target, rows), *others]
