"""Lists of samples to leave out: keys, one per line, or a table of an earlier run (flagged.csv, failed.csv)."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from fgfast.errors import UsageError

# The column of a table that holds keys, and what separates columns: spreadsheets in some languages write semicolons.
_COLUMN = "key"
_SEPARATORS = ",;\t"
# Other keys of that file name, named in an error.
_SUGGESTED = 3


def read_excluded(files: Iterable[str | Path], keys: Collection[str]) -> frozenset[str]:
    """Return the keys that the files list.

    A file whose first line has a column "key" is a table; any other holds one key per line. A name in another Unicode
    form than the key's, or with backslashes, is the same key.

    Args:
        files: the files, UTF-8.
        keys: all keys of the data set.

    Raises:
        UsageError: a file cannot be read or is no text, or lists a key that the data set does not have; the message
            names the file and the line.
    """
    known = set(keys)
    forms: dict[str, str] = {}
    found: set[str] = set()
    for file in map(Path, files):
        for number, name in _names(file):
            if name not in known:
                forms = forms or {_form(key): key for key in known}
                if _form(name) not in forms:
                    raise UsageError(_unknown(file, number, name, known))
                name = forms[_form(name)]
            found.add(name)
    return frozenset(found)


def _names(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the name of each line that is not blank."""
    try:
        text = file.expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}; --exclude takes a file of keys") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    header = text.partition("\n")[0].rstrip("\r")
    for separator in _SEPARATORS:
        try:
            columns = next(csv.reader([header], delimiter=separator), [])
        except csv.Error:  # longer than a cell may be, for one
            columns = []
        if _COLUMN in columns:
            yield from _cells(file, text, separator, columns.index(_COLUMN))
            return
    for number, line in enumerate(text.split("\n"), 1):
        if name := line.rstrip("\r"):
            yield number, name


def _cells(file: Path, text: str, separator: str, column: int) -> Iterator[tuple[int, str]]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    next(rows)
    try:
        for row in rows:
            if not any(row):
                continue
            if column >= len(row) or not row[column]:
                raise UsageError(f"{file}:{rows.line_num}: this line has no {_COLUMN!r}")
            yield rows.line_num, row[column]
    except csv.Error as error:
        raise UsageError(f"{file}:{rows.line_num}: not a line of a CSV file: {error}") from None


def _form(name: str) -> str:
    """Return a name in the form in which names are compared."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name.strip().replace("\\", "/"))))


def _unknown(file: Path, number: int, name: str, known: set[str]) -> str:
    last = PurePosixPath(name.strip().replace("\\", "/")).name
    near = sorted(key for key in known if key.rpartition("/")[2] == last)[:_SUGGESTED]
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Its first key is {min(known, default='')!r}."
    return (
        f"{file}:{number}: the data set has no image {name!r}. {hint} List one key per line (the image's path inside "
        "the data set), or give the flagged.csv or failed.csv of a run of this data set"
    )
