"""Whether the numbers of boxes called `bbox` can be [x, y, width, height], as COCO's name tells."""

from __future__ import annotations

from collections.abc import Sequence

from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import Box
from fgfast.errors import DatasetError
from fgfast.files import open_regular
from fgfast.image_formats import open_image, pillow_formats

# A box may leave its image by a little.
_SLACK = 1.02
# Number of images whose headers are read.
_HEADERS = 300
# EXIF's tag, and its values that exchange width and height.
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)


class Orders:
    """The order of a table's boxes.

    Data sets that call corners `bbox` exist. Where boxes leave their images by COCO's order, and no box does by the
    order of corners, the table means corners. Sizes that the table does not declare are those of the files, of which
    only the headers of some are read, and only where all boxes could be corners.
    """

    def __init__(self, path: AnyPath) -> None:
        """Begin with the table of this path."""
        self._path, self._leaves, self._may_be_corners = path, 0, True
        self._undeclared: list[tuple[int, Sequence[Box], AnyPath]] = []

    def add(self, number: int, boxes: Sequence[Box], size: tuple[float, float] | None, image: AnyPath) -> None:
        """Add the numbers of a row's boxes.

        Args:
            number: the row's line.
            boxes: four numbers of each box, as COCO's order would have them.
            size: the image's width and height where the row declares them.
            image: its file.
        """
        if not self._may_be_corners or not boxes:
            return
        if not all(a < c and b < d for a, b, c, d in boxes):
            self._may_be_corners = False
        elif size is not None:
            self._compare(number, boxes, size)
        elif len(self._undeclared) < _HEADERS:
            self._undeclared.append((number, boxes, image))

    def _compare(self, number: int, boxes: Sequence[Box], size: tuple[float, float]) -> None:
        width, height = size
        if not all(c <= width + 1 and d <= height + 1 for _, _, c, d in boxes):
            self._may_be_corners = False
        elif any(a + c > width * _SLACK or b + d > height * _SLACK for a, b, c, d in boxes):
            self._leaves = self._leaves or number

    def check(self) -> None:
        """Raise DatasetError where the table means corners."""
        for number, boxes, image in self._undeclared:
            size = _size_of(image) if self._may_be_corners else None
            if size is not None:
                self._compare(number, boxes, size)
        if self._leaves and self._may_be_corners:
            problem = "boxes leave their images as [x, y, width, height], but not as [x0, y0, x1, y1]"
            way_out = "name the column bbox_xyxy or bbox_xywh, or add a column bbox_format with xyxy or xywh"
            raise DatasetError(self._path, f"{problem}; {way_out}", self._leaves)


def _size_of(image: AnyPath) -> tuple[float, float] | None:
    """Return an image's width and height, turned as its EXIF orientation tells, from its header; None without one."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = tuple(f.name for f in pillow_formats() if not f.unmarked)
            with open_regular(image) as file, open_image(file, names) as opened:
                width, height = opened.size
                turned = opened.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # Pillow's readers raise many kinds; the image fails by itself later
        return None
    return (height, width) if turned else (width, height)
