"""Masks for other programs: COCO instances JSON, and one Parquet file of run-length strings."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fgfast import ops
from fgfast.errors import MissingExtraError, OutputFailedError
from fgfast.io.write import settle, write_part
from fgfast.ops.geometry import mask_box
from fgfast.records import Bool, Outcome

_PARQUET_ROWS = 4096


def check_parquet() -> None:
    """Raise MissingExtraError unless Parquet files can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "review", "masks in one Parquet file (--masks rle)") from None


def write_instances(
    path: Path, outcomes: Iterator[Outcome], labels: dict[str, str], classes: Sequence[str], source: str
) -> None:
    """Write COCO instances: an image and an annotation for each picture of the twin.

    Category ids count from 1 in the order of `classes`; pictures without a class get one more,
    "unlabelled"; `area` is the mask's area; segmentations are compressed, column-major run-length strings in the frame
    of the twin's picture; `score` is the segmenter's own estimate.

    Args:
        path: the JSON file.
        outcomes: written pictures, in the data set's order.
        labels: key -> class name.
        classes: class names in the data set's order.
        source: name of the data set.
    """
    numbers = {name: n for n, name in enumerate(classes, 1)}
    unlabelled = len(numbers) + 1
    info = {"description": f"Foreground masks of {source}, made with fgfast"}
    # A million annotations are gigabytes: they wait in a file of their own until the images are written.
    with _part_of(path) as out, tempfile.TemporaryFile("w+", encoding="ascii", dir=path.parent) as annotations:
        out.write(f'{{"info":{_json(info)},"licenses":[],"images":[')
        for count, outcome in enumerate(outcomes, 1):
            assert outcome.twin_size is not None
            width, height = outcome.twin_size
            category = numbers.get(labels.get(outcome.key, ""), unlabelled)
            if category == unlabelled:
                numbers["unlabelled"] = unlabelled
            comma = "," if count > 1 else ""
            image = {"id": count, "file_name": outcome.twin, "width": width, "height": height}
            out.write(comma + _json(image))
            annotations.write(comma + _json(_annotation(count, outcome, category)))
        out.write('],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, out)
        categories = [{"id": n, "name": name, "supercategory": ""} for name, n in numbers.items()]
        out.write(f'],"categories":{_json(categories)}}}')


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place, whole and durable, when the block ends well."""
    part = write_part(path, b"")
    try:
        with part.open("w", encoding="ascii") as out:
            yield out
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputFailedError(
                f"cannot write {path}: {error.strerror or error}; make room, start again"
            ) from error
        raise
    settle([(part, path)])


def _annotation(number: int, outcome: Outcome, category: int) -> dict[str, Any]:
    assert outcome.size is not None and outcome.twin_size is not None and outcome.rle is not None
    width, height = outcome.twin_size
    bits = mask_in_twin(outcome)
    uncropped = outcome.offset == (0, 0) and outcome.twin_size == outcome.size
    box = mask_box(bits)
    x0, y0, x1, y1 = (0.0, 0.0, 0.0, 0.0) if box is None else (float(v) for v in box)
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": number,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(bits)),
        "segmentation": {
            "size": [height, width],
            "counts": (outcome.rle if uncropped else ops.rle_encode(bits)).decode("ascii"),
        },
        "iscrowd": 0,
    }
    if outcome.quality is not None:
        annotation["score"] = outcome.quality
    return annotation


def mask_in_twin(outcome: Outcome) -> Bool:
    """The mask of a written picture in the frame of the twin's picture, (h, w) bool."""
    assert outcome.size is not None and outcome.twin_size is not None and outcome.rle is not None
    bits = ops.rle_decode(outcome.rle, outcome.size[1], outcome.size[0])
    if outcome.offset == (0, 0) and outcome.twin_size == outcome.size:
        return bits
    (x, y), (width, height) = outcome.offset, outcome.twin_size
    framed = np.zeros((height, width), np.bool_)
    inside = bits[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    top, left = max(0, -y), max(0, -x)
    framed[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return framed


def write_parquet(path: Path, outcomes: Iterator[Outcome]) -> None:
    """Write masks as one Parquet file: key, twin, height, width, counts (COCO run-length string), status, reasons.

    Masks are in the frame of the stored picture, as the ledger has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("key", pa.string()),
            ("twin", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("counts", pa.binary()),
            ("status", pa.string()),
            ("reasons", pa.list_(pa.string())),
        ]
    )
    part = write_part(path, b"")
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for o in outcomes:
            assert o.size is not None
            row = {"key": o.key, "twin": o.twin, "width": o.size[0], "height": o.size[1], "counts": o.rle}
            rows.append({**row, "status": o.status, "reasons": list(o.reasons)})
            if len(rows) == _PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))
    settle([(part, path)])
