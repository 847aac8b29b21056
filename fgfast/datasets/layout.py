"""The protocol of the data-set adapters, which read samples and write the twin's annotation files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from fgfast.errors import UsageError
from fgfast.records import Sample, Size


@dataclass(frozen=True, slots=True)
class ImagePlacement:
    """The name and the crop window of one sample's image in the twin.

    Attributes:
        key: the image's key in the twin; differs from the sample's key where the format changed the name.
        offset: (x, y) in pixels of the twin image's top-left pixel in the stored image; (0, 0) without cropping.
        size: of the twin image, in pixels.
        stored_size: of the stored image, in pixels.
    """

    key: str
    offset: tuple[int, int]
    size: Size
    stored_size: Size

    @property
    def moved(self) -> bool:
        """Whether the crop moved the pixels, so that boxes and parts must be moved, too."""
        return self.offset != (0, 0) or self.size != self.stored_size

    def same_as(self, key: str) -> bool:
        """Whether the annotations of the sample `key` hold for the twin's image unchanged."""
        return self.key == key and not self.moved


# A sample's key -> its image's placement. A sample without an entry has no image in the twin: it was not selected, or
# it failed. The twin's lists name exactly the images that are present.
ImagePlacements = Mapping[str, ImagePlacement]


class Dataset(Protocol):
    """One data set on disk; its attributes do not change after it was opened."""

    name: ClassVar[str]
    """The data set's name for `--dataset`."""

    @property
    def folder(self) -> str:
        """The folder name that the usual loaders expect; the twin is written to OUT/<folder>."""
        ...

    @property
    def root(self) -> Path:
        """The data set's folder on disk; keys are relative to it."""
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
        """The subject of its images, in the words of a detector's vocabulary; empty where unknown."""
        ...

    @property
    def turn_exif(self) -> bool:
        """Whether the EXIF orientation is applied to its images; False for annotated data sets."""
        ...

    def write_annotations(
        self, out: Path, placements: ImagePlacements, selected: Collection[str] | None = None
    ) -> list[Path]:
        """Write the twin's annotation files below `out`.

        Files whose content still holds are copied byte for byte. The others are rewritten: lists name the images that
        are present, under their new names, and boxes and parts move with the crop. The same placements give the same
        bytes. The folders of all selected images are created, even where every image of a folder failed: loaders that
        number the classes by folder must arrive at the same numbers.

        Args:
            out: the twin's folder, the counterpart of `root`.
            placements: the placement of each image of the twin.
            selected: keys of the selected samples; None selects all.

        Returns:
            The files written.
        """
        ...


class Layout(Dataset, Protocol):
    """The class of an adapter, with the facts that are known before a data set is opened.

    Attributes:
        title: the data set's full name.
        homepage: the data set's address; empty where there is none.
        how_to_get: sentences that tell a person how to obtain the data set.
        expected: the file or folder that identifies the layout, for the error message when it is absent.
        usual_folders: folder names to search for, the most usual first.
    """

    title: ClassVar[str]
    homepage: ClassVar[str]
    how_to_get: ClassVar[str]
    expected: ClassVar[str]
    usual_folders: ClassVar[tuple[str, ...]]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether `path` itself has this layout, judged by a few file names only."""
        ...

    @classmethod
    def count(cls, root: Path) -> int | None:
        """Count the listed images; None where counting is slow."""
        ...

    @classmethod
    def open(cls, root: Path, labels: str | None = None) -> Dataset:
        """Read the annotations.

        Args:
            root: the data set's own folder, or its parent.
            labels: the label list to use; only FGVC-Aircraft has several.
        """
        ...


def locate(layout: type[Layout], path: Path) -> Path | None:
    """Return the folder with this layout: `path` itself or one of the usual folders in it; None where none has it.

    Copies from Kaggle are nested (`stanford_cars/stanford_cars`), so usual folders are searched one level deeper.
    """
    inner = [path / name for name in layout.usual_folders]
    nested = [folder / name for folder in inner for name in layout.usual_folders]
    return next((folder for folder in (path, *inner, *nested) if layout.recognises(folder)), None)


def root_of(layout: type[Layout], path: Path) -> Path:
    """Return the folder with this layout at or in `path`; raise UsageError where there is none."""
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
    """Raise UsageError where `labels` is given for a data set with a single label list."""
    if labels is not None:
        raise UsageError(
            f"{layout.title} has one set of labels; {labels!r} cannot be chosen. Omit --labels "
            "(only aircraft has several: variant, family, manufacturer)."
        )
