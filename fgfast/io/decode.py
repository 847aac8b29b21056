"""Image files to pixels, on the CPU.

One rule for every decoder: pixels are what Pillow's `Image.convert("RGB")` gives (that is what the usual loaders show
a classifier), except that 16-bit images keep their upper 8 bits instead of being clipped. Of animations the first
frame counts. Clean JPEGs go through libjpeg-turbo directly; whatever it warns about is left to Pillow.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fgfast.errors import ImageBrokenError, ImageMissingError, ImageRefusedError
from fgfast.records import Image, UInt8

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# Twice Pillow's MAX_IMAGE_PIXELS, where Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970

# What may be opened. Formats that run other programs (EPS) or describe drawings (WMF) are left out on purpose.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")

_EXIF_ORIENTATION = 0x0112


def read_bytes(path: Path) -> bytes:
    """The file's content.

    Raises:
        ImageMissingError: there is no such file.
        ImageBrokenError: it cannot be read, or is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageMissingError("missing", f"there is no file {path}") from None
    except OSError as error:
        raise ImageBrokenError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageBrokenError("empty file", f"{path} has no bytes; fetch it again")
    return data


def decode(data: bytes, name: str, turn_exif: bool) -> Image:
    """Decode an image.

    Args:
        data: the file's content.
        name: what to call it in errors.
        turn_exif: turn it as its EXIF orientation says (plain folders) or leave it as stored (annotated data sets).

    Returns:
        The image as (H, W, 3) uint8 RGB.

    Raises:
        ImageBrokenError: not an image, truncated or damaged.
        ImageRefusedError: it declares more than `MAX_PIXELS`.
    """
    if data[:3] == b"\xff\xd8\xff" and not (turn_exif and may_be_turned(data)):
        pixels = _decode_clean_jpeg(data, name)
        if pixels is not None:
            return Image(pixels)
    return Image(_decode_with_pillow(data, name, turn_exif))


def may_be_turned(data: bytes) -> bool:
    """Whether a JPEG may need turning: it has EXIF, or XMP with an orientation. Both sit in the first segments."""
    head = data[:65536]
    return b"Exif\x00" in head or b"tiff:Orientation" in head


def _decode_clean_jpeg(data: bytes, name: str) -> UInt8 | None:
    """Pixels of a JPEG that libjpeg-turbo reads without a warning, else None."""
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
        image = pillow.open(io.BytesIO(data), formats=_formats())
    except pillow.DecompressionBombError:
        raise _too_large(name, "too many") from None
    except UnidentifiedImageError:
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
    except Exception as error:  # likewise, on damaged content
        reason = "truncated" if "truncated" in str(error).lower() else "broken"
        raise ImageBrokenError(reason, f"{name} is {reason}: {error}; fetch it again or mend it") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read (AVIF came late, and is left out of some builds)."""
    import PIL.Image as pillow

    pillow.init()
    return tuple(name for name in FORMATS if name in pillow.OPEN)


def _turned(image: PillowImage.Image) -> PillowImage.Image:
    """The image as a viewer shows it. Damaged EXIF means no turning."""
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
        image = image.convert("RGBA")  # same colours, without a warning for each image
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _refuse_if_too_large(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width}x{height}")


def _too_large(name: str, size: str) -> ImageRefusedError:
    return ImageRefusedError(
        "too large", f"{name} declares {size} pixels; at most {MAX_PIXELS:,} are decoded; scale it down first"
    )
