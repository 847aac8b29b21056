"""Tables of an expansion: rows survive the ledger, files depend on nothing but the rows, damage is refused."""

from __future__ import annotations

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


@pytest.mark.parametrize("value", [b"", b"nonsense" * 9, tables.packed(Table("t", {"n": "int64"}), [{"n": 1}])])
def test_a_damaged_row_is_refused(value: bytes, tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        ledger.register([(0, Sample("a", Path("a")))])
        ledger.record([replace(outcome("a", [ROW]), data={"t": value})])
        with pytest.raises(OutputRefusedError, match="rows of a are none"):
            list(tables.plain_rows(ledger, TABLE, {}, {}))
