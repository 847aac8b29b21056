"""Verdict and tables of a study as JSON in its folder, so that a report of several studies can show them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgfast.errors import DatasetError
from fgfast.files import read_regular
from fgfast.studies.figures import Estimate
from fgfast.studies.tables import Table, Value

FILE = "tables.json"
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder says of a study.

    Attributes:
        title: of its page.
        said: the verdict: sentences, and how sure each is.
        tables: its tables.
    """

    title: str
    said: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


def as_json(title: str, said: Sequence[tuple[str, str]], tables: Sequence[Table]) -> bytes:
    """Return verdict and tables as JSON."""
    found = {"title": title, "said": [list(one) for one in said], "tables": [_plain(table) for table in tables]}
    return json.dumps(found, sort_keys=True).encode("utf-8", "surrogateescape") + b"\n"


def _plain(table: Table) -> dict[str, Any]:
    rows = [[asdict(value) if isinstance(value, Estimate) else value for value in row] for row in table.rows]
    return {**asdict(table), "rows": rows, "signed": sorted(table.signed)}


def read(folder: Path) -> Kept | None:
    """Read verdict and tables from a folder, which may be anybody's; None where it has none.

    Raises:
        DatasetError: they are not understood.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
        said = tuple((str(first), str(second)) for first, second in found["said"])
        return Kept(str(found["title"]), said, tuple(_table(one) for one in found["tables"]))
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(path, f"is not understood: {type(error).__name__}: {error}") from error


def _table(found: dict[str, Any]) -> Table:
    heads = tuple(str(head) for head in found["heads"])
    rows = tuple(tuple(_value(value) for value in row) for row in found["rows"])
    if any(len(row) != len(heads) for row in rows):
        raise ValueError("a row has more or fewer values than there are columns")
    name = str(found["name"])
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{name!r} is no name of a table")
    signed = frozenset(int(n) for n in found["signed"])
    return Table(name, str(found["title"]), heads, rows, str(found["note"]), signed)


def _value(value: Any) -> Value:
    if isinstance(value, dict):
        low, high = (None if value[end] is None else float(value[end]) for end in ("low", "high"))
        return Estimate(float(value["value"]), low, high, int(value["count"]))
    if value is None or isinstance(value, str):
        return value
    return float(value)
