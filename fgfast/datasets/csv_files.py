"""CSV files, as programs and spreadsheets write them: read with line numbers, and written in the same form.

The separator is the one that the header shows: comma, semicolon, tab or vertical bar. Excel's line `sep=;` and comments
that begin with # may stand before the header. Text is UTF-8, or UTF-16 with its byte-order mark. Spaces around the
names of columns do not count. Cells may have any length.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import check_names, read_bytes, short, write_bytes
from fgfast.errors import DatasetError
from fgfast.writing import Target

_SEPARATORS = ",;\t|"
# Tells Excel the separator.
_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# The csv module refuses cells of more than 128 KiB; this is the most that it allows everywhere (a C long on Windows).
_LONGEST_CELL = (1 << 31) - 1


def decode_text(path: AnyPath) -> tuple[str, str]:
    """Return an annotation file's text, and its encoding, with which it can be written again."""
    content = read_bytes(path, "table")
    encoding = (
        "utf-16" if content.startswith(_UTF16) else "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8"
    )
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError as error:
        problem = f"not {encoding.removesuffix('-sig').upper()} text: {error.reason} at byte {error.start}"
        raise DatasetError(path, f"{problem}; save it as UTF-8") from None


def line_ending(text: str) -> str:
    """Return the line ending of a text: Windows' where it occurs."""
    return "\r\n" if "\r\n" in text else "\n"


@contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(path: AnyPath, text: str, **form: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, cells) of the header, and of each record after it that is not blank."""
    start = _header(text)[1]
    before = text.count("\n", 0, start)
    reader, last = csv.reader(io.StringIO(text[start:], newline=""), strict=True, **form), before
    while True:
        try:
            with _long_cells():
                cells = next(reader, None)
        except csv.Error as error:  # an open quote would swallow the rest of the file
            raise DatasetError(path, f"not CSV: {error}", last + 1) from None
        if cells is None:
            return
        if cells:
            yield last + 1, cells
        last = before + reader.line_num


def _header(text: str) -> tuple[str, int]:
    """Return the first line of a CSV file that is its header, and where it begins: after sep=; and comments."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        line, following = text[start:end], text[end : text.find("\n", end) + 1 or len(text)]
        if line.strip() and not _SEPARATOR_LINE.fullmatch(line.strip()) and not _is_comment(line, following):
            return line.rstrip("\r\n"), start
        start = end
    return "", 0


def _is_comment(line: str, following: str) -> bool:
    """Whether a line is a comment, not a header that begins with #: that has as many cells as the line below it."""
    if not line.startswith("#") or not following.strip():
        return line.startswith("#")
    separator = max(_SEPARATORS, key=following.count)
    return following.startswith("#") or line.count(separator) != following.count(separator)


def _form(text: str) -> dict[str, Any]:
    """Return the form of a CSV file, in the words of the csv module, as its header shows it."""
    header, start = _header(text)
    named = [_SEPARATOR_LINE.fullmatch(line.strip()) for line in text[:start].splitlines()]
    separator = next((match[1] for match in named if match), max(_SEPARATORS, key=header.count))
    return {"delimiter": separator, "skipinitialspace": f"{separator} " in header}


def _names(header: Sequence[str]) -> list[str]:
    """Return the names of the columns; one without a name has its number."""
    return [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]


def read_csv(path: AnyPath, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column -> value) per row of a CSV file that has at least the columns `needed`."""
    text, _ = decode_text(path)
    records = _records(path, text, **_form(text))
    first, header = next(records, (1, []))
    columns = _names(header)
    for name in needed:
        if name not in columns:
            found = short(", ".join(columns)) if columns else "none"
            raise DatasetError(path, f"expected a column {name!r}; found: {found}", first)
    check_names(path, columns, first)
    twice = next((name for name, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise DatasetError(path, f"two columns are called {short(twice)}; rename one", first)
    for number, cells in records:
        if len(cells) != len(columns):
            raise DatasetError(path, f"expected {len(columns)} columns, got {len(cells)}", number)
        yield number, dict(zip(columns, cells, strict=True))


def write_csv(
    source: AnyPath, target: Target, rows: Iterable[Mapping[str, Any]], without: Collection[str] = frozenset()
) -> Target:
    """Write rows in the form of the file `source`: its columns but those `without`, separator, encoding, line ends."""
    old, encoding = decode_text(source)
    form = _form(old)
    first, start = _header(old)
    header = next(_records(source, old, **form), (1, list[str]()))[1]
    with _long_cells():
        on_one_line = len(next(csv.reader([first], **form), [])) == len(header)
    kept = {name: text for name, text in zip(_names(header), header, strict=True) if name not in without}
    text = io.StringIO(newline="")
    text.write(old[:start].lstrip("\r\n"))
    writer = csv.writer(text, delimiter=form["delimiter"], lineterminator=line_ending(old))
    if on_one_line and not without:
        text.write(first + line_ending(old))  # with its spaces, by which some loader may know its columns
    else:
        writer.writerow(kept.values())
    writer.writerows([row[name] for name in kept] for row in rows)
    return write_bytes(target, text.getvalue().encode(encoding))
