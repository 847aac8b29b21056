"""Hugging Face's metadata.parquet, read row by row, and written with its own schema."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fgfast import processes
from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import read_bytes, write_bytes
from fgfast.datasets.cell_values import is_number
from fgfast.errors import DatasetError, MissingExtraError
from fgfast.writing import Target

# What reading may take. A few bytes of Parquet can stand for any number of rows; a row as Python has it takes 1 kB.
_MEMORY, _SECONDS = 4 << 30, 600.0


def _content(path: AnyPath) -> bytes:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", f"reading {path}")
    return read_bytes(path, "table")


def read_parquet(path: AnyPath) -> list[tuple[int, dict[str, Any]]]:
    """Return (row number from 1, column -> value) of each row. They are read in a process with a memory cap.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DatasetError: the file is not Parquet, or its rows take too much.
    """
    content = _content(path)
    try:
        rows = processes.call(f"{__name__}:rows_in", content, memory=_MEMORY, seconds=_SECONDS)
    except (processes.MemoryExceededError, processes.TimeExceededError):
        limits = f"{_MEMORY >> 30} GB of memory or {_SECONDS:g} seconds"
        raise DatasetError(path, f"reading it takes more than {limits}; split it, or write metadata.csv") from None
    except processes.ChildError as error:
        raise DatasetError(path, f"not Parquet, or damaged: {error}") from None
    if isinstance(rows, str):
        raise DatasetError(path, f"not Parquet, or damaged: {rows}")
    return list(enumerate(rows, 1))


def rows_in(content: bytes) -> list[dict[str, Any]] | str:
    """Return the rows of a Parquet file, or why it cannot be read."""
    import pyarrow.parquet as pq

    try:
        return [_plain(row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        return str(error)[:500]


def _plain(value: Any) -> Any:
    """Return a value of Arrow as one that passes between processes: dates and decimals as text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str, bytes)) else str(value)


def write_parquet(
    source: AnyPath, target: Target, rows: Sequence[Mapping[str, Any]], without: Collection[str] = frozenset()
) -> Target:
    """Write rows with the schema of the file `source`, but for the columns `without`.

    Numbers that were whole become fractions where a crop makes them so. Columns that lack a value are null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields, arrays = [], []
    old = pq.read_schema(io.BytesIO(_content(source)))
    for field in old:
        if field.name in without:
            continue
        values = [row.get(field.name) for row in rows]
        array = _array(values, field.type)
        if not _kept(array.to_pylist(), values):  # whole numbers, which a crop has made fractions
            array = pa.array(values)
        fields.append(pa.field(field.name, array.type, metadata=field.metadata))
        arrays.append(array)
    buffer = io.BytesIO()
    schema = pa.schema(fields)
    if schema.equals(old):  # then what pandas or `datasets` say of the columns is still true
        schema = schema.with_metadata(old.metadata)
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), buffer, compression="zstd")
    return write_bytes(target, buffer.getvalue())


def _array(values: list[Any], kind: Any) -> Any:
    """Return a column of this type; dates and decimals are texts in `values`."""
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values, pa.string()).cast(kind)


def _kept(stored: Any, value: Any) -> bool:
    """Whether Arrow stored every number of a value as it is."""
    if isinstance(value, dict):
        return all(_kept(stored[key], part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_kept, stored, value))
    return not is_number(value) or stored == value or stored != stored
