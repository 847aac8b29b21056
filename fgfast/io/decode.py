"""Decoding image files on the CPU.

Every decoder obeys one rule: pixels are those of Pillow's `Image.convert("RGB")` (which the usual loaders feed to a
classifier), except that 16-bit images keep their upper 8 bits instead of being clipped. An animation is decoded to its
first frame. Clean JPEGs go through libjpeg-turbo directly; Pillow decodes those that it warns about.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fgfast.errors import ImageBrokenError, ImageMissingError, ImageRefusedError
from fgfast.image_formats import IMAGE_FORMATS, format_of, pillow_formats, why_unread
from fgfast.records import Image, UInt8

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# Twice Pillow's MAX_IMAGE_PIXELS, above which Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970

# Formats that every Pillow reads and that a content shows; see fgfast.image_formats for the others.
FORMATS = tuple(f.name for f in IMAGE_FORMATS if not f.package and not f.unmarked)

_EXIF_ORIENTATION = 0x0112


def read_bytes(path: Path) -> bytes:
    """Read an image file.

    Raises:
        ImageMissingError: there is no such file.
        ImageBrokenError: the file cannot be read, or is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageMissingError("missing", f"there is no file {path}") from None
    except OSError as error:
        raise ImageBrokenError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageBrokenError("empty file", f"{path} has no bytes; download it again")
    return data


def decode(data: bytes, name: str, turn_exif: bool) -> Image:
    """Decode an image.

    Args:
        data: the file's content.
        name: the image's name in errors.
        turn_exif: apply the EXIF orientation (plain folders), or keep pixels as stored (annotated data sets).

    Returns:
        The image as (H, W, 3) uint8 RGB.

    Raises:
        ImageBrokenError: the file is not an image, truncated or damaged.
        ImageRefusedError: the image declares more than `MAX_PIXELS`.
    """
    if data[:3] == b"\xff\xd8\xff" and not (turn_exif and may_be_turned(data)):
        pixels = _decode_clean_jpeg(data, name)
        if pixels is not None:
            return Image(pixels)
    return Image(_decode_with_pillow(data, name, turn_exif))


def may_be_turned(data: bytes) -> bool:
    """Whether a JPEG may have an orientation: in EXIF or XMP, which are in its first segments."""
    head = data[:65536]
    return b"Exif\x00" in head or b"tiff:Orientation" in head


def _decode_clean_jpeg(data: bytes, name: str) -> UInt8 | None:
    """Decode a JPEG to (H, W, 3) uint8; None where libjpeg-turbo warns about it."""
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _refuse_if_too_large(width, height, name)
    if colour in ("CMYK", "YCCK"):
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return None


def _decode_with_pillow(data: bytes, name: str, turn_exif: bool) -> UInt8:
    import PIL.Image as pillow
    from PIL import UnidentifiedImageError

    try:
        image = pillow.open(io.BytesIO(data), formats=_formats(name))
    except pillow.DecompressionBombError:
        raise _too_large(name, "too many") from None
    except UnidentifiedImageError:
        if why := why_unread(name, data[:16]):
            raise ImageBrokenError("unsupported", f"{name} cannot be read: {why}") from None
        raise ImageBrokenError(
            "not an image", f"{name} is not an image of a known format ({', '.join(FORMATS)})"
        ) from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged headers
        raise ImageBrokenError("broken", f"{name} has a damaged header: {error}") from error
    _refuse_if_too_large(image.width, image.height, name)
    try:
        image.load()
        return _to_rgb(_turned(image) if turn_exif else image)
    except MemoryError:
        raise _too_large(name, f"{image.width}x{image.height}") from None
    except ImageBrokenError as error:
        raise ImageBrokenError(error.reason, f"{name} cannot be used: {error}") from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged content, too
        reason = "truncated" if "truncated" in str(error).lower() else "broken"
        raise ImageBrokenError(reason, f"{name} is {reason}: {error}; download it again or repair it") from error


def _formats(name: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats to try; formats without a signature only where the suffix names them."""
    named = format_of(name)
    return tuple(f.name for f in pillow_formats() if not f.unmarked or f is named)


def _turned(image: PillowImage.Image) -> PillowImage.Image:
    """Apply the EXIF orientation, as a viewer does; damaged EXIF is ignored."""
    from PIL import ImageOps

    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises many kinds; the pixels are fine
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _to_rgb(image: PillowImage.Image) -> UInt8:
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageBrokenError("unsupported", "its pixels are floating-point numbers; convert it to 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _refuse_if_too_large(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width}x{height}")


def _too_large(name: str, size: str) -> ImageRefusedError:
    return ImageRefusedError(
        "too large", f"{name} declares {size} pixels; at most {MAX_PIXELS:,} are decoded; scale it down first"
    )
