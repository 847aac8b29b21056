"""What every data-set adapter is: samples in, annotation files of the twin out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from fgfast.errors import UsageError
from fgfast.records import Sample


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one sample's image lies in the twin.

    Attributes:
        key: its key in the twin; differs from the sample's key where the format changed the name.
        offset: (x, y) of the twin image's top-left pixel in the stored image; (0, 0) without cropping.
        size: (width, height) of the twin image.
        stored_size: (width, height) of the stored image.
    """

    key: str
    offset: tuple[int, int]
    size: tuple[int, int]
    stored_size: tuple[int, int]

    @property
    def moved(self) -> bool:
        """Whether pixels lie elsewhere than in the stored image, so that boxes and parts must be moved."""
        return self.offset != (0, 0) or self.size != self.stored_size

    def same_as(self, key: str) -> bool:
        """Whether annotations of the sample `key` hold for the twin's image without any change."""
        return self.key == key and not self.moved


# Key of a sample -> where its image went. A sample without an entry has no image in the twin: it was not
# selected, or it failed. The lists of the twin name exactly the images that are there.
Placements = Mapping[str, Placement]


class Dataset(Protocol):
    """One data set on disk. Nothing in it is changed after it was opened."""

    name: ClassVar[str]
    """What `--dataset` calls it."""

    @property
    def folder(self) -> str:
        """The folder name by which the usual loaders know it; the twin is written to OUT/<folder>."""
        ...

    @property
    def root(self) -> Path:
        """The folder on disk that holds it; keys are relative to it."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the data set's own order."""
        ...

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All images in the data set's own order; keys are unique. An image may be absent on disk."""
        ...

    @property
    def subject(self) -> tuple[str, ...]:
        """What its images show, in the words of a detector's vocabulary; empty where nothing is known."""
        ...

    @property
    def turn_exif(self) -> bool:
        """Whether images are turned as their EXIF orientation says; False for annotated data sets."""
        ...

    def write_annotations(
        self, out: Path, placements: Placements, selected: Collection[str] | None = None
    ) -> list[Path]:
        """Write the twin's annotation files below `out`, the twin of `root`.

        Files whose content still holds are copied byte for byte; the others are rewritten: lists name the
        images that are there, under their new names, and boxes and parts are moved with the crop. The same
        placements give the same bytes. The folders of all selected images are made, also where every
        image of one failed: loaders that number the classes by folder must not come to other numbers.

        Args:
            out: the twin of `root`.
            placements: where the images went.
            selected: keys of the samples the run was asked for; None is all of them.

        Returns:
            The files written.
        """
        ...


class Layout(Dataset, Protocol):
    """The class of an adapter: what is known before a data set is opened.

    Attributes:
        title: the data set's full name.
        homepage: its address; empty where there is none.
        how_to_get: sentences for a person who does not have it.
        expected: the file or folder by which it is recognised, for the message when it is not.
        usual_folders: folder names to look for, the most usual first.
    """

    title: ClassVar[str]
    homepage: ClassVar[str]
    how_to_get: ClassVar[str]
    expected: ClassVar[str]
    usual_folders: ClassVar[tuple[str, ...]]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether `path` itself has this layout; looks at a few names only."""
        ...

    @classmethod
    def count(cls, root: Path) -> int | None:
        """How many images are listed, where that is cheap to say."""
        ...

    @classmethod
    def open(cls, root: Path, labels: str | None = None) -> Dataset:
        """Read the annotations.

        Args:
            root: the data set's own folder, or the one that holds it.
            labels: which of several label lists; only FGVC-Aircraft has them.
        """
        ...


def locate(layout: type[Layout], path: Path) -> Path | None:
    """The folder with this layout: `path` itself or one of the usual folders in it; None where none has it.

    Copies from Kaggle are nested (`stanford_cars/stanford_cars`): a usual folder is looked through once more.
    """
    inner = [path / name for name in layout.usual_folders]
    nested = [folder / name for folder in inner for name in layout.usual_folders]
    return next((folder for folder in (path, *inner, *nested) if layout.recognises(folder)), None)


def root_of(layout: type[Layout], path: Path) -> Path:
    """The folder with this layout at or in `path`; raises UsageError that says what was expected."""
    found = locate(layout, path)
    if found is None:
        where = path.absolute()
        state = "there is no such folder" if not path.is_dir() else f"no {layout.expected} in it"
        raise UsageError(
            f"{where} is not {layout.title}: {state}, nor in {' or '.join(layout.usual_folders)} below it. "
            f"Give the folder that holds {layout.expected}. {layout.how_to_get}"
        )
    return found


def refuse_labels(layout: type[Layout], labels: str | None) -> None:
    """Raise UsageError where a label list was asked of a data set that has only one."""
    if labels is not None:
        raise UsageError(
            f"{layout.title} has one set of labels; {labels!r} cannot be chosen. Leave --labels out "
            "(only aircraft has several: variant, family, manufacturer)."
        )
