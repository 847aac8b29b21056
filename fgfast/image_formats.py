"""The formats of image files: their suffixes, Pillow's names for them, the plugins that some of them need; opening."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A format that is read.

    Attributes:
        name: Pillow's name.
        suffixes: suffixes of its files, in lower case.
        package: the package on PyPI whose plugin reads it; empty where Pillow itself does.
        module: the plugin's module.
        register: the function of that module that registers the plugin; empty where the import does.
        unmarked: whether its files have no signature, so that only the suffix tells them.
    """

    name: str
    suffixes: tuple[str, ...]
    package: str = ""
    module: str = ""
    register: str = ""
    unmarked: bool = False


# Formats that run other programs (EPS) or describe drawings (WMF) are left out on purpose.
IMAGE_FORMATS = (
    ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    ImageFormat("PNG", (".png", ".apng")),
    ImageFormat("WEBP", (".webp",)),
    ImageFormat("GIF", (".gif",)),
    ImageFormat("BMP", (".bmp",)),
    ImageFormat("TIFF", (".tif", ".tiff")),
    ImageFormat("AVIF", (".avif", ".avifs")),
    ImageFormat("JPEG2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
    ImageFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm")),
    ImageFormat("QOI", (".qoi",)),
    ImageFormat("ICO", (".ico",)),
    ImageFormat("TGA", (".tga",), unmarked=True),
    ImageFormat("HEIF", (".heic", ".heif", ".hif"), "pillow-heif", "pillow_heif", "register_heif_opener"),
    ImageFormat("JXL", (".jxl",), "pillow-jxl-plugin", "pillow_jxl"),
)

# Twice Pillow's MAX_IMAGE_PIXELS, above which Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970

# Brands of ISO base media files that hold HEIC images; ISO/IEC 23008-12, annex B.
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# ISO/IEC 18181-2: a bare codestream, or the container's first box.
_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name, in lower case, with its dot; empty where it has none."""
    return written_suffix(name).lower()


def written_suffix(name: str) -> str:
    """Return the suffix of a file's name as it is written; a path's is that of its last name.

    Called for every file of a data set; PurePosixPath takes five times as long.
    """
    last = name.rpartition("/")[2]
    if last in ("", "."):  # the last name is further left
        return PurePosixPath(name).suffix
    dot = last.rfind(".")
    return last[dot:] if 0 < dot < len(last) - 1 else ""


def suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that this machine reads."""
    return frozenset(
        suffix for f in IMAGE_FORMATS if not f.package or importlib.util.find_spec(f.module) for suffix in f.suffixes
    )


def format_of(name: str) -> ImageFormat | None:
    """Return the format that a file's suffix names, None where it names none."""
    suffix = suffix_of(name)
    return next((f for f in IMAGE_FORMATS if suffix in f.suffixes), None)


@cache
def pillow_formats() -> tuple[ImageFormat, ...]:
    """Register the plugins that are installed; return the formats that Pillow then reads."""
    import PIL.Image as pillow

    pillow.init()
    for plugin in IMAGE_FORMATS:
        if not plugin.package or plugin.name in pillow.OPEN:
            continue
        try:
            module = importlib.import_module(plugin.module)
        except ImportError:
            continue
        if plugin.register:
            getattr(module, plugin.register)()
    return tuple(f for f in IMAGE_FORMATS if f.name in pillow.OPEN)


class TooManyPixelsError(OSError):
    """An image declares more than `MAX_PIXELS`.

    Args:
        size: in words: "20000x10000".
    """

    def __init__(self, size: str) -> None:
        super().__init__(f"it declares {size} pixels; at most {MAX_PIXELS:,} are decoded")
        self.size = size


def open_image(file: BinaryIO, formats: Collection[str]) -> PillowImage:
    """Open an image of one of these formats, whatever its name and content claim; nothing is decoded yet.

    No other function of fgfast calls `PIL.Image.open`, which would try formats that start other programs.

    Args:
        file: an open file, or its content in memory.
        formats: Pillow's names of the formats to try, of those of `IMAGE_FORMATS`.

    Raises:
        PIL.UnidentifiedImageError: it is of none of these formats.
        TooManyPixelsError: it declares more than `MAX_PIXELS`.
        Exception: its header is damaged; Pillow's readers raise many kinds.
    """
    import PIL.Image as pillow
    from PIL import UnidentifiedImageError

    readable = {f.name for f in pillow_formats()}
    if not formats or not {f.name for f in IMAGE_FORMATS}.issuperset(formats):
        raise ValueError(f"formats must be some of {', '.join(sorted(readable))}, not {', '.join(formats) or 'none'}")
    try:
        image = pillow.open(file, formats=[name for name in formats if name in readable])
    except pillow.DecompressionBombError:
        raise TooManyPixelsError("too many") from None
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"it is no image of the format {' or '.join(formats)}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise TooManyPixelsError(f"{image.width}x{image.height}")
    return image


def why_unread(name: str, start: bytes = b"") -> str:
    """Return why Pillow does not know a file, and what to do; empty where its name is that of an image it would read.

    Args:
        name: the file's name.
        start: the first bytes of its content, where these are known.
    """
    suffix, known = suffix_of(name), format_of(name)
    found = next((f for f in IMAGE_FORMATS if f.name == _content(start)), known)
    if found is not None and found not in pillow_formats():
        install = f"pip install {found.package}" if found.package else "install a newer Pillow"
        return f"{found.name} images are read once a plugin of Pillow is there: {install}"
    if suffix and known is None:
        return f"files that end in {suffix} are not read; convert it to PNG or JPEG"
    return ""


def _content(start: bytes) -> str:
    """Return the name of the format whose signature a content has, of those that need a plugin."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return "JXL" if start.startswith(_JXL_STARTS) else ""
