"""The cut-out as callers of the library get it: with the encoders of this package, which the record does not know."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgfast import records
from fgfast.errors import UnknownNameError, UsageError
from fgfast.io.encode import JPEG_SUFFIXES, SAME_SUFFIXES, encode, encode_png
from fgfast.writing import Target, write_file

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_QUALITY = 95
_LOSSY = (*JPEG_SUFFIXES, ".webp")
_WITH_ALPHA = (".png", ".webp")


@dataclass(frozen=True, slots=True, eq=False)
class Cutout(records.Cutout):
    """The image with its background replaced. It saves itself, converts to Pillow, and shows itself in a notebook.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, or (h, w, 4) uint8 RGBA where the background is transparent.
        mask: the subject's mask, at the size of the stored image.
        prompt: the prompt of that mask.
        offset: (x, y) of the cut-out's top-left pixel in the stored image; negative where a square crop exceeds it.
        flags: reasons to doubt the mask; empty where there are none.
    """

    @classmethod
    def of(cls, record: records.Cutout) -> Cutout:
        """Return the same cut-out with these methods."""
        return cls(record.pixels, record.mask, record.prompt, record.offset, record.flags)

    @property
    def share(self) -> float:
        """The share of the stored image that is subject, in 0..1."""
        return float(self.mask.bits.mean())

    @property
    def image(self) -> PillowImage:
        """The cut-out as a Pillow image, mode RGB or RGBA; it has pixels of its own."""
        return _pillow(self.pixels)

    @property
    def mask_image(self) -> PillowImage:
        """The mask as a Pillow image, mode 1, white is subject, at the size of the stored image."""
        return _pillow(self.mask.bits)

    def encode(self, suffix: str = ".png", quality: int | None = None) -> bytes:
        """Return the cut-out as the content of an image file.

        Args:
            suffix: the format, as the suffix of a file name: .png, .jpg, .webp, .bmp, .tif, .ppm, ...
            quality: 1 to 100 for JPEG and WebP, where 100 is lossless in WebP; None takes 95.

        Raises:
            UsageError: the format cannot be written, keeps no transparency, or has no quality.
            SampleError: the cut-out is too large for the format.
        """
        suffix = suffix.lower()
        check_format(suffix, transparent=self.pixels.shape[2] == 4, quality=quality)
        return encode(self.pixels, suffix, _QUALITY if quality is None else quality)

    def save(self, path: str | Path, quality: int | None = None) -> Path:
        """Write the cut-out to a file, whole or not at all; an existing one is replaced.

        Args:
            path: the file; its suffix determines the format. Its folder is created where it does not exist.
            quality: see `encode`.

        Returns:
            The path.

        Raises:
            OutputFailedError: the disk is full, read-only or failing.
            UsageError, SampleError: see `encode`.
        """
        path = Path(path)
        write_file(Target.file(path), self.encode(path.suffix, quality))
        return path

    def _repr_png_(self) -> bytes:
        """Return the cut-out as a PNG file, which notebooks show."""
        return encode_png(self.pixels)


def check_format(suffix: str, transparent: bool, quality: int | None) -> None:
    """Raise UsageError unless a cut-out can be written in the format of a suffix, in lower case."""
    if suffix not in SAME_SUFFIXES:
        raise UnknownNameError("image format", suffix, SAME_SUFFIXES)
    if transparent and suffix not in _WITH_ALPHA:
        raise UsageError(f"{suffix} keeps no transparency: choose a name that ends in .png or .webp")
    if quality is not None and suffix not in _LOSSY:
        raise UsageError(f"quality {quality} has no effect with {suffix}, which is lossless")
    whole = isinstance(quality, int) and not isinstance(quality, bool)
    if quality is not None and not (whole and 1 <= quality <= 100):
        raise UsageError(f"quality must be a whole number from 1 to 100, not {quality!r}")


def _pillow(array: object) -> PillowImage:
    made: PillowImage = importlib.import_module("PIL.Image").fromarray(array)
    return made
