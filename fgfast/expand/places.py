"""Places: the folder of a category below a root, in the layouts in which it is handed out, and its images.

http://places2.csail.mit.edu/download.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from fgfast.data_paths import DataPath, real_place
from fgfast.errors import UsageError
from fgfast.image_formats import suffix_of, suffixes

# Where the folders of categories are: of the archives of training images (large, and 256x256), as torchvision's
# Places365 unpacks them, and of copies for ImageFolder. "" is the root itself.
_ABOVE = ("", "data_large", "data_large_standard", "data_256", "data_256_standard", "train")
EXPECTED = "data_large/b/bamboo_forest, b/bamboo_forest, train/bamboo_forest or bamboo_forest"
"""Examples of a category's folder, for messages."""


def _ways(category: str) -> Iterator[str]:
    """Yield how the folder of a category is called: "forest/broadleaf" is f/forest/broadleaf in the archives."""
    for above in _ABOVE:
        for name in (f"{category[0]}/{category}", category, category.replace("/", "-"), category.replace("/", "_")):
            yield f"{above}/{name}".lstrip("/")


def folder_of(root: DataPath, category: str) -> DataPath:
    """Return the folder of a category, as "ocean" or "lake/natural".

    Raises:
        UsageError: it is in none of the known layouts.
    """
    found = next((root / way for way in _ways(category) if (root / way).is_dir()), None)
    if found is None:
        what = "holds no category" if root.is_dir() else "is no folder; it should hold the category"
        raise UsageError(
            f"{root} {what} {category!r} of Places: give the folder with its training images, which has {EXPECTED} in "
            "it (http://places2.csail.mit.edu/download.html)"
        )
    return found


def images_in(root: DataPath, categories: Sequence[str]) -> dict[str, DataPath]:
    """Return the images of categories, by the name that Places' own lists give them: "/b/bamboo_forest/00000001.jpg".

    Raises:
        UsageError: a category is not there.
        LinkOutError: a link on the way to it leads out of the root.
    """
    known, found = suffixes(), {}
    for category in categories:
        folder = folder_of(root, category)
        for name in sorted(os.listdir(real_place(folder))):  # noqa: PTH208 - 20,000 names, and a Path is slow
            if suffix_of(name) in known and not name.startswith("."):
                found[f"/{category[0]}/{category}/{name}"] = DataPath(root.top, f"{folder.below}/{name}", root.follow)
    return found
