"""Images in memory to RGB with 8 bits: one rule for files that Pillow decodes, Pillow's images, and arrays.

The pixels are those of Pillow's `Image.convert("RGB")`, which the usual loaders feed to a classifier, except that
16-bit images keep their upper 8 bits instead of being clipped. Where the range of the values is not known (signed,
32-bit and floating-point numbers), there is no right grey level, and the image is refused as unsupported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast.errors import ImageBrokenError, ImageRefusedError, UsageError
from fgfast.image_formats import MAX_PIXELS as MAX_PIXELS
from fgfast.records import UInt8

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# TIFF 6.0: tags, and values of SampleFormat (unsigned, undefined) and PhotometricInterpretation.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339
_UNSIGNED, _WHITE_IS_ZERO = (1, 4), 0
# Formats of which Pillow shows 16 bits as mode "I": PPM, and PNG before Pillow 11.3.
_SIXTEEN_AS_I = ("PPM", "PNG")
# Modes that are converted in two steps: alpha is undone where it was multiplied in, and dropped afterwards; a palette
# with transparency makes Pillow warn otherwise.
_FIRST = {"La": "LA", "RGBa": "RGBA"}


def from_pillow(image: PillowImage, name: str, turn_exif: bool) -> UInt8:
    """Return the pixels of a Pillow image, (H, W, 3) uint8 RGB; of an animation, those of its current frame.

    Args:
        image: in any mode; it is loaded, and otherwise not changed.
        name: the image's name in errors.
        turn_exif: apply the EXIF orientation, as a viewer does; damaged EXIF is ignored.

    Raises:
        ImageBrokenError: the content is truncated or damaged, or Pillow's mode has no defined grey levels.
        ImageRefusedError: the image has more than `MAX_PIXELS`.
    """
    refuse_if_too_large(image.width, image.height, name)
    if not image.width * image.height:
        raise ImageBrokenError("broken", f"{name} has no pixels")
    try:
        image.load()
        pixels = _to_rgb(image)
        return turned(pixels, exif_orientation(image)) if turn_exif else pixels
    except MemoryError:
        raise too_large(name, f"{image.width}x{image.height}") from None
    except ImageBrokenError as error:
        raise ImageBrokenError(error.reason, f"{name} cannot be used: {error}") from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged content
        reason = "truncated" if "truncated" in str(error).lower() else "broken"
        raise ImageBrokenError(reason, f"{name} is {reason}: {error}; download it again or repair it") from error


def from_array(array: np.ndarray[Any, Any]) -> UInt8:
    """Return the pixels of an array, (H, W, 3) uint8 RGB, by the rule for images.

    Args:
        array: (H, W, 3) RGB or (H, W) grey; uint8, uint16, whose upper 8 bits are kept, or bool, whose True is white.

    Raises:
        UsageError: it has another shape or dtype.
        ImageRefusedError: it has more than `MAX_PIXELS`.
    """
    shape, dtype = array.shape, array.dtype
    kinds = {("u", 1): lambda x: x, ("u", 2): lambda x: x >> 8, ("b", 1): lambda x: x * np.uint8(255)}
    to_eight = kinds.get((dtype.kind, dtype.itemsize))
    if to_eight is None or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or not array.size:
        raise UsageError(
            f"an array must be (H, W, 3) RGB or (H, W) grey, with at least one pixel, of uint8, uint16 or bool, not "
            f"{shape} {dtype}; drop alpha, and scale other numbers to 0..255"
        )
    refuse_if_too_large(shape[1], shape[0], "the array")
    eight = to_eight(array).astype(np.uint8)
    return np.ascontiguousarray(eight if eight.ndim == 3 else np.repeat(eight[:, :, None], 3, axis=2))


def turned(pixels: UInt8, orientation: int) -> UInt8:
    """Apply an EXIF orientation, 1..8, to (H, W, 3) pixels: (H, W, 3), or (W, H, 3) for 5 to 8.

    The result is that of Pillow's ImageOps.exif_transpose.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    # The axes that are reversed after the transposition.
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def refuse_if_too_large(width: int, height: int, name: str) -> None:
    """Raise ImageRefusedError if an image has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise too_large(name, f"{width}x{height}")


def too_large(name: str, size: str) -> ImageRefusedError:
    """Return the error of an image of this size, in words."""
    return ImageRefusedError(
        "too large", f"{name} declares {size} pixels; at most {MAX_PIXELS:,} are decoded; scale it down first"
    )


def exif_orientation(image: PillowImage) -> int:
    """Return the EXIF orientation of a loaded image, 1..8. A TIFF has 1: Pillow turns it while it loads."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises many kinds; the pixels are fine
        return 1
    return value if value in range(2, 9) else 1


def _to_rgb(image: PillowImage) -> UInt8:
    mode, tags = image.mode, getattr(image, "tag_v2", {})
    if mode == "F":
        raise _unsupported("floating-point numbers")
    if any(kind not in _UNSIGNED for kind in _values(tags.get(_SAMPLE_FORMAT))):
        raise _unsupported("signed numbers")
    if mode.startswith("I;16") or (mode == "I" and image.format in _SIXTEEN_AS_I):
        bits = max((n for n in _values(tags.get(_BITS_PER_SAMPLE)) if 8 < n < 16), default=16)
        grey = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow heeds it in images of 8 bits and less
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode == "I":
        raise _unsupported("32-bit numbers of unknown range")
    first = "RGBA" if mode == "P" and "transparency" in image.info else _FIRST.get(mode)
    try:
        rgb = (image.convert(first) if first else image).convert("RGB")
    except (ValueError, KeyError, ImportError) as error:
        raise ImageBrokenError(
            "unsupported", f"Pillow cannot convert its mode {mode} to RGB ({error}); convert it to RGB"
        ) from error
    return np.ascontiguousarray(np.asarray(rgb))


def _unsupported(what: str) -> ImageBrokenError:
    return ImageBrokenError("unsupported", f"its pixels are {what}; convert it to 8 or 16 bits")


def _values(tag: Any) -> Iterable[int]:
    """Return the whole numbers of a TIFF tag, which may be absent, single, or damaged."""
    return [n for n in (tag if isinstance(tag, tuple) else (tag,)) if isinstance(n, int)]
