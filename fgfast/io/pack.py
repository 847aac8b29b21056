"""A pack: the masks of a run in one Parquet file, with what they were made from, so that others can make its twin.

It holds no pixel of an image. A row holds what the ledger knows about one image, and the SHA-256 of the image's file,
by which it is found again. The file may come from anybody; see `fgfast.io.parquet_pages` for what reading it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fgfast.errors import MissingExtraError, UsageError
from fgfast.files import open_regular
from fgfast.io.decisions import Decision
from fgfast.io.pack_rows import MOST_MASK, outcomes_of
from fgfast.io.parquet_pages import Group, check_group, read_footer
from fgfast.records import Outcome
from fgfast.writing import Target, replacing

VERSION = 1
_ABOUT = b"fgfast pack"
# Rows and bytes of masks from which a group of rows is written: some megabytes, so that few are in memory.
_GROUP_ROWS, _GROUP_BYTES = 4096, MOST_MASK
# Rows of which the objects are in memory.
_AT_ONCE = 512
# Bytes of a file that is read: that of ten million masks of a kilobyte, a bit more.
MOST_BYTES = 1 << 34
_MOST_ROWS, _MOST_ABOUT = 1 << 26, 1 << 20
_DECISION = ("verdict", "how", "who", "when", "cause")

Add = Callable[[Outcome, "Decision | None"], None]
"""Adds the next image with its decision in force; calls follow the data set's order."""


def check_parquet() -> None:
    """Raise MissingExtraError unless Parquet files can be read and written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "a pack of masks") from None


def _schema() -> Any:
    import pyarrow as pa

    text, real = pa.string(), pa.float64()
    always = {"key": text, "height": pa.int32(), "width": pa.int32(), "sha256": pa.binary(32), "mask": pa.binary()}
    always |= {"status": text, "reasons": pa.list_(pa.field("element", text, nullable=False)), "detail": text}
    always |= {"numbers": text, "box": pa.list_(pa.field("element", pa.float32(), nullable=False)), "box_reason": text}
    always |= {"box_name": text, "others": text}
    maybe = dict.fromkeys(("doubt", "box_score", "quality", "stability"), real)
    decision = {f"decision_{name}": text for name in _DECISION}
    fields = [pa.field(name, kind, nullable=False) for name, kind in (always | decision).items()]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in maybe.items()])


@contextlib.contextmanager
def writer(target: Target, about: Mapping[str, Any]) -> Iterator[Add]:
    """Write a pack from outcomes that have a source and a size, as they are added; same input, same bytes.

    Args:
        target: the file; it exists, whole and durable, once the block ends without an error.
        about: what the masks were made from, as JSON can hold it.

    Raises:
        UsageError: the name of an image is no Unicode text.
        OutputFailedError: the disk is full, read-only or failing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = json.dumps({"version": VERSION, **about}, sort_keys=True).encode()
    schema = _schema().with_metadata({_ABOUT: said})
    plain = {"use_dictionary": False, "write_statistics": False}
    waiting: list[dict[str, Any]] = []
    held = 0
    with replacing(target) as out, pq.ParquetWriter(out, schema, compression="zstd", **plain) as parquet:

        def flush() -> None:
            nonlocal held
            if waiting:
                parquet.write_table(pa.Table.from_pylist(waiting, schema=schema), row_group_size=_GROUP_ROWS)
            waiting.clear()
            held = 0

        def add(outcome: Outcome, decision: Decision | None) -> None:
            nonlocal held
            waiting.append(_row(outcome, decision))
            held += len(outcome.rle or b"")
            if len(waiting) == _GROUP_ROWS or held > _GROUP_BYTES:
                flush()

        yield add
        flush()


def _row(o: Outcome, decision: Decision | None) -> dict[str, Any]:
    assert o.source is not None and o.size is not None
    try:
        o.key.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {o.key!r} is no Unicode text, which a pack needs: rename the image") from None
    if len(o.rle or b"") > MOST_MASK:
        raise UsageError(f"the mask of {o.key} has more than {MOST_MASK:,} bytes, which no pack holds")
    said = {name: "" if decision is None else getattr(decision, name) for name in _DECISION}
    return {
        "key": o.key,
        "height": o.size.height,
        "width": o.size.width,
        "sha256": o.source.sha256,
        "mask": o.rle or b"",
        "status": o.status,
        "reasons": list(o.reasons),
        "detail": o.detail,
        "numbers": json.dumps(dict(o.numbers)),
        "doubt": o.doubt,
        "box": [] if o.box is None else o.box.tolist(),
        "box_reason": o.box_reason,
        "box_score": o.box_score,
        "box_name": o.box_name,
        "others": json.dumps(o.others),
        "quality": o.quality,
        "stability": o.stability,
        **{f"decision_{name}": value for name, value in said.items()},
    }


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack, checked.

    Attributes:
        path: the file.
        sha256: its digest, in hexadecimal.
        about: what its masks were made from.
        keys: of its images.
    """

    path: Path
    sha256: str
    about: Mapping[str, Any]
    keys: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Pack:
        """Read and check a whole pack.

        Raises:
            UsageError: it is none, is damaged, or takes too much memory.
            MissingExtraError: pyarrow is not installed.
        """
        check_parquet()
        keys: set[str] = set()
        with _opened(path) as (file, sha256):
            about, parquet, groups, end = _parquet(file)
            for rows in _rows(file, parquet, groups, end):
                for row in rows:
                    if row.key in keys:
                        raise ValueError(f"it has {row.key!r} twice")
                    keys.add(row.key)
        return cls(path, sha256, about, frozenset(keys))

    def rows(self) -> Iterator[list[Outcome]]:
        """Yield its rows, some hundred at a time, as outcomes of stage `PACKED` without files, and with `source`s of
        which only the digest is known.

        Raises:
            UsageError: the file has changed since it was read.
        """
        with _opened(self.path) as (file, sha256):
            if sha256 != self.sha256:
                raise ValueError("it has changed since the run began")
            _, parquet, groups, end = _parquet(file)
            yield from _rows(file, parquet, groups, end)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Yield a pack's file and its digest; what is wrong with it becomes a UsageError."""
    import pyarrow as pa

    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES >> 30} GB")
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            yield file, digest.hexdigest()
    except (OSError, ValueError, pa.ArrowException) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
        raise UsageError(f"the pack {path} cannot be used: {said}") from error


def _parquet(file: BinaryIO) -> tuple[dict[str, Any], Any, list[Group], int]:
    """Return what a pack says about itself, pyarrow's file, its row groups, and where its footer begins."""
    import pyarrow.parquet as pq

    groups, end = read_footer(file, file.seek(0, os.SEEK_END))
    limits = {"thrift_string_size_limit": _MOST_ABOUT << 1, "thrift_container_size_limit": 1 << 16}
    parquet = pq.ParquetFile(file, pre_buffer=False, **limits)
    said = (parquet.metadata.metadata or {}).get(_ABOUT)
    if said is None:
        raise ValueError("it is a Parquet file, but no pack: make one with fgfast masks export --to pack")
    try:
        about = json.loads(said[:_MOST_ABOUT])
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise ValueError("it was written by another version of fgfast, or is damaged")
    if not parquet.schema_arrow.remove_metadata().equals(_schema()):
        raise ValueError("its columns are not those of a pack")
    if parquet.metadata.num_rows > _MOST_ROWS:
        raise ValueError(f"it has {parquet.metadata.num_rows:,} rows")
    return about, parquet, groups, end


def _rows(file: BinaryIO, parquet: Any, groups: list[Group], end: int) -> Iterator[list[Outcome]]:
    for n, group in enumerate(groups):
        check_group(file, group, len(_schema()), end)
        table = parquet.read_row_group(n, use_threads=False)
        table.validate(full=True)
        for start in range(0, table.num_rows, _AT_ONCE):
            yield outcomes_of(table.slice(start, _AT_ONCE).to_pylist())
