"""Centres of clusters, fitted by every worker on the same images: the same centres everywhere.

A part has the same number in all images because one fit serves them all. The images are drawn from the training images
by the seed, so the fit does not depend on what is selected, nor does it see test images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgfast import ops, seeds
from fgfast.data_paths import AnyPath
from fgfast.errors import SampleError, UsageError
from fgfast.expand.kind import Request
from fgfast.expand.parts.features import Cells, Features
from fgfast.io.decode import decode, read_bytes
from fgfast.ops.clusters import k_means
from fgfast.ops.parts import cells_inside
from fgfast.records import Size

NOT_FITTED = "not fitted"
"""The reason of all samples where an image of the fit changed."""

Centres = NDArray[np.float64]

# Cells drawn from an image for the fit: with 64 images and 384 features k-means takes some seconds.
_CELLS = 256


@dataclass(frozen=True)
class FitImage:
    """An image of the fit.

    Attributes:
        key: its sample's.
        path: its file.
        rle: its mask as a run-length string.
        size: of the stored image, in pixels.
        sha256: of the file as the run read it; None where that is not known.
    """

    key: str
    path: AnyPath
    rle: bytes
    size: Size
    sha256: bytes | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """Centres of clusters in the space of features, (K, D) float64 each.

    Attributes:
        subject: of cells inside masks (X_FG).
        image: of all cells of the images (X); None where they are not asked for.
    """

    subject: Centres
    image: Centres | None


@dataclass(frozen=True)
class Fit:
    """Fits the centres.

    Attributes:
        features: of cells.
        images: what it is fitted on.
        parts: number of clusters.
        names: seed and kind; what is drawn depends on them and the images' keys.
        turn_exif: whether images are turned as their EXIF says.
        whole: whether clusters of whole images are asked for, too.
    """

    features: Features
    images: tuple[FitImage, ...]
    parts: int
    names: tuple[int, str]
    turn_exif: bool
    whole: bool

    def __call__(self) -> Fitted:
        """Read the images, and fit.

        Raises:
            SampleError: one of them cannot be read any more, or has another content. A fit without it would differ from
                that of another worker, or of an earlier run.
        """
        cells = [self._cells(image) for image in self.images]
        subject, whole = (np.concatenate(own) for own in zip(*cells, strict=True))
        image = k_means(whole, self.parts, self._generator("image")) if self.whole else None
        return Fitted(k_means(subject, self.parts, self._generator("subject")), image)

    def _generator(self, *more: str) -> np.random.Generator:
        return seeds.generator(*self.names, "fit", *more)

    def _cells(self, image: FitImage) -> tuple[Cells, Cells]:
        """Return some cells inside the mask and some of the whole image, (n, D) float64 each."""
        try:
            data = read_bytes(image.path)
            pixels = decode(data, image.key, self.turn_exif).pixels
        except SampleError as error:
            raise self._refused(image, error.detail) from error
        if image.sha256 not in (None, hashlib.sha256(data).digest()) or pixels.shape[:2] != tuple(image.size):
            raise self._refused(image, "its file has another content")
        bits = ops.rle_decode(image.rle, *image.size)
        subject, whole = self.features(pixels, bits)
        inside = cells_inside(bits, Size(*subject.shape[:2]))
        return self._some(subject[inside], image.key, "subject"), self._some(_rows(whole), image.key, "image")

    @staticmethod
    def _refused(image: FitImage, why: str) -> SampleError:
        return SampleError(
            NOT_FITTED,
            f"parts are fitted on {image.key}, among others, which changed since the run: {why}. Put it back, or "
            "convert again, so that the run knows of the change; then run the same command again",
        )

    def _some(self, cells: Cells, key: str, what: str) -> Cells:
        return cells[self._generator(what, key).permutation(len(cells))[:_CELLS]]


def _rows(cells: Cells) -> Cells:
    return cells.reshape(-1, cells.shape[2])


def draw_images(request: Request, count: int) -> tuple[FitImage, ...]:
    """Draw the images of a fit: of the training images, or of all where the data set has no split.

    Removing a sample from the run changes the draw only where it was drawn.

    Raises:
        UsageError: no image of the run has a mask that is not empty.
    """
    training = [key for key in request.usable if request.sample(key).split == "train"]
    images = _first(request, training, count) or _first(request, request.usable, count)
    if not images:
        raise UsageError("no image of this run has a mask with a subject, so there is nothing to find parts in")
    return images


def _first(request: Request, keys: Sequence[str], count: int) -> tuple[FitImage, ...]:
    """Return the first images with a subject in a drawn order that does not depend on which keys there are."""
    found: list[FitImage] = []
    for key in sorted(keys, key=lambda key: request.number("fit", key)):
        outcome = request.outcome(key)
        if outcome.rle is not None and outcome.size is not None and outcome.area != 0:
            sha256 = None if outcome.source is None else outcome.source.sha256
            found.append(FitImage(key, request.sample(key).path, outcome.rle, outcome.size, sha256))
            if len(found) == count:
                break
    return tuple(found)


def digest_of(images: tuple[FitImage, ...]) -> str:
    """Return a digest of the images and masks of a fit: where it changes, every sample is made again."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.key}\0{image.size}\0".encode("utf-8", "surrogateescape") + image.rle + b"\0")
        digest.update(image.sha256 or b"")
    return digest.hexdigest()[:32]
