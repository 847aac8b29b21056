"""Parquet files from anybody: what reading them would take is known from their pages' headers before it is taken.

The footer may lie about sizes and encodings. A page's own header does not help it to: the decoder allocates what the
header says, and no more. Pages of dictionaries, and encodings in which few bytes become many values, are refused, so
that a row group takes about as much memory as its pages have bytes, uncompressed.
"""

from __future__ import annotations

from typing import Any, BinaryIO

MOST_FOOTER = 1 << 22
"""Bytes of a footer: that of a million rows in groups of 4,096 has less than one megabyte."""
MOST_GROUP = 1 << 28
"""Bytes of the pages of one row group, uncompressed; a writer of fgfast makes groups of an eighth of that."""
MOST_LISTED = 64
"""Values per row of a column of lists, on average."""
# Bytes that a page's header may have; one without statistics has some thirty.
_MOST_HEADER = 1 << 13
# parquet.thrift: DATA_PAGE; PLAIN; RLE, which is for levels here.
_DATA_PAGE, _PLAIN, _RLE = 0, 0, 3
_MAGIC = b"PAR1"
_DEEPEST = 8


def check_footer(file: BinaryIO, size: int) -> int:
    """Return the place where the footer begins.

    Raises:
        ValueError: the file is no Parquet file, is cut off, or has too large a footer.
    """
    if size < 12:
        raise ValueError("it is no Parquet file, or is cut off")
    file.seek(0)
    head = file.read(4)
    file.seek(size - 8)
    tail = file.read(8)
    if head != _MAGIC or tail[4:] != _MAGIC:
        raise ValueError("it is no Parquet file, or is cut off")
    length = int.from_bytes(tail[:4], "little")
    if length > MOST_FOOTER or length > size - 12:
        raise ValueError(f"its footer would have {length:,} bytes")
    return size - 8 - length


def check_group(file: BinaryIO, group: Any, end: int) -> None:
    """Check the pages of a row group.

    Args:
        file: the file.
        group: pyarrow's RowGroupMetaData.
        end: where the footer begins.

    Raises:
        ValueError: a page is damaged, or reading the group would take too much memory.
    """
    total = 0
    for n in range(group.num_columns):
        column = group.column(n)
        start, length = column.data_page_offset, column.total_compressed_size
        if column.has_dictionary_page:
            raise ValueError("it has dictionaries, which no pack has: export it again with fgfast masks export")
        if not (start >= 4 and 0 < length <= end - start) and group.num_rows:
            raise ValueError("a column lies outside it")
        lists = column.path_in_schema.count(".") > 0
        total += _check_column(file, start, start + length, group.num_rows * (MOST_LISTED if lists else 1), total)


def _check_column(file: BinaryIO, place: int, end: int, most_values: int, before: int) -> int:
    """Return the uncompressed bytes of a column's pages."""
    total = values = 0
    while place < end:
        file.seek(place)
        try:
            header, length = _struct(file.read(_MOST_HEADER), 0, 0)
            kind, whole, packed, data = header[1], header[2], header[3], header[5]
            known = (kind, data[2], data[3], data[4]) == (_DATA_PAGE, _PLAIN, _RLE, _RLE)
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

    Numbers and structs have their values; of anything else it is only passed over.
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
        return None, place + length
    if kind == 12:
        return _struct(data, place, depth + 1)
    raise IndexError  # lists and maps: a page's header has none
