"""A ledger, or a file of decisions, as a stranger would change it; and the row that is in both."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.files import FileStamp
from fgfast.ops import rle_encode
from fgfast.records import Outcome, Size

STAMP = FileStamp(3, 5, b"\0" * 32)

Change = Callable[[sqlite3.Connection], object]


def outcome(key: str, **more: Any) -> Outcome:
    """The outcome of an image of 20 x 30 pixels, with a value in every field that a stranger could change."""
    given: dict[str, Any] = {
        "key": key,
        "status": "done",
        "stage": "write",
        "twin": key,
        "size": Size(20, 30),
        "twin_size": Size(20, 30),
        "box": np.array([1.5, 2, 8, 9], np.float32),
        "others": ((1.0, 2.0, 3.0, 4.5, 0.25, "bird"),),
        "area": 600,
        "rle": rle_encode(np.ones((20, 30), np.bool_)),
        "source": STAMP,
        "annotation": b"digest",
        "seconds": {"decode": 0.5},
    }
    return Outcome(**(given | more))


@contextlib.contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as its maker opens it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        yield db


def schemas(inserted: str, deleted: str) -> dict[str, Change]:
    """Changes of a schema that every reader refuses.

    Args:
        inserted: a table that rows are added to.
        deleted: a table that a trigger on it would empty.
    """
    trigger = f"CREATE TRIGGER t AFTER INSERT ON {inserted} BEGIN DELETE FROM {deleted}; END"
    return {
        "trigger": lambda db: db.execute(trigger),
        "table": lambda db: db.execute("CREATE TABLE more (x)"),
        "write-ahead log": lambda db: db.execute("PRAGMA journal_mode = WAL"),
    }
