"""Hugging Face's metadata.parquet, read row by row, and written with its own schema."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgfast.datasets.annotation_files import read_bytes, write_bytes
from fgfast.datasets.cell_values import is_number
from fgfast.errors import DatasetError, MissingExtraError
from fgfast.files import AnyPath


def _table(path: AnyPath) -> Any:
    content = read_bytes(path)
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", f"reading {path}") from None
    try:
        return pq.read_table(io.BytesIO(content))
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DatasetError(path, f"not Parquet, or damaged: {error}") from None


def read_parquet(path: AnyPath) -> list[tuple[int, dict[str, Any]]]:
    """Return (row number from 1, column -> value) of each row.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DatasetError: the file is not Parquet.
    """
    return list(enumerate(_table(path).to_pylist(), 1))


def write_parquet(
    source: AnyPath, target: Path, rows: Sequence[Mapping[str, Any]], without: Collection[str] = frozenset()
) -> Path:
    """Write rows with the schema of the file `source`, but for the columns `without`.

    Numbers that were whole become fractions where a crop makes them so. Columns that lack a value are null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields, arrays = [], []
    old = _table(source).schema
    for field in old:
        if field.name in without:
            continue
        values = [row.get(field.name) for row in rows]
        array = pa.array(values, field.type)
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


def _kept(stored: Any, value: Any) -> bool:
    """Whether Arrow stored every number of a value as it is."""
    if isinstance(value, dict):
        return all(_kept(stored[key], part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_kept, stored, value))
    return not is_number(value) or stored == value or stored != stored
