"""Reading annotation files, with errors that name file and line, and writing them, never leaving half a file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Literal

import numpy as np

from fgfast.data_paths import AnyPath
from fgfast.datasets.layout import ImagePlacement
from fgfast.errors import DatasetError
from fgfast.files import FileTooLargeError, open_regular, read_regular
from fgfast.records import Float32, Sample, no_boxes
from fgfast.writing import Target, replacing, write_file

BOM = b"\xef\xbb\xbf"

Kind = Literal["list", "table", "coco", "voc", "mat", "mask", "copied"]
# Most bytes of a file of each kind. What a stranger wrote must fit into memory, several times over once it is read.
MOST_BYTES: dict[Kind, int] = {
    "list": 256 << 20,  # the longest official one, CUB's image_attribute_labels.txt, has 95 MB
    "table": 1 << 30,  # a few kB per image; Parquet may hold small images, too
    "coco": 2 << 30,  # LVIS, the largest with masks, has 1.1 GB
    "voc": 4 << 20,  # one image; a thousand objects need 0.3 MB, and XML takes 25 times its size
    "mat": 64 << 20,  # the largest official one, cars_annos.mat, has 1.3 MB
    "mask": 256 << 20,  # as many pixels as an image may have, uncompressed in 8 bits, and more
    "copied": 2 << 30,  # copied in constant memory; a file with holes may claim to fill any disk
}
# Columns of a table, and letters of a column's name: what they mean is looked for in each, and in each part of it.
MOST_COLUMNS, LONGEST_NAME = 10_000, 1000
# Far more than any image has pixels, and small enough for float32.
_LARGEST = 1e9
# A line from its first letter that is no space on.
_LINE = re.compile(r"\S[^\n]*")
_DRIVE = re.compile(r"[A-Za-z]:")

# x0 y0 x1 y1, continuous pixels, as plain floats: files are written from them without float32 noise.
Box = tuple[float, float, float, float]


def read_bytes(path: AnyPath, kind: Kind = "list") -> bytes:
    """Read an annotation file; raise DatasetError where it cannot be read, or is larger than those of its kind."""
    try:
        return read_regular(path, MOST_BYTES[kind])
    except FileNotFoundError:
        raise DatasetError(path, "this file is missing; the data set is not complete without it") from None
    except FileTooLargeError:
        raise _too_large(path, kind) from None
    except MemoryError:
        raise DatasetError(path, "it needs more memory than there is") from None
    except OSError as error:
        raise DatasetError(path, f"cannot be read: {error.strerror or error}") from error


def _too_large(path: AnyPath, kind: Kind) -> DatasetError:
    return DatasetError(path, f"it has more than {MOST_BYTES[kind]:,} bytes, the most that are read of a file like it")


def _read_text(path: AnyPath) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"not UTF-8 text: {error.reason} at byte {error.start}") from None


def read_lines(path: AnyPath) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of each line that is not blank, without BOM and Windows line endings."""
    return list(lines_of(_read_text(path)))


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each line that is not blank; a list of blank ones may not fit into memory."""
    number, place = 1, 0
    for match in _LINE.finditer(text):
        number += text.count("\n", place, match.start())
        place = match.start()
        yield number, match[0].strip()


def fields_of(path: AnyPath, number: int, text: str, names: Sequence[str]) -> list[str]:
    """Split a line at whitespace into exactly len(names) fields."""
    fields = text.split()
    if len(fields) != len(names):
        raise DatasetError(path, f"expected {' '.join(f'<{name}>' for name in names)}, got {short(text)}", number)
    return fields


def short(value: object, most: int = 80) -> str:
    """Return a value for a message: a stranger's may be of any length, and a number of any number of digits."""
    try:
        text = repr(value[:most] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # more digits than Python prints, or lists in lists in lists
        return f"a {type(value).__name__} that is too long to print"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_names(path: AnyPath, names: Collection[str], number: int | None = None) -> None:
    """Raise DatasetError where a row has too many columns, or one has too long a name, for what is asked of each."""
    if len(names) > MOST_COLUMNS:
        raise DatasetError(path, f"it has {len(names):,} columns; at most {MOST_COLUMNS:,} are read", number)
    for name in names:
        if len(name) > LONGEST_NAME:
            raise DatasetError(path, f"a column's name has {len(name):,} letters: {short(name, 40)}", number)


def numbers_of(path: AnyPath, number: int | None, texts: Iterable[object]) -> list[float]:
    """Parse finite numbers from an annotation."""
    values = []
    for text in texts:
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            comma = isinstance(text, str) and re.fullmatch(r"\s*[-+]?\d+,\d+\s*", text)
            way_out = "; write decimals with a point" if comma else ""
            raise DatasetError(path, f"expected a number, got {short(text)}{way_out}", number) from None
        except OverflowError:
            value = float("inf")
        if not abs(value) <= _LARGEST:
            wanted = "a finite number" if not np.isfinite(value) else f"a number of pixels up to {_LARGEST:.0e}"
            raise DatasetError(path, f"expected {wanted}, got {short(text, 40)}", number)
        values.append(value)
    return values


def _encodable(name: str) -> bool:
    """Whether a name can be encoded as UTF-8, as disk and ledger require; lone surrogates cannot."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def safe_key(path: AnyPath, name: str, number: int | None = None, below: str = "") -> str:
    """Return the key of an image that an annotation file names; raise DatasetError where it leaves the data set.

    Backslashes, which Windows writes between folders, are read as slashes.

    Args:
        path: the annotation file, for the message.
        name: the image's path in that file, relative to `below`.
        number: the line number, for the message.
        below: POSIX folder inside the data set.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    leaves = pure.is_absolute() or ".." in pure.parts or "\0" in name or _DRIVE.match(name)
    unusable = any(len(part.encode("utf-8", "replace")) > 255 for part in pure.parts) or not _encodable(name)
    if leaves or unusable or not pure.parts:
        raise DatasetError(path, f"expected a path inside the data set, got {short(name)}", number)
    return str(PurePosixPath(below) / pure)


def unique_samples(path: AnyPath, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the samples as a tuple; raise DatasetError where two have the same key."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        if sample.key in seen:
            raise DatasetError(path, f"{sample.key!r} is listed twice; each image may be listed once")
        seen[sample.key] = sample
    for folder in {key.rpartition("/")[0] for key in seen}:
        if folder in seen:
            raise DatasetError(path, f"{folder!r} is listed as an image and as a folder of images")
    return tuple(seen.values())


def box_from_pixels(path: AnyPath, number: int | None, texts: Iterable[object]) -> Box:
    """Convert xmin ymin xmax ymax, 1-based pixels with both ends inclusive, to x0 y0 x1 y1."""
    xmin, ymin, xmax, ymax = numbers_of(path, number, texts)
    return xmin - 1, ymin - 1, xmax, ymax


def boxes_from(path: AnyPath, boxes: Iterable[Box], number: int | None = None) -> Float32:
    """Return boxes as (N, 4) float32 x0 y0 x1 y1 in pixels of the stored image.

    A box without area is dropped: a twin has such boxes for subjects outside the crop.
    """
    kept = []
    for box in boxes:
        if box[2] < box[0] or box[3] < box[1]:
            raise DatasetError(path, f"expected a box with x0 <= x1 and y0 <= y1, got {box}", number)
        if box[2] > box[0] and box[3] > box[1]:
            kept.append(box)
    return np.array(kept, np.float32).reshape(-1, 4) if kept else no_boxes()


def move_box(box: Box, placement: ImagePlacement) -> Box:
    """Return the box in pixels of the twin's image, clipped to what it shows of the stored one.

    A square crop may reach outside the stored image: nothing is annotated there. A box outside has no area.
    """
    (dx, dy), (left, top, right, bottom) = placement.offset, placement.shown
    x0, x1 = (min(max(x - dx, left), right) for x in (box[0], box[2]))
    y0, y1 = (min(max(y - dy, top), bottom) for y in (box[1], box[3]))
    return x0, y0, x1, y1


def move_point(point: Sequence[float], placement: ImagePlacement) -> tuple[float, float, bool]:
    """Return a point, x and y, in pixels of the twin's image, and whether that shows it."""
    (dx, dy), (left, top, right, bottom) = placement.offset, placement.shown
    x, y = point
    return x - dx, y - dy, left <= x - dx <= right and top <= y - dy <= bottom


def pixels_from_box(box: Box, placement: ImagePlacement) -> tuple[int, int, int, int]:
    """Return a box, moved into the twin's image, in the form that `box_from_pixels` takes.

    Such a box cannot be empty: a box outside becomes the nearest pixel of the stored image.
    """
    x0, y0, x1, y1 = move_box(box, placement)
    _, _, right, bottom = placement.shown
    xmin, ymin = max(min(int(x0) + 1, int(right)), 1), max(min(int(y0) + 1, int(bottom)), 1)
    return xmin, ymin, max(int(np.ceil(x1)), xmin), max(int(np.ceil(y1)), ymin)


def number_text(value: float) -> str:
    """Format a coordinate, rounded to a ten-thousandth of a pixel: 60.0, 12.25."""
    return str(round(float(value), 4))


def write_bytes(target: Target, content: bytes, sync: bool = True) -> Target:
    """Write a whole file."""
    write_file(target, content, sync)
    return target


def _open(source: AnyPath) -> IO[bytes]:
    try:
        file = open_regular(source)
    except OSError as error:
        raise DatasetError(source, f"cannot be read: {error.strerror or error}") from error
    if os.fstat(file.fileno()).st_size > MOST_BYTES["copied"]:
        file.close()
        raise _too_large(source, "copied")
    return file


def copy_file(source: AnyPath, target: Target, sync: bool = True) -> Target:
    """Copy a file byte for byte."""
    with _open(source) as original, replacing(target, sync) as file:
        shutil.copyfileobj(original, file, 1 << 20)
    return target


def rewrite_lines(source: AnyPath, target: Target, edit: Callable[[str, int], str | None]) -> Target:
    """Copy a text file line by line, in constant memory.

    Args:
        source: the data set's file.
        target: the twin's file.
        edit: takes a line's text and number; returns the new text, or None to drop the line. Lines with unchanged text
            keep their bytes, and so do blank lines, line endings and a BOM.
    """
    with _open(source) as lines, replacing(target) as file:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.startswith(BOM):
                file.write(BOM)
                line = line[len(BOM) :]
            body = line.rstrip(b"\r\n")
            text = body.decode("utf-8", "surrogateescape")
            new = edit(text, number) if text.strip() else text
            if new is not None:
                ending = line[len(body) :]
                file.write(line if new == text else new.encode("utf-8", "surrogateescape") + ending)
    return target


def keep_lines(ids: Collection[str]) -> Callable[[str, int], str | None]:
    """Return an edit for `rewrite_lines` that keeps the lines whose first field is one of `ids`."""
    return lambda text, number: text if text.split(None, 1)[0] in ids else None
