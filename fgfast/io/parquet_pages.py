"""Parquet files from anybody: what reading them would take is known from their pages' headers before it is taken.

The footer may lie about sizes and encodings. A page's own header does not help it to: the decoder allocates what the
header says, and no more. Pages of dictionaries, and encodings in which few bytes become many values, are refused, so
that a row group takes about as much memory as its pages have bytes, uncompressed.
"""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple

MOST_FOOTER = 1 << 22
"""Bytes of a footer: that of a million rows in groups of 4,096 has less than one megabyte."""
MOST_GROUP = 1 << 28
"""Bytes of the pages of one row group, uncompressed; a writer of fgfast makes groups of an eighth of that."""
MOST_ROWS = 1 << 16
"""Rows of a group: values that are absent take memory, too, and hardly a byte of the file."""
MOST_LISTED = 64
"""Values per row of a column of lists, on average."""
# Bytes that a page's header may have; one without statistics has some thirty.
_MOST_HEADER = 1 << 13
# parquet.thrift: DATA_PAGE; PLAIN; RLE, which is for levels here.
_DATA_PAGE, _PLAIN, _RLE = 0, 0, 3
_MAGIC = b"PAR1"
_DEEPEST = 12
# parquet.thrift: the fields of a file's, a row group's, a chunk's and a column's metadata that a pack has. Others are
# of statistics, indexes, dictionaries, Bloom filters, encryption and other files.
_OF_FILE, _OF_GROUP, _OF_CHUNK = {1, 2, 3, 4, 5, 6, 7}, {1, 2, 3, 5, 6, 7}, {2, 3}
_OF_COLUMN = {1, 2, 3, 4, 5, 6, 7, 9, 13, 16}


class Group(NamedTuple):
    """A row group, as the footer has it.

    Attributes:
        rows: their number.
        columns: of each, where its pages begin, their bytes in the file, and whether it is one of lists.
    """

    rows: int
    columns: tuple[tuple[int, int, bool], ...]


def read_footer(file: BinaryIO, size: int) -> tuple[list[Group], int]:
    """Return the row groups, and the place where the footer begins.

    It is read here, before pyarrow reads it: of a damaged footer, some of pyarrow's methods end the process.

    Raises:
        ValueError: the file is no Parquet file, is cut off, or has a footer that no pack has.
    """
    file.seek(0)
    head = file.read(4)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    if size < 12 or head != _MAGIC or tail[4:] != _MAGIC:
        raise ValueError("it is no Parquet file, or is cut off")
    length = int.from_bytes(tail[:4], "little")
    if length > MOST_FOOTER or length > size - 12:
        raise ValueError(f"its footer would have {length:,} bytes")
    end = size - 8 - length
    file.seek(end)
    try:
        found, stop = _struct(file.read(length), 0, 0)
        groups = [_group(group) for group in found[4]]
        if stop != length or not set(found) <= _OF_FILE or sum(group.rows for group in groups) != found[3]:
            raise IndexError
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise ValueError("its footer is damaged, or was written by another program") from None
    return groups, end


def _group(group: dict[int, Any]) -> Group:
    if not set(group) <= _OF_GROUP:
        raise IndexError
    columns = []
    for column in group[1]:
        about = column[3]
        if not (set(column) <= _OF_CHUNK and set(about) <= _OF_COLUMN and about[5] >= 0):
            raise IndexError
        columns.append((int(about[9]), int(about[7]), len(about[3]) > 1))
    return Group(int(group[3]), tuple(columns))


def check_group(file: BinaryIO, group: Group, columns: int, end: int) -> None:
    """Check the pages of a row group.

    Args:
        file: the file.
        group: the row group.
        columns: of the file.
        end: where the footer begins.

    Raises:
        ValueError: a page is damaged, or reading the group would take too much memory.
    """
    total = 0
    if len(group.columns) != columns or not 0 < group.rows <= MOST_ROWS:
        raise ValueError(f"a group has {len(group.columns)} columns and {group.rows:,} rows")
    for start, length, lists in group.columns:
        if not (start >= 4 and 0 < length <= end - start):
            raise ValueError("a column lies outside it")
        total += _check_column(file, start, start + length, group.rows * (MOST_LISTED if lists else 1), total)


def _check_column(file: BinaryIO, place: int, end: int, most_values: int, before: int) -> int:
    """Return the uncompressed bytes of a column's pages."""
    total = values = 0
    while place < end:
        file.seek(place)
        try:
            header, length = _struct(file.read(_MOST_HEADER), 0, 0)
            kind, whole, packed, data = header[1], header[2], header[3], header[5]
            known = (kind, data[2], data[3], data[4]) == (_DATA_PAGE, _PLAIN, _RLE, _RLE) and 7 not in header
            values += data[1]
        except (KeyError, IndexError, TypeError):
            raise ValueError("a page is damaged, or of a kind that no pack has") from None
        if not known:
            raise ValueError("a page has an encoding that no pack has: export it again with fgfast masks export")
        total += whole
        place += length + packed
        if min(whole, packed, data[1]) < 0 or place > end:
            raise ValueError("a page is damaged")
        if before + total > MOST_GROUP or values > most_values:
            raise ValueError(f"a group of its rows takes more than {MOST_GROUP >> 20} MB, or has too many values")
    return total


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise IndexError


def _number(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return a struct of Thrift's compact protocol as field -> value, and the place after it.

    Real numbers have no value here.
    """
    if depth > _DEEPEST:
        raise IndexError
    found: dict[int, Any] = {}
    field = 0
    while (head := data[place]) != 0:
        place += 1
        if head >> 4:
            field += head >> 4
        else:
            field, place = _number(data, place)
        found[field], place = _value(data, place, head & 15, depth)
    return found, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, place
    if kind == 3:
        return data[place], place + 1
    if kind in (4, 5, 6):
        return _number(data, place)
    if kind == 7:
        return None, place + 8
    if kind == 8:
        length, place = _varint(data, place)
        if place + length > len(data):
            raise IndexError
        return data[place : place + length], place + length
    if kind == 9:
        return _list(data, place, depth + 1)
    if kind == 12:
        return _struct(data, place, depth + 1)
    raise IndexError  # sets and maps: there are none in a Parquet file


def _list(data: bytes, place: int, depth: int) -> tuple[list[Any], int]:
    head, place = data[place], place + 1
    count = head >> 4
    if count == 15:
        count, place = _varint(data, place)
    if depth > _DEEPEST or count > len(data) - place:  # an element takes a byte at least
        raise IndexError
    found = []
    for _ in range(count):
        if head & 15 in (1, 2):
            one, place = data[place] == 1, place + 1
        else:
            one, place = _value(data, place, head & 15, depth)
        found.append(one)
    return found, place
