"""Tables of an expansion: rows survive the ledger, files depend on nothing but the rows, damage is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgfast.errors import OutputRefusedError
from fgfast.expand import tables
from fgfast.expand.kind import Table
from fgfast.io.ledger import Ledger
from fgfast.records import Outcome, Sample, Size
from fgfast.writing import Target

pytest.importorskip("pyarrow", reason="tables need the extra expand")
import pyarrow.parquet as parquet

TABLE = Table(
    "t", {"n": "int32", "x": "float32", "name": "string", "some": "list<float64>", "raw": "binary", "is": "bool"}
)
ROW: dict[str, Any] = {
    "n": np.int64(3),
    "x": np.float32(0.5),
    "name": "é",
    "some": np.arange(3.0),
    "raw": b"\0",
    "is": True,
}


def outcome(key: str, rows: list[dict[str, Any]]) -> Outcome:
    data = {"t": tables.packed(TABLE, rows)}
    return Outcome(key, "done", "write", twin=key, size=Size(1, 1), twin_size=Size(1, 1), rle=b"01", data=data)


def written(tmp_path: Path, order: list[str], keys: list[str]) -> bytes:
    folder = tmp_path / "-".join(order)
    folder.mkdir()
    with Ledger(folder / "l.sqlite") as ledger:
        ledger.register((n, Sample(key, Path(key), label=f"class {key}")) for n, key in enumerate(keys))
        for key in order:
            ledger.record([outcome(key, [ROW, {"n": ord(key[0])}])])
        tables.write(Target.of(folder, folder / "t.parquet"), ledger, TABLE, ledger.labels(), ledger.splits())
    return (folder / "t.parquet").read_bytes()


def test_the_order_of_work_does_not_change_a_byte(tmp_path: Path) -> None:
    one, two = written(tmp_path, ["a", "b", "c"], ["c", "a", "b"]), written(tmp_path, ["c", "b", "a"], ["c", "a", "b"])
    assert one == two
    rows = parquet.read_table(tmp_path / "a-b-c/t.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["c", "c", "a", "a", "b", "b"]
    assert rows[0] == {"key": "c", "label": "class c", "split": "", **ROW, "n": 3, "some": [0.0, 1.0, 2.0]}
    assert rows[1]["n"] == ord("c") and rows[1]["x"] is None and rows[1]["some"] is None


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert tables.write(Target.of(tmp_path, tmp_path / "t.parquet"), ledger, TABLE, {}, {}) == 0
    assert parquet.read_table(tmp_path / "t.parquet").column_names == ["key", "label", "split", *TABLE.columns]


def test_rows_that_do_not_fit_are_errors() -> None:
    with pytest.raises(ValueError, match="has no column other"):
        tables.packed(TABLE, [{"other": 1}])
    with pytest.raises((TypeError, ValueError)):
        tables.packed(TABLE, [{"n": "three"}])


def bomb(codec: str) -> bytes:
    """A sample's rows in some kilobytes that Arrow would unpack to 32 MB."""
    import pyarrow as pa

    zeros = pa.record_batch([pa.array(np.zeros(1 << 22, np.float64))], names=["x"])
    sink, options = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, zeros.schema, options=options) as writer:
        writer.write_batch(zeros)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    reader.read_next_message()
    return tables.packed(TABLE, [])[:8] + bytes(reader.read_next_message().serialize().to_pybytes())


VALUES = {
    "nothing": (lambda: b"", "other columns"),
    "nonsense": (lambda: b"nonsense" * 9, "other columns"),
    "other columns": (lambda: tables.packed(Table("t", {"n": "int64"}), [{"n": 1}]), "other columns"),
    "cut": (lambda: tables.packed(TABLE, [ROW])[:-40], "Expected to be able to read"),
    "mark alone": (lambda: tables.packed(TABLE, [ROW])[:8], ""),
    "zstd": (lambda: bomb("zstd"), "compressed"),
    "lz4": (lambda: bomb("lz4"), "compressed"),
}


@pytest.mark.parametrize(("value", "why"), VALUES.values(), ids=VALUES)
def test_a_damaged_row_is_refused(value: Callable[[], bytes], why: str, tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.register([(0, Sample("a", Path("a")))])
        ledger.record([replace(outcome("a", [ROW]), data={"t": value()})])
        with pytest.raises(OutputRefusedError, match=rf"rows of a are none \(.*{why}"):
            list(tables.plain_rows(ledger, TABLE, {}, {}))


def test_no_changed_byte_gets_past_the_checks(tmp_path: Path) -> None:
    whole = tables.packed(TABLE, [ROW])
    generator = np.random.default_rng(0)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.register([(0, Sample("a", Path("a")))])
        for at in generator.permutation(len(whole))[:60]:
            value = bytearray(whole)
            value[at] = generator.integers(256)
            ledger.record([replace(outcome("a", [ROW]), data={"t": bytes(value)})])
            try:
                rows = list(tables.plain_rows(ledger, TABLE, {}, {}))
            except OutputRefusedError:
                continue
            assert len(rows) <= len(whole)
