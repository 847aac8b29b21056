"""The base class of the data-set adapters, which read samples and write the twin's annotation files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fgfast.data_paths import AnyPath, DataPath, forget_folders, real_place
from fgfast.errors import DatasetError, FgfastError, UnknownNameError, UsageError
from fgfast.mask_source import MaskKind
from fgfast.records import Float32, Sample, Size
from fgfast.writing import Target, make_folder


@contextmanager
def understood(root: AnyPath) -> Iterator[None]:
    """Raise a DatasetError for whatever comes of a stranger's annotations while they are read."""
    try:
        yield
    except FgfastError:
        raise
    except OSError as error:
        raise DatasetError(root, f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise DatasetError(root, "its annotations need more memory than there is") from error
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise DatasetError(root, f"its annotations are not understood ({what}); fgfast -vv shows where") from error


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

    @property
    def shown(self) -> tuple[float, float, float, float]:
        """The part of the twin's image that shows the stored one: x0 y0 x1 y1 in pixels of the twin's image.

        The rest is the padding of a square crop.
        """
        (x, y), (height, width) = self.offset, self.size
        x0, x1 = (float(min(max(edge, 0), width)) for edge in (-x, self.stored_size.width - x))
        y0, y1 = (float(min(max(edge, 0), height)) for edge in (-y, self.stored_size.height - y))
        return x0, y0, x1, y1

    def same_as(self, key: str) -> bool:
        """Whether the annotations of the sample `key` hold for the twin's image unchanged."""
        return self.key == key and not self.moved


@dataclass(frozen=True, slots=True, eq=False)
class NamedParts:
    """The annotated parts of the subjects of a data set.

    Attributes:
        names: of the P parts, in the data set's order; unique.
        points: key -> (P, 3) float32 x y visible, in pixels of the stored image; visible is 1 or 0, and x y of a part
            that cannot be seen mean nothing. A sample without annotated parts has no entry.
    """

    names: tuple[str, ...]
    points: Mapping[str, Float32]


# A sample's key -> its image's placement. A sample without an entry has no image in the twin: it was not selected, or
# it failed. The twin's lists name exactly the images that are present.
ImagePlacements = Mapping[str, ImagePlacement]


@dataclass(frozen=True, eq=False)
class Dataset(ABC):
    """One data set on disk. Its class holds what is known before a data set is opened.

    Attributes:
        root: the data set's folder on disk; keys are relative to it. It says whether links out of it are followed.
        classes: class names in the data set's own order.
        samples: all images in the data set's own order; keys are unique. An image may be absent on disk.
        name: the data set's name for `--dataset`.
        title: its full name.
        how_to_get: sentences that tell a person how to obtain it.
        masks_from: a sentence that says where its own masks belong; empty where it has none.
        expected: the file or folder that identifies the layout, for the error message when it is absent.
        markers: the files that a folder of this layout has, where these suffice to recognise it.
        usual_folders: folder names to search for; the first is the one that the usual loaders expect.
        subject: the subject of its images, in the words of a detector's vocabulary; empty where unknown.
        turn_exif: whether the EXIF orientation is applied to its images; False for annotated data sets.
        label_lists: the label lists to choose from, the default first; empty where there is only one.
        fixed_names: whether its usual loader builds the names of files itself, so that a twin keeps them in any format.
    """

    root: DataPath
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    name: ClassVar[str]
    title: ClassVar[str]
    how_to_get: ClassVar[str]
    masks_from: ClassVar[str] = ""
    expected: ClassVar[str]
    markers: ClassVar[tuple[str, ...]] = ()
    usual_folders: ClassVar[tuple[str, ...]]
    subject: ClassVar[tuple[str, ...]]
    turn_exif: ClassVar[bool] = False
    label_lists: ClassVar[tuple[str, ...]] = ()
    fixed_names: ClassVar[bool] = False

    @property
    def folder(self) -> str:
        """The folder name that the usual loaders expect; the twin is written to OUT/<folder>."""
        return self.usual_folders[0]

    @classmethod
    def recognises(cls, path: AnyPath) -> bool:
        """Whether `path` itself has this layout, judged by a few file names only."""
        return bool(cls.markers) and all((path / name).is_file() for name in cls.markers)

    @classmethod
    def count(cls, root: AnyPath) -> int | None:
        """Count the listed images; None where counting is slow."""
        return None

    @classmethod
    def open(cls, root: Path, labels: str | None = None, follow_links: bool = False) -> Dataset:
        """Read the annotations.

        Args:
            root: the data set's own folder, or its parent.
            labels: the label list to use; only FGVC-Aircraft has several.
            follow_links: follow links that lead out of the data set's folder.

        Raises:
            UsageError: the folder does not have this layout, or there is no such label list.
            DatasetError: an annotation file is malformed, or it, or a folder of images, is a link that leads out.
        """
        if labels is not None and not cls.label_lists:
            raise UsageError(
                f"{cls.title} has one set of labels; {labels!r} cannot be chosen. Omit --labels "
                "(only aircraft has several: variant, family, manufacturer)."
            )
        if labels is not None and labels not in cls.label_lists:
            raise UnknownNameError(f"{cls.title} label", labels, cls.label_lists)
        top = DataPath(str(_root_of(cls, root)), follow=follow_links)
        forget_folders()
        with understood(top):
            opened = cls._read(top, labels)
            for folder in opened.image_folders():
                real_place(top / folder)
        return opened

    @classmethod
    @abstractmethod
    def _read(cls, root: DataPath, labels: str | None) -> Dataset:
        """Read the annotations in the data set's own folder."""

    def write_annotations(self, out: Target | Path, placements: ImagePlacements) -> list[Path]:
        """Write the twin's annotation files below `out`.

        Files whose content still holds are copied byte for byte. The others are rewritten: lists name the images that
        are present, under their new names, and boxes and parts move with the crop. The same placements give the same
        bytes. All folders of images are created, whatever was selected and whatever failed: loaders that number the
        classes by folder must arrive at the same numbers.

        Args:
            out: the twin's folder, the counterpart of `root`; as a path it is one that the caller chose.
            placements: the placement of each image of the twin.

        Returns:
            The files written.
        """
        out = Target(out) if isinstance(out, Path) else out
        for folder in sorted(self.image_folders()):
            make_folder(out / folder)
        with understood(self.root):
            return [target.path for target in self._write(out, placements)]

    def image_folders(self) -> set[str]:
        """Return the folders of the images, relative to the root, those of classes without an image among them."""
        return {sample.key.rpartition("/")[0] for sample in self.samples}

    def masks(self) -> tuple[MaskKind, dict[str, AnyPath]] | None:
        """Return the kind of the data set's own masks, and key -> file; None where they are not on this disk."""
        return None

    def groups(self) -> dict[str, str] | None:
        """Return key -> group, of a data set that reports accuracy by groups of its samples; None of all others.

        Raises:
            DatasetError: they are not understood.
        """
        return None

    def parts(self) -> NamedParts | None:
        """Return the annotated parts with their names; None where the data set has none.

        Raises:
            DatasetError: the annotations are not understood.
        """
        return None

    @abstractmethod
    def load_line(self, twin: Path, placements: ImagePlacements) -> str:
        """Return the line of Python that loads the twin with the usual loader.

        Args:
            twin: the twin's folder.
            placements: the placement of each image of the twin; there is at least one.
        """

    def notes(self, cropped: bool) -> tuple[str, ...]:
        """Return sentences for the plan about what is not read, and what a crop leaves out of the twin."""
        return ()

    @abstractmethod
    def _write(self, out: Target, placements: ImagePlacements) -> list[Target]:
        """Write the annotation files into the existing folders of the twin; return them."""

    def _unchanged(self, placements: ImagePlacements) -> bool:
        """Whether every sample is unchanged in the twin, so that annotation files can be copied."""
        return all((p := placements.get(s.key)) is not None and p.same_as(s.key) for s in self.samples)


def folders_in(root: AnyPath, below: str) -> set[str]:
    """Return the folders in `root`/`below`, relative to `root`, without hidden ones; none where it does not exist."""
    inner = (root / below).iterdir() if (root / below).is_dir() else ()
    return {f"{below}/{path.name}" for path in inner if path.is_dir() and not path.name.startswith(".")}


def locate(layout: type[Dataset], path: Path) -> Path | None:
    """Return the folder with this layout: `path` itself or one of the usual folders in it; None where none has it.

    Copies from Kaggle are nested (`stanford_cars/stanford_cars`), so usual folders are searched one level deeper.
    """
    inner = [path / name for name in layout.usual_folders]
    nested = [folder / name for folder in inner for name in layout.usual_folders]
    return next((folder for folder in (path, *inner, *nested) if layout.recognises(folder)), None)


def _root_of(layout: type[Dataset], path: Path) -> Path:
    """Return the folder with this layout at or in `path`; raise UsageError where there is none."""
    found = locate(layout, path)
    if found is None:
        where = path.absolute()
        if not path.is_dir():
            raise UsageError(f"there is no folder {where}. Give the folder of {layout.title}. {layout.how_to_get}")
        raise UsageError(
            f"{where} is not {layout.title}: neither it nor a subfolder ({', '.join(layout.usual_folders)}) holds "
            f"{layout.expected}. Give the folder that does. {layout.how_to_get}"
        )
    return found
