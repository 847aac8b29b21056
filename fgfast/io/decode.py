"""Decoding image files on the CPU.

Every decoder obeys the rule that `fgfast.io.pixels` states. An animation is decoded to its first frame. Clean JPEGs go
through libjpeg-turbo directly; Pillow decodes those that it warns about.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast.data_paths import AnyPath, DataPath, LinkOutError
from fgfast.errors import LINK_OUT, ImageBrokenError, ImageMissingError, ImageRefusedError, SampleError, UsageError
from fgfast.files import FileTooLargeError, NotAFileError, read_regular
from fgfast.image_formats import IMAGE_FORMATS, TooManyPixelsError, format_of, open_image, pillow_formats, why_unread
from fgfast.io.jpeg_header import may_be_turned
from fgfast.io.pixels import MAX_PIXELS, exif_orientation, from_array, from_pillow, too_large
from fgfast.io.warned import collected
from fgfast.records import Image, UInt8

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Largest file that is read, 1 GiB: about that of the most pixels in three channels of 16 bits, uncompressed.
MAX_BYTES = 1 << 30

# Most bytes of one text, or colour profile, of a PNG, and of all of them, unpacked: 64 and 256 MiB. Pillow's own
# bounds, 1 and 64 MiB, make it refuse images of scanners and editors.
MAX_TEXT_CHUNK, MAX_TEXT_MEMORY = 1 << 26, 1 << 28

# Formats that every Pillow reads and that a content shows; see fgfast.image_formats for the others.
FORMATS = tuple(f.name for f in IMAGE_FORMATS if not f.package and not f.unmarked)

# What Pillow's readers say of files that are whole, but of a kind that they do not read.
_KIND_NOT_READ = re.compile(r"unknown (pixel|raw) mode|cannot handle|unsupported|not supported", re.IGNORECASE)


def read_bytes(path: AnyPath) -> bytes:
    """Read an image file.

    Raises:
        ImageMissingError: there is no such file.
        ImageBrokenError: it cannot be read, is empty, or is no regular file (a folder, a named pipe, a device).
        ImageRefusedError: it has more than `MAX_BYTES`, or a link on the way to it leads out of its data set.
    """
    try:
        data = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise ImageMissingError("missing", f"there is no file {path}") from None
    except NotAFileError as error:
        raise ImageBrokenError("not a file", f"{path} cannot be read: {error.strerror}") from None
    except LinkOutError as error:
        raise ImageRefusedError(LINK_OUT, f"{path} is not read: {error.strerror}") from None
    except (FileTooLargeError, MemoryError):
        raise ImageRefusedError(
            "too large", f"{path} is too large a file; at most {MAX_BYTES:,} bytes are read; scale the image down first"
        ) from None
    except OSError as error:
        raise ImageBrokenError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageBrokenError("empty file", f"{path} has no bytes; download it again")
    return data


def as_image(image: Any, turn_exif: bool) -> Image:
    """Return an image that is given in Python, in whatever way; the same image has the same pixels in each.

    Args:
        image: a path, the bytes of a file, a Pillow image, or an array (see `fgfast.io.pixels.from_array`).
        turn_exif: apply the EXIF orientation that a file, or a Pillow image, has.

    Raises:
        SampleError: see `read_bytes`, `decode` and `fgfast.io.pixels.from_pillow`.
        UsageError: it is none of these, or an array of another shape or dtype.
    """
    from PIL.Image import Image as Pillow

    if isinstance(image, (str, os.PathLike)):
        path = image if isinstance(image, DataPath) else Path(image)
        return decode(read_bytes(path), str(path), turn_exif)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode(bytes(image), "the given bytes", turn_exif)
    if isinstance(image, Pillow):
        return Image(from_pillow(image, "the given image", turn_exif))
    if isinstance(image, np.ndarray):
        return Image(from_array(image))
    raise UsageError(f"image must be a path, bytes, a Pillow image or a NumPy array, not {type(image).__name__}")


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
        ImageRefusedError: the image declares more than `fgfast.io.pixels.MAX_PIXELS`.
    """
    if data[:3] == b"\xff\xd8\xff" and not (turn_exif and may_be_turned(data)):
        pixels = _decode_clean_jpeg(data, name)
        if pixels is not None:
            return Image(pixels)
    with collected() as warnings, _long_texts():
        try:
            return Image(_decode_with_pillow(data, name, turn_exif), tuple(warnings))
        except SampleError as error:
            error.warnings = tuple(warnings)
            raise


def is_turned(data: bytes, name: str) -> bool:
    """Whether an image differs with its EXIF orientation applied: by a turn, or mirrored.

    Args:
        data: the file's content.
        name: the image's name in errors.

    Raises:
        SampleError: see `decode`.
    """
    if data[:3] == b"\xff\xd8\xff" and not may_be_turned(data):
        return False
    with collected(), _long_texts():
        image = _opened(data, name)
        from_pillow(image, name, turn_exif=False)  # EXIF may lie behind the pixels
        return exif_orientation(image) != 1


def _decode_clean_jpeg(data: bytes, name: str) -> UInt8 | None:
    """Decode a JPEG to (H, W, 3) uint8; None where libjpeg-turbo warns about it."""
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if width * height > MAX_PIXELS:
        raise too_large(name, f"{width}x{height}")
    if colour in ("CMYK", "YCCK"):
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return None


class _LongTexts:
    """Raises Pillow's bounds of texts in PNGs while any thread decodes: they are globals, and may be a caller's."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = Lock(), 0, (0, 0)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        from PIL import PngImagePlugin as png

        with self._lock:
            if not self._inside:
                self._before = png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY
                png.MAX_TEXT_CHUNK = max(png.MAX_TEXT_CHUNK, MAX_TEXT_CHUNK)
                png.MAX_TEXT_MEMORY = max(png.MAX_TEXT_MEMORY, MAX_TEXT_MEMORY)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    png.MAX_TEXT_CHUNK, png.MAX_TEXT_MEMORY = self._before


_long_texts = _LongTexts()


def _decode_with_pillow(data: bytes, name: str, turn_exif: bool) -> UInt8:
    return from_pillow(_opened(data, name), name, turn_exif)


def _opened(data: bytes, name: str) -> PillowImage:
    """Return an image as Pillow opens it, not decoded yet."""
    from PIL import UnidentifiedImageError

    try:
        return open_image(io.BytesIO(data), _formats(name))
    except TooManyPixelsError as error:
        raise too_large(name, error.size) from None
    except UnidentifiedImageError:
        raise _unidentified(data, name) from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged headers
        raise ImageBrokenError("broken", f"{name} has a damaged header: {error}") from error


def _unidentified(data: bytes, name: str) -> ImageBrokenError:
    """Return the error of a file that Pillow does not open: of a kind that is not read, or no image."""
    import PIL.Image as pillow

    if why := why_unread(name, data[:16]):
        return ImageBrokenError("unsupported", f"{name} cannot be read: {why}")
    for kind in _formats(name):
        factory, accept = pillow.OPEN[kind]
        try:
            if accept is not None and accept(data[:16]) is True:
                factory(io.BytesIO(data), "")
        except Exception as error:  # what made Pillow pass over it
            if _KIND_NOT_READ.search(str(error)):
                return ImageBrokenError(
                    "unsupported", f"{name} is a {kind} of a kind that Pillow does not read ({error}); convert it"
                )
    return ImageBrokenError("not an image", f"{name} is not an image of a known format ({', '.join(FORMATS)})")


def _formats(name: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats to try; formats without a signature only where the suffix names them."""
    named = format_of(name)
    return tuple(f.name for f in pillow_formats() if not f.unmarked or f is named)
