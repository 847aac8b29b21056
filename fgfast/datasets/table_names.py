"""Which columns of a table name images, and which image of the tree each name means."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import safe_key, short
from fgfast.datasets.box_forms import fold
from fgfast.errors import DatasetError

# Names of the one column that names the image, folded, best first; `datasets` has file_name, boxes.csv has path.
_NAMES = (
    "filename",
    "path",
    "filepath",
    "imagepath",
    "imgpath",
    "imagename",
    "imgname",
    "imagefile",
    "file",
    "image",
    "img",
)
_MASKS = ("mask", "segmentation", "segmap", "labelmap", "trimap", "depth", "annotation")


@dataclass(frozen=True, slots=True)
class ImageName:
    """One image that a row names.

    Attributes:
        column: the column.
        index: its place in the column's list of names; None where the column holds one name.
        text: the name as it stands there.
        key: the image's key.
    """

    column: str
    index: int | None
    text: str
    key: str

    def respelled(self, below: str) -> bool:
        """Whether the text spells its image's key in another way."""
        return f"{below}/{self.text}".lstrip("/").replace("/./", "/").removeprefix("./") != self.key


class Keys:
    """The keys of a data set, looked up by names that may be spelled in another Unicode form."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys of all files."""
        self._keys = frozenset(keys)
        self._composed: dict[str, list[str]] | None = None

    def find(self, key: str) -> str:
        """Return the key itself where there is such a file, else the only one that differs in its Unicode form."""
        if key in self._keys:
            return key
        if self._composed is None:
            self._composed = {}
            for known in self._keys:
                self._composed.setdefault(unicodedata.normalize("NFC", known), []).append(known)
        found = self._composed.get(unicodedata.normalize("NFC", key), ())
        return found[0] if len(found) == 1 else key


@cache
def name_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that name images: the one of the row's image first, then those of further images.

    Raises:
        ValueError: no column does, several might, or one names masks.
    """
    lower = {column: column.strip().lower() for column in columns}
    further = [c for c, name in lower.items() if name == "file_names" or name.endswith(("_file_name", "_file_names"))]
    for column in further:
        if any(word in lower[column] for word in _MASKS):
            raise ValueError(
                f"the column {column!r} names images that are no photographs, which a twin cannot keep: move them out "
                "of the folder, and remove the column"
            )
    main = [c for c, name in lower.items() if name == "file_name"]
    for wanted in _NAMES:
        main = main or [c for c in columns if c not in further and fold(c) == wanted]
    if len(main) > 1:
        raise ValueError(f"the columns {' and '.join(map(short, main[:3]))} both name images; keep one")
    if not main and not further:
        raise ValueError(f"no column names the image; found: {short(', '.join(columns) or 'none')}")
    return (*main, *further)


def image_names(
    path: AnyPath, number: int, fields: Mapping[str, Any], columns: Collection[str], below: str, keys: Keys
) -> list[ImageName]:
    """Return the images that a row names, in the order of `columns`; empty further columns name none."""
    found = []
    for place, column in enumerate(columns):
        value = fields.get(column)
        if place and value in (None, "", []):
            continue
        texts = value if isinstance(value, list) else [value]
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DatasetError(path, f"expected a path in {column!r}, got {short(text)}", number)
            key = keys.find(safe_key(path, text, number, below))
            found.append(ImageName(column, index if isinstance(value, list) else None, text, key))
    return found
