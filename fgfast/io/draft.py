"""Small versions of image files: a JPEG is decoded at a fraction of its size, which costs a fraction of the time."""

from __future__ import annotations

import math

import numpy as np

from fgfast.errors import ImageBrokenError
from fgfast.io.decode import decode
from fgfast.io.jpeg_header import may_be_turned
from fgfast.io.pixels import MAX_PIXELS
from fgfast.records import Size, UInt8


def draft(data: bytes, name: str, turn_exif: bool, side: int) -> tuple[UInt8, Size]:
    """Decode an image to a size whose longer side is at most `side` pixels; small images keep theirs.

    Args:
        data: the file's content; it may come from anybody.
        name: the image's name in errors.
        turn_exif: see `fgfast.io.decode.decode`.
        side: in pixels.

    Returns:
        (h, w, 3) uint8 RGB, and the image's own size.

    Raises:
        ImageBrokenError, ImageRefusedError: see `fgfast.io.decode.decode`.
    """
    if data[:3] == b"\xff\xd8\xff" and not (turn_exif and may_be_turned(data)):
        found = _clean_jpeg(data, side)
        if found is not None:
            return shrunk(found[0], side), found[1]
    pixels = decode(data, name, turn_exif).pixels
    return shrunk(pixels, side), Size(*pixels.shape[:2])


def shrunk(pixels: UInt8, side: int) -> UInt8:
    """Return (H, W, C) uint8 pixels with a longer side of at most `side`: each pixel is the mean of those it covers."""
    import cv2

    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return pixels
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _clean_jpeg(data: bytes, side: int) -> tuple[UInt8, Size] | None:
    """Decode a JPEG to at least `side` pixels; None where libjpeg-turbo warns about it, or it is not plain RGB."""
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
        if width * height > MAX_PIXELS or colour in ("CMYK", "YCCK"):
            return None
        scale = min(1.0, side / max(height, width))
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=math.ceil(height * scale), min_width=math.ceil(width * scale)
        )
    except ValueError:
        return None
    return np.asarray(pixels), Size(height, width)


def cut_out(data: bytes, name: str) -> UInt8:
    """Decode an image that fgfast wrote, with its alpha: (H, W, 3) RGB or (H, W, 4) RGBA uint8.

    Raises:
        ImageBrokenError, ImageRefusedError: see `fgfast.io.decode.decode`.
    """
    import io

    from fgfast.image_formats import TooManyPixelsError, open_image
    from fgfast.io.decode import FORMATS
    from fgfast.io.pixels import too_large
    from fgfast.io.warned import collected

    with collected():
        try:
            image = open_image(io.BytesIO(data), FORMATS)
            if not image.has_transparency_data:
                return decode(data, name, turn_exif=False).pixels
            return np.asarray(image.convert("RGBA"), np.uint8)
        except TooManyPixelsError as error:
            raise too_large(name, error.size) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageBrokenError("broken", f"{name} cannot be decoded: {error}") from error
