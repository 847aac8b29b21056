"""Names of the twin's images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from fgfast.image_formats import written_suffix
from fgfast.io.encode import JPEG_SUFFIXES, SAME_SUFFIXES


def twin_names(keys: Iterable[str], suffix: str | None) -> dict[str, str]:
    """Map each sample's key to its key in the twin.

    Args:
        keys: keys of all samples of the data set, so that names do not depend on the selection.
        suffix: the new suffix, or None to keep every suffix that can be written (others become ".png").

    Returns:
        key -> key in the twin. Where two images would get the same name (a.jpg and a.bmp, both to PNG), or an image the
        name of a folder, the renamed ones keep their whole old name and get the suffix appended.
    """
    wanted = {key: _renamed(key, suffix) for key in keys}
    folders = _folders(wanted)
    taken = folders | {key for key, name in wanted.items() if name == key}
    holders = Counter(wanted.values())
    for key, name in wanted.items():
        if name == key:
            continue
        if holders[name] > 1 or name in folders:
            name = key + PurePosixPath(name).suffix
        while name in taken:
            name += PurePosixPath(name).suffix
        taken.add(name)
        wanted[key] = name
    return wanted


def _folders(keys: Iterable[str]) -> set[str]:
    """Return every folder above the keys, as POSIX paths."""
    found: set[str] = set()
    for folder in {key.rpartition("/")[0] for key in keys}:
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _renamed(key: str, suffix: str | None) -> str:
    old = written_suffix(key)
    new = suffix or (old if old.lower() in SAME_SUFFIXES else ".png")
    if old.lower() == new.lower() or (old.lower() in JPEG_SUFFIXES and new in JPEG_SUFFIXES):
        return key
    return key[: len(key) - len(old)] + new
