"""Tables of an expansion: rows of a sample as they lie in the ledger, and Parquet files in the data set's order."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from fgfast.errors import MissingExtraError, OutputRefusedError
from fgfast.expand.kind import Table
from fgfast.io.ledger import Ledger
from fgfast.writing import Target, replacing

FOLDER = "tables"
# Rows per row group, and most bytes that wait for one: a table of descriptors has kilobytes per row.
_ROWS, _BYTES = 1 << 16, 1 << 26
# The kind of a message, and the index of a batch's field, in Arrow's format/Message.fbs.
_RECORD_BATCH, _COMPRESSION = 3, 3
# Characters of a sample's key, repeated for each of its rows; a million keypoints of an image take a tenth.
_MOST_NAMED = 1 << 30


def check_arrow() -> None:
    """Raise MissingExtraError unless tables can be written."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "expand", "tables of an expansion") from None


def packed(table: Table, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as they lie in the ledger: a mark of the columns, and a record batch as a message of Arrow.

    Args:
        table: their table.
        rows: column -> value each, plain or of NumPy; a column that is absent is None.

    Raises:
        ValueError, TypeError: a row has a column that the table does not have, or a value of another type.
    """
    import pyarrow as pa

    schema = _schema(table)
    if unknown := {name for row in rows for name in row} - set(schema.names):
        raise ValueError(f"table {table.name} has no column {', '.join(sorted(unknown))}")
    # One call for all columns; an absent one is None.
    batch = pa.RecordBatch.from_struct_array(pa.array(rows, pa.struct(list(schema))))
    value: bytes = batch.serialize().to_pybytes()
    return _mark(table) + value


def rows_in(ledger: Ledger, table: Table) -> Iterator[tuple[str, Any]]:
    """Yield key and record batch of each sample that has rows, in the data set's order.

    The ledger may be anybody's. A batch takes no more memory than its bytes in the ledger: compressed ones, which
    fgfast never writes, are refused before Arrow unpacks them.

    Raises:
        OutputRefusedError: the ledger is damaged.
    """
    import pyarrow as pa

    schema, mark = _schema(table), _mark(table)
    for key, value in ledger.data(table.name):
        try:
            if not value.startswith(mark):
                raise ValueError("other columns")
            message = pa.ipc.read_message(pa.py_buffer(value)[len(mark) :])
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("compressed")
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
        except (pa.ArrowException, ValueError, OSError, EOFError, struct.error) as error:
            raise OutputRefusedError(f"{ledger.path} is damaged: rows of {key} are none ({error})") from error
        if len(batch) * len(key) > _MOST_NAMED:
            raise OutputRefusedError(f"{ledger.path} is damaged: {key} has {len(batch):,} rows")
        yield key, batch


def _mark(table: Table) -> bytes:
    """Return what rows of a table begin with: 8 bytes that stand for its columns."""
    return _mark_of(tuple(table.columns.items()))


@lru_cache
def _mark_of(columns: tuple[tuple[str, str], ...]) -> bytes:
    return hashlib.sha256(repr(list(columns)).encode()).digest()[:8]


def _is_compressed(message: bytes) -> bool:
    """Whether a message of Arrow is anything but a record batch whose buffers are as they are.

    Args:
        message: its metadata, a flatbuffer that Arrow has verified; Arrow's format/Message.fbs.

    Raises:
        struct.error: it is no flatbuffer.
    """

    def number(form: str, at: int) -> int:
        return int(struct.unpack_from(f"<{form}", message, at)[0])

    def field(table: int, index: int) -> int:
        """Return the place of a table's field; 0 where it is absent."""
        names = table - number("i", table)
        offset = number("H", names + 4 + 2 * index) if 4 + 2 * index < number("H", names) else 0
        return table + offset if offset else 0

    root = number("I", 0)
    kind, header = field(root, 1), field(root, 2)
    if not kind or not header or number("B", kind) != _RECORD_BATCH:
        return True
    return field(header + number("I", header), _COMPRESSION) != 0


def plain_rows(
    ledger: Ledger, table: Table, labels: Mapping[str, str], splits: Mapping[str, str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table with "key", "label" and "split", in the data set's order."""
    for key, batch in rows_in(ledger, table):
        about = {"key": key, "label": labels.get(key, ""), "split": splits.get(key, "")}
        for row in batch.to_pylist():
            yield {**about, **row}


def write(target: Target, ledger: Ledger, table: Table, labels: Mapping[str, str], splits: Mapping[str, str]) -> int:
    """Write a table as Parquet; return the number of its rows.

    The same rows give the same bytes, in however many runs they were made.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    about = [pa.field(name, pa.string()) for name in ("key", "label", "split")]
    schema = pa.schema([*about, *_schema(table)])
    count = 0
    with replacing(target) as out, contextlib.closing(parquet.ParquetWriter(out, schema, compression="zstd")) as file:
        for batches in _groups(_with_key(rows_in(ledger, table), labels, splits, schema)):
            whole = pa.Table.from_batches(batches, schema).combine_chunks()
            file.write_table(whole, row_group_size=max(len(whole), 1))
            count += len(whole)
    return count


def _with_key(
    found: Iterable[tuple[str, Any]], labels: Mapping[str, str], splits: Mapping[str, str], schema: Any
) -> Iterator[Any]:
    import pyarrow as pa

    for key, batch in found:
        about = [
            pa.array([_utf8(value)] * len(batch), pa.string())
            for value in (key, labels.get(key, ""), splits.get(key, ""))
        ]
        yield pa.record_batch([*about, *batch.columns], schema=schema)


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield batches in groups, whose ends depend on the rows alone."""
    group: list[Any] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= _ROWS or size >= _BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _utf8(text: str) -> str:
    """Return a name as text that UTF-8 can hold: undecoded bytes are written as backslash escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _schema(table: Table) -> Any:
    return _schema_of(tuple(table.columns.items()))


@lru_cache
def _schema_of(columns: tuple[tuple[str, str], ...]) -> Any:
    import pyarrow as pa

    return pa.schema([pa.field(name, _type(kind)) for name, kind in columns])


def _type(kind: str) -> Any:
    import pyarrow as pa

    plain = {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "binary": pa.binary(),
    }
    if kind.startswith("list<"):
        return pa.list_(plain[kind[5:-1]])
    return plain[kind]
