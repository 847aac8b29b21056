"""What a file is that was given in place of a data set's folder, and what to do with it."""

from __future__ import annotations

import bz2
import io
import lzma
import shlex
import tarfile
import zlib
from itertools import islice
from pathlib import Path, PurePosixPath

from fgfast.errors import UsageError
from fgfast.files import open_regular

_IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
# Members of a tar archive that are looked at.
_MEMBERS = 8
# Bytes of a file that are looked at, and of what it unpacks to: a small file may unpack to any size. Memory of LZMA.
_LOOKED_AT, _LZMA = 4 << 20, 256 << 20
_GUIDE = 'docs/setups.md says how, under "Images that are not in a folder"'


def refusal(path: Path) -> UsageError:
    """Return the error for a file that was given as a data set: what it is, and what to do."""
    return UsageError(f"{path} is {_what(path)}")


def held(folder: Path) -> str:
    """Return a sentence about the archives and tables in a folder without images; "" where it has none."""
    files = sorted(file for file in folder.rglob("*") if not file.is_symlink() and file.is_file() and _kind(file))
    if not files:
        return ""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"It holds {files[0].relative_to(folder)}{more}, which is {_what(files[0])}"


def _what(path: Path) -> str:
    """Return what a file is, and what to do with it, as the end of a sentence."""
    kind, file, folder = _kind(path), shlex.quote(str(path)), shlex.quote(path.name.partition(".")[0] or "images")
    if kind == "tar":
        return (
            f"a tar archive, not a folder. Unpack it and give the folder: mkdir {folder} && tar -xf {file} -C {folder}"
        )
    if kind == "zip":
        return f"a zip archive, not a folder. Unpack it and give the folder: unzip {file} -d {folder}"
    if kind:
        return f"{kind}, not a folder. Write its images into one folder per class first; {_GUIDE}"
    if path.suffix.lower() in _IMAGES:
        return f"an image, not a folder of images. For one image: fgfast cut {shlex.quote(str(path))}"
    return "a file, not a folder. Give the folder of the data set."


def _kind(path: Path) -> str:
    """Return "tar", "zip", another kind of data set in words, or "" for any other file."""
    try:
        with open_regular(path) as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return ""
    if head[:4] == b"PAR1":
        return "a Parquet file, as the Hugging Face hub has them"
    if head[:6] == b"ARROW1" or (path.suffix == ".arrow" and head[:4] == b"\xff\xff\xff\xff"):
        return "a file of a Hugging Face data set on disk"
    if head[:4] == b"PK\x03\x04":
        return "zip"
    names = [] if path.suffix.lower() in _IMAGES else _members(_unpacked(head))
    # A sample of a WebDataset is several files that differ in what follows the first dot: 0001.jpg, 0001.cls.
    keys = {name.with_name(name.name.partition(".")[0]) for name in names if name.name}
    return "" if not names else "a tar archive of a WebDataset" if len(keys) < len(names) else "tar"


def _unpacked(head: bytes) -> bytes:
    """Return the beginning of a compressed file's content, of `_LOOKED_AT` bytes at most, or of any other file's."""
    try:
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(head, _LOOKED_AT)
        if head.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(head, _LOOKED_AT)
        if head.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMADecompressor(memlimit=_LZMA).decompress(head, _LOOKED_AT)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, MemoryError):
        return b""
    return head


def _members(content: bytes) -> list[PurePosixPath]:
    """Return the names of the first files in a tar archive, as far as its beginning shows them; none in other files."""
    names: list[PurePosixPath] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            names += (PurePosixPath(member.name) for member in islice(archive, _MEMBERS) if member.isfile())
    except (OSError, tarfile.TarError, EOFError, ValueError, OverflowError):
        pass  # it is cut off here, or none
    return names
