"""A pack: the masks of a run in one Parquet file, with what they were made from, so that others can make its twin.

It holds no pixel of an image. A row holds what the ledger knows about one image, and the SHA-256 of the image's file,
by which it is found again. The file may come from anybody; see `fgfast.io.parquet_pages` for what reading it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fgfast.errors import MissingExtraError, UsageError
from fgfast.files import FileStamp, open_regular
from fgfast.io.decisions import Decision
from fgfast.io.ledger_paths import is_below
from fgfast.io.parquet_pages import check_footer, check_group
from fgfast.io.pixels import MAX_PIXELS
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Outcome, Size
from fgfast.writing import Target, replacing

PACKED = "pack"
"""The last stage of an image that was made from a pack: its flags are those of the pack."""
VERSION = 1
_ABOUT = b"fgfast pack"
# Rows and bytes of masks from which a group of rows is written: some megabytes, so that few are in memory.
_GROUP_ROWS, _GROUP_BYTES = 4096, 1 << 25
# Rows of which the objects are in memory.
_AT_ONCE = 512
# Bytes of a file that is read: that of ten million masks of a kilobyte, a bit more.
MOST_BYTES = 1 << 34
_MOST_ROWS, _MOST_ABOUT = 1 << 26, 1 << 20
# Characters of a short text, and of a long one: a sentence, the boxes that were not chosen.
_SHORT, _LONG = 1 << 10, 1 << 16
_MOST_REASONS, _MOST_NUMBERS, _LARGEST = 64, 256, 1e30
_DECISION = ("verdict", "how", "who", "when", "cause")
_TEXTS = {"detail": _LONG, "others": _LONG, "numbers": _LONG, "box_reason": _SHORT, "box_name": _SHORT}
_STATUSES = ("done", "flagged", "skipped")

Add = Callable[[Outcome, "Decision | None"], None]
"""Adds the next image with its decision in force; calls follow the data set's order."""


def check_parquet() -> None:
    """Raise MissingExtraError unless Parquet files can be read and written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "packs of masks") from None


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
    if len(o.rle or b"") > _GROUP_BYTES:
        raise UsageError(f"the mask of {o.key} has more than {_GROUP_BYTES:,} bytes, which no pack holds")
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
            about, parquet, end = _parquet(file)
            for rows in _groups(file, parquet, end):
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
            _, parquet, end = _parquet(file)
            yield from _groups(file, parquet, end)


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


def _parquet(file: BinaryIO) -> tuple[dict[str, Any], Any, int]:
    """Return what a pack says about itself, pyarrow's file, and where its footer begins."""
    import pyarrow.parquet as pq

    end = check_footer(file, file.seek(0, os.SEEK_END))
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
    return about, parquet, end


def _groups(file: BinaryIO, parquet: Any, end: int) -> Iterator[list[Outcome]]:
    for n in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(n)
        check_group(file, group, end)
        table = parquet.read_row_group(n, use_threads=False)
        table.validate(full=True)
        for start in range(0, table.num_rows, _AT_ONCE):
            yield _outcomes(table.slice(start, _AT_ONCE).to_pylist())


def _outcomes(rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Return checked rows.

    Raises:
        ValueError: a value is none that a run writes.
    """
    found = [_outcome(row) for row in rows]
    masks = [(n, o.rle, o.size) for n, o in enumerate(found) if o.rle is not None and o.size is not None]
    try:
        _, areas = boxes_and_areas([rle for _, rle, _ in masks], [size for *_, size in masks])
    except ValueError as error:
        raise ValueError(f"a mask between {found[0].key!r} and {found[-1].key!r} is none ({error})") from None
    for (n, *_), area in zip(masks, areas.tolist(), strict=True):
        found[n] = replace(found[n], area=area)
    return found


def _outcome(row: Mapping[str, Any]) -> Outcome:
    key, status, size = row["key"], row["status"], Size(row["height"], row["width"])
    _check(is_below(key), "the name of an image is none")
    _check(status in _STATUSES, f"the status of {key!r} is none")
    _check(size.height > 0 < size.width and size.height * size.width <= MAX_PIXELS, f"the size of {key!r} is none")
    for name, most in _TEXTS.items():
        _check(len(row[name]) <= most, f"a text of {key!r} is too long")
    reasons, box = row["reasons"], row["box"]
    short = len(reasons) <= _MOST_REASONS and all(len(one) <= _SHORT for one in reasons)
    _check(short and len(row["mask"]) <= _GROUP_BYTES, f"the reasons or the mask of {key!r} are too long")
    for name in ("doubt", "box_score", "quality", "stability"):
        _check(row[name] is None or abs(row[name]) < _LARGEST, f"the {name} of {key!r} is none")
    # A box of a person may reach out of the image.
    _check(not box or (len(box) == 4 and all(abs(edge) < 1 << 24 for edge in box)), f"the box of {key!r} is none")
    _check(not box or (box[0] < box[2] and box[1] < box[3]), f"the box of {key!r} is none")
    written = status != "skipped"
    _check(not written or (box and row["mask"]), f"{key!r} has no mask or no box")
    return Outcome(
        key=key,
        status=status,
        stage=PACKED if written else "review",
        reasons=tuple(reasons),
        detail=row["detail"],
        twin=key if written else None,  # the caller knows the name
        size=size,
        box=np.array(box, np.float32) if box else None,
        box_reason=row["box_reason"],
        box_score=row["box_score"],
        box_name=row["box_name"],
        others=tuple((*map(_finite, one[:5]), str(one[5])) for one in _json(row["others"], list, key)),  # type: ignore[misc]
        rle=row["mask"] or None,
        quality=row["quality"],
        stability=row["stability"],
        numbers={name: _finite(number) for name, number in _json(row["numbers"], dict, key).items()},
        doubt=row["doubt"],
        source=FileStamp(0, 0, row["sha256"]),
    )


def _json(text: str, kind: type, key: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    lists = kind is dict or (isinstance(found, list) and all(isinstance(one, list) and len(one) == 6 for one in found))
    _check(isinstance(found, kind) and lists and len(found) <= _MOST_NUMBERS, f"the numbers of {key!r} are none")
    return found


def _finite(value: Any) -> float:
    _check(type(value) in (int, float) and math.isfinite(value) and abs(value) < _LARGEST, "a number is none")
    return float(value)


def _check(true: object, what: str) -> None:
    if not true:
        raise ValueError(what)
