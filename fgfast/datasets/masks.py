"""Annotated masks: reading the one of an image. `mask_files.py` finds them.

Kinds (see `MaskSource`):

    grey      any mask image: 0 and 1; or black and white with a soft edge between them, subject from half the range on;
              or the alpha channel of an image that has one
    levels    shares of annotators who agree, 0..255 (CUB's segmentations)
    trimap    1 foreground, 2 background, 3 border (Oxford-IIIT Pet)
    coco      polygons and run lengths, compressed or not, of all annotations of the image
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgfast import ops
from fgfast.data_paths import LinkOutError
from fgfast.datasets.annotation_files import short
from fgfast.errors import LINK_OUT, MaskUnusableError
from fgfast.files import open_regular
from fgfast.image_formats import open_image
from fgfast.mask_source import MaskKind, MaskSource
from fgfast.ops.polygons import polygon_mask
from fgfast.records import Bool, Sample, Size, UInt8

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# Formats of mask images: those of the suffixes that `mask_files` looks for. The masks of CUB and Pets are PNGs.
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG")
_CUB_AND_PETS = ("PNG",)
# Levels of 8 bits from which at least half of the annotators agree.
AGREED = 128
FOREGROUND, BACKGROUND, BORDER = 1, 2, 3
# A value between black and white that fills a square of this side is a label, not a part of a soft edge. Formats with
# losses spread a value by as much as _LOSS, and make squares of their own at edges, as wide as a block of JPEG.
_LABEL, _LOSSY_LABEL, _LOSS, _LOSSY = 3, 8, 16, ("JPEG", "WEBP")
# Nor has a soft edge a square of this side without any black or white; a photograph has.
_WIDEST_EDGE = 32
# Values between black and white that an error names.
_NAMED = 3
# Coordinates of polygons beyond this many times the image's size are no outline of anything in it.
_FAR = 10
# Pixels along the outline of one polygon; drawing it takes 100 bytes for each.
_LONGEST_OUTLINE = 4_000_000

RULES: Mapping[MaskKind, str] = {
    "grey": "white is subject, from half the range on",
    "levels": f"subject is where at least half of the annotators agree (levels of {AGREED} and more, of 255)",
    "trimap": "foreground and border are subject",
    "coco": "all annotations of an image together are its subject, whatever their category, crowds (iscrowd) included",
}
"""What is subject, per kind, for the plan."""


def read_mask(sample: Sample, size: Size) -> Bool:
    """Read the annotated mask of an image.

    Args:
        sample: the sample.
        size: of its image, as decoded.

    Returns:
        (H, W) bool; True is subject. At least one pixel is.

    Raises:
        MaskUnusableError: there is no mask, it has another size, it is not understood, or it is empty.
    """
    source = sample.mask
    if source is None:
        raise MaskUnusableError("no mask", f"{sample.key} has no annotated mask")
    bits = _from_annotations(source, size) if source.kind == "coco" else _from_image(source, size)
    if not bits.any():
        raise MaskUnusableError("empty mask", f"the mask of {sample.key} in {source.path} has no pixel of a subject")
    return bits


def read_levels(source: MaskSource, size: Size) -> UInt8:
    """Read a mask of the kind "levels" as it is, without a threshold.

    Args:
        source: the mask.
        size: of its image, as decoded.

    Returns:
        (H, W) uint8, the share of annotators who agree, 255 for all of them.

    Raises:
        MaskUnusableError: there is no such file, it has another size, or it is not understood.
    """
    with _opened(source.path, _CUB_AND_PETS, size) as image:
        values, top = _grey(source.path, image, 0)
    return values if top == 255 else (values.astype(np.uint32) * 255 // top).astype(np.uint8)


def _from_image(source: MaskSource, size: Size) -> Bool:
    formats = _CUB_AND_PETS if source.kind in ("levels", "trimap") else MASK_FORMATS
    with _opened(source.path, formats, size) as image:
        if source.kind == "trimap":
            return _trimap(source.path, np.asarray(image))
        slack = _LOSS if image.format in _LOSSY else 0
        values, top = _grey(source.path, image, slack)
    if source.kind == "levels":
        levels: Bool = values >= (AGREED if top == 255 else (top + 1) // 2)
        return levels
    return _two_values(source.path, values, top, slack)


@contextmanager
def _opened(path: os.PathLike[str], formats: tuple[str, ...], size: Size) -> Iterator[PillowImage.Image]:
    """Open a mask image of the size of its image; raise MaskUnusableError for whatever is wrong with it."""
    try:
        with open_regular(path) as file, open_image(file, formats) as image:
            _check_size(path, Size(image.height, image.width), size)
            yield image
    except FileNotFoundError:
        raise MaskUnusableError("no mask", f"there is no mask {path}") from None
    except LinkOutError as error:
        raise MaskUnusableError(LINK_OUT, f"the mask {path} is not read: {error.strerror}") from None
    except MaskUnusableError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise MaskUnusableError("mask broken", f"the mask {path} cannot be read: {error}") from error


def _check_size(path: os.PathLike[str], mask: Size, image: Size) -> None:
    if mask != image:
        raise MaskUnusableError(
            "mask size",
            f"the mask in {path} has {short(mask.width)}x{short(mask.height)} pixels, its image "
            f"{image.width}x{image.height}",
        )


def _trimap(path: os.PathLike[str], values: NDArray[Any]) -> Bool:
    if values.ndim != 2 or not np.isin(np.unique(values), (FOREGROUND, BACKGROUND, BORDER)).all():
        raise _unclear(path, f"{FOREGROUND} (foreground), {BACKGROUND} (background) and {BORDER} (border)")
    bits: Bool = values != BACKGROUND
    return bits


def _grey(path: os.PathLike[str], image: PillowImage.Image, slack: int) -> tuple[NDArray[Any], int]:
    """Return the values of a mask image, (H, W), and the largest that its format allows."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8), 1
    if image.mode.startswith("I"):  # 16 bits, which Pillow may open as 32
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _unclear(path, "8 or 16 bits per pixel")
        return values, 65535
    if image.mode == "P" and "transparency" not in image.info and (indices := _indices(image)) is not None:
        return indices, 1
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            return alpha, 255
    if image.mode not in ("L", "LA", "P", "RGB", "RGBA"):
        raise _unclear(path, f"a grey mask, not the mode {image.mode}")
    red, green, blue = (np.asarray(channel) for channel in image.convert("RGB").split())
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if (spread > slack).any():
        raise _unclear(path, "black and white; its colours could mean anything")
    return green, 255


def _indices(image: PillowImage.Image) -> NDArray[Any] | None:
    """Return the indices of a palette image, (H, W); None unless they are 0 and 1, and not just black and white."""
    values = np.asarray(image)
    colours = image.convert("RGB").getcolors(2)
    if int(values.max()) > 1 or (colours and {colour for _, colour in colours} <= {(0, 0, 0), (255, 255, 255)}):
        return None
    return values


def _two_values(path: os.PathLike[str], values: NDArray[Any], top: int, slack: int) -> Bool:
    """Return the subject of a mask of two values: 0 and 1, or black and white with a soft edge between them."""
    if int(values.max()) <= 1 and not slack:
        bits: Bool = values == 1
        return bits
    black, white = values <= slack, values >= top - slack
    between = ~(black | white)
    if between.any() and (not white.any() or _is_no_edge(values, between, slack)):
        raise _unclear(
            path,
            f"0 and 1, or 0 and {top} with soft edges; it has {_shares(values, between)}. Levels of several "
            "annotators, as CUB's segmentations have, are read from the data set's own folder, without --mask-dir",
        )
    subject: Bool = values > top // 2
    return subject


def _is_no_edge(values: NDArray[Any], between: Bool, slack: int) -> bool:
    """Whether the pixels between black and white are labels or a photograph: areas, whatever their share."""
    if not slack and (values[between] == 1).all():  # the label 1 beside "void"
        return True
    side = _LOSSY_LABEL if slack else _LABEL
    spread = _squares(values, side, np.maximum) - _squares(values, side, np.minimum)
    if (_squares(between, side, np.logical_and) & (spread <= slack)).any():
        return True
    padded = np.pad(between, _WIDEST_EDGE // 2, constant_values=True)
    return bool(_squares(padded, _WIDEST_EDGE, np.logical_and).any())


def _squares(values: NDArray[Any], side: int, reduce: np.ufunc) -> NDArray[Any]:
    """Reduce each square of (H, W) values to one: (H - side + 1, W - side + 1)."""
    for _ in range(2):
        done = 1
        while done < side:
            step = min(done, side - done)
            values = reduce(values[step:], values[:-step])
            done += step
        values = values.T
    return values


def _shares(values: NDArray[Any], between: Bool) -> str:
    """Name the most frequent values between black and white, with their shares of the mask."""
    found, counts = np.unique(values[between], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = ", ".join(f"{found[n]} ({counts[n] / values.size:.2%})" for n in order[:_NAMED])
    more = len(found) - _NAMED
    return f"{named} and {more} more values between" if more > 0 else f"{named} between"


def _unclear(path: os.PathLike[str], expected: str) -> MaskUnusableError:
    return MaskUnusableError("mask unclear", f"the mask {path} is not understood: expected {expected}")


def _from_annotations(source: MaskSource, size: Size) -> Bool:
    """Unite the masks of an image's COCO annotations."""
    try:
        content = json.loads(source.content)
    except (RecursionError, MemoryError) as error:
        raise MaskUnusableError(
            "mask broken", f"the annotations in {source.path} are not understood: {error}"
        ) from error
    stated = [content.get(side) for side in ("height", "width")]
    if None not in stated:
        _check_size(source.path, Size(*stated), size)
    bits = np.zeros(size, np.bool_)
    for annotation in content["annotations"]:
        try:
            bits |= _segmentation(source.path, annotation.get("segmentation"), size)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError) as error:
            where = f"annotation {short(annotation.get('id'))} in {source.path}"
            raise MaskUnusableError("mask broken", f"the segmentation of {where} is not understood: {error}") from error
    return bits


def _segmentation(path: os.PathLike[str], value: Any, size: Size) -> Bool:
    """Return one COCO segmentation: {"size": [height, width], "counts": string or list}, or a list of polygons."""
    if isinstance(value, dict):
        height, width = (int(side) for side in value["size"])
        _check_size(path, Size(height, width), size)
        return _runs(value["counts"], size)
    if not isinstance(value, list) or not value:
        raise ValueError("expected polygons or run lengths; a box alone is no mask")
    bits = np.zeros(size, np.bool_)
    for polygon in value if isinstance(value[0], list) else [value]:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError(f"a polygon is a list of x y, at least three points, not {short(polygon)}")
        if not np.isfinite(points).all() or np.abs(points).max() > _FAR * max(size):
            raise ValueError("a polygon has points far outside the image")
        corners = points.reshape(-1, 2)
        if np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum() > _LONGEST_OUTLINE:
            raise ValueError(f"the outline of a polygon is longer than {_LONGEST_OUTLINE:,} pixels")
        bits |= polygon_mask(corners, size)
    return bits


def _runs(counts: Any, size: Size) -> Bool:
    if isinstance(counts, str):
        return ops.rle_decode(counts.encode("ascii"), *size)
    pixels = size[0] * size[1]
    whole = isinstance(counts, list) and all(type(count) is int and 0 <= count <= pixels for count in counts)
    if not whole or sum(counts) != pixels:
        raise ValueError(f"run lengths must be whole numbers whose sum is {pixels}")
    lengths = np.array(counts, np.int64)
    values = np.arange(len(lengths)) % 2 == 1
    bits: Bool = np.ascontiguousarray(np.repeat(values, lengths).reshape(size[::-1]).T)
    return bits
