"""The names of an expansion's files: each file of the output belongs to one sample, whatever was selected."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from fgfast.io.ledger_paths import is_below
from fgfast.io.ledger_queries import Row
from fgfast.io.names import twin_names
from fgfast.pipeline.plan import names


class Names:
    """The paths of all files of an expansion, relative to its output.

    Attributes:
        sets: folders of data sets; an image of a sample each.
        files: folder -> suffix; a file of a sample each.
        folders: folders with a folder of files per sample.
    """

    def __init__(
        self,
        keys: Sequence[str],
        sets: Sequence[str],
        files: Mapping[str, str],
        folders: Sequence[str],
        *,
        format: str,
        keep_names: bool,
        below: str = "",
    ) -> None:
        """Name the files of these samples.

        Args:
            keys: keys of all samples of the data set, so that names do not depend on the selection.
            sets, files, folders: see the class.
            format: of the images, as in `fgfast.config.Settings`.
            keep_names: whether images keep their names in any format.
            below: the folder of the keys that is left out of the images' names.
        """
        self.sets, self.files, self.folders = tuple(sets), dict(files), tuple(folders)
        self._keys, self._below = tuple(keys), f"{below}/" if below else ""
        self._images = names(list(keys), format, keep_names)[0] if sets else {}
        self._files = {suffix: twin_names(keys, suffix) for suffix in dict.fromkeys(files.values())}
        self._stems = _stems(keys) if folders else {}

    @property
    def top(self) -> tuple[str, ...]:
        """The names of all folders directly in the output."""
        return tuple(dict.fromkeys(folder.partition("/")[0] for folder in (*self.sets, *self.files, *self.folders)))

    def image_in_set(self, key: str) -> str:
        """Return the path of a sample's image below the folder of each data set."""
        return self._images[key].removeprefix(self._below)

    def image(self, folder: str, key: str) -> str:
        """Return the path of a sample's image in a data set."""
        return f"{folder}/{self.image_in_set(key)}"

    def file(self, folder: str, key: str) -> str:
        """Return the path of a sample's only file in a folder."""
        return f"{folder}/{self._files[self.files[folder]][key]}"

    def several(self, folder: str, key: str, name: str = "") -> str:
        """Return the path of one of a sample's several files; without a name, that of their folder."""
        return f"{folder}/{self._stems[key]}{'/' if name else ''}{name}"

    def fixed(self, key: str) -> list[str]:
        """Return the paths of all files of a sample, other than the several ones."""
        return [*(self.image(name, key) for name in self.sets), *(self.file(name, key) for name in self.files)]

    def writes(self, row: Row) -> bool:
        """Whether all files of a finished sample have the names that they are given now."""
        fixed = set(self.fixed(row.key))
        return all(path in fixed or self._is_several(path, row.key) for path in row.files)

    def owner(self, path: str) -> str | None:
        """Return the key of the sample whose file a path is; None where it is nobody's."""
        if not is_below(path):
            return None
        if path in self._owners:
            return self._owners[path]
        for folder in self.folders:
            stem = path.removeprefix(f"{folder}/").rpartition("/")[0]
            if path.startswith(f"{folder}/") and stem in self._by_stem:
                return self._by_stem[stem]
        return None

    def _is_several(self, path: str, key: str) -> bool:
        return any(path.rpartition("/")[0] == self.several(folder, key) for folder in self.folders)

    @cached_property
    def _owners(self) -> dict[str, str]:
        return {path: key for key in self._keys for path in self.fixed(key)}

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {stem: key for key, stem in self._stems.items()}


class Claimed(Container[str]):
    """The paths of all files of some samples."""

    def __init__(self, names: Names, keys: Container[str]) -> None:
        """Contain the paths of these keys."""
        self._names, self._keys = names, keys

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self._names.owner(path) in self._keys


def _stems(keys: Sequence[str]) -> dict[str, str]:
    """Return key -> path of its folder of files: without its suffix where no other sample or folder has that name."""
    stems: dict[str, list[str]] = {}
    taken = set(keys) | {parent.as_posix() for key in keys for parent in PurePosixPath(key).parents}
    for key in keys:
        stems.setdefault(PurePosixPath(key).with_suffix("").as_posix(), []).append(key)
    found = {}
    for stem, those in stems.items():
        alone = len(those) == 1 and (stem not in taken or stem == those[0])
        found.update({key: stem if alone else key for key in those})
    return {key: found[key] for key in keys}
