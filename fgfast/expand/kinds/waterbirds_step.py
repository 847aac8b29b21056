"""The step of Waterbirds: a bird is cut out and pasted onto its place."""

from __future__ import annotations

from dataclasses import dataclass

from fgfast.data_paths import DataPath
from fgfast.datasets.masks import AGREED, read_levels
from fgfast.expand.kind import Product, Subject
from fgfast.io.decode import decode, read_bytes
from fgfast.mask_source import MaskSource
from fgfast.ops.matting import blur_fusion, feathered, mixed
from fgfast.ops.pasting import OPAQUE, cover_crop, hard_levels, paste
from fgfast.records import Size, UInt8


@dataclass(frozen=True, slots=True)
class Paste:
    """Pastes a bird onto its place.

    Attributes:
        folder: the data set's folder.
        places: the root of Places.
        masks: the folder of the official masks; None for those of the run.
        soft: whether the levels of official masks are weights.
        feather: width of the edge of the run's masks in pixels; 0 for hard edges.
    """

    folder: str
    places: DataPath
    masks: DataPath | None
    soft: bool
    feather: float

    def __call__(self, subject: Subject) -> Product:
        """Make the image.

        Raises:
            SampleError: the image of the place, or the official mask, is missing or cannot be read.
        """
        given = subject.given
        size = Size(*subject.pixels.shape[:2])
        levels = hard_levels(subject.bits) if self.masks is None else self._official(self.masks, subject, size)
        if not levels.any():
            return Product(skipped="its mask is empty: there is no bird to paste")
        name = self.places / given["file"]
        background = cover_crop(decode(read_bytes(name), str(name), turn_exif=False).pixels, size)
        flags = ("background hidden",) if int(levels.min()) == OPAQUE else ()
        if self.masks is None and self.feather:
            alpha = feathered(subject.bits, self.feather)
            pixels = mixed(blur_fusion(subject.pixels, alpha)[0], alpha, background)
        else:
            pixels = paste(subject.pixels, background, levels)
        return Product(images={self.folder: pixels}, flags=flags)

    def _official(self, masks: DataPath, subject: Subject, size: Size) -> UInt8:
        """Return the share of the bird in each pixel, (H, W) uint8, 255 for the bird alone."""
        source = MaskSource("levels", masks / subject.given["mask_file"], subject.given["mask"])
        levels = read_levels(source, size)
        return levels if self.soft else hard_levels(levels >= AGREED)
