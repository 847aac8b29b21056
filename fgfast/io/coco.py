"""Masks for other programs: COCO instances as JSON, and one Parquet file of run-length strings.

Both files are written from a stream of outcomes, some hundred at a time, so that a million outcomes take no more memory
than a thousand, and one pass over the ledger serves both.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from fgfast import ops
from fgfast.errors import MissingExtraError, OutputRefusedError
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Bool, Outcome, Size
from fgfast.writing import Target, replacing, scratch_file

# Annotations per batch: enough to amortise NumPy's cost per call, few enough to stay in the processor's cache.
_AT_ONCE = 256
_PARQUET_ROWS = 4096
# The annotations are appended to the images in pieces of this many bytes.
_COPY_BYTES = 1 << 20

_NO_SIZE = Size(0, 0)

Frame = Literal["twin", "original"]

Add = Callable[[Outcome], None]
"""Adds the next written image; calls follow the data set's order."""

_json = json.JSONEncoder(separators=(",", ":")).encode
"""Encodes a value as JSON without spaces, ASCII only."""


def check_parquet() -> None:
    """Raise MissingExtraError unless Parquet files can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "masks in one Parquet file (--masks rle)") from None


@contextlib.contextmanager
def instances(
    target: Target,
    labels: Mapping[str, str],
    classes: Sequence[str],
    source: str,
    frame: Frame = "twin",
    attributes: Callable[[Outcome], Mapping[str, str]] | None = None,
    polygons: Callable[[Outcome], list[list[int]]] | None = None,
) -> Iterator[Add]:
    """Write COCO instances: one image and one annotation per image that was written, as they are added.

    Image and annotation have the sample's number in the ledger, which never changes. Category ids count from 1 in the
    order of `classes`; images without a class get one more category. `area` is the mask's area in pixels; segmentations
    are compressed, column-major run-length strings; `score` is the segmenter's own estimate of the IoU; `flags` are the
    reasons to doubt the mask.

    Args:
        target: the JSON file; it exists, whole and durable, once the block ends without an error.
        frame: "twin" describes the twin's images, after cropping, "original" the data set's own.
        labels: key -> class name.
        classes: class names in the data set's order.
        source: name of the data set.
        attributes: gives the annotation of an outcome more, which datumaro and CVAT keep.
        polygons: gives its segmentation as polygons instead, x y x y ... in the same frame.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
    """
    info = {"description": f"Foreground masks of {source}, made with fgfast"}
    categories = _Categories(classes)
    waiting: list[tuple[Outcome, int]] = []
    # A million annotations are gigabytes: a file of their own holds them until the images are written.
    with replacing(target) as out, scratch_file(target.parent) as annotations:
        out.write(f'{{"info":{_json(info)},"licenses":[],"images":['.encode("ascii"))
        comma = ""

        def flush() -> None:
            nonlocal comma
            if waiting:
                out.write((comma + ",".join(_images(waiting, frame))).encode("ascii"))
                written = _annotations(waiting, frame, attributes, polygons)
                annotations.write((comma + ",".join(written)).encode("ascii"))
                comma = ","
                waiting.clear()

        def add(outcome: Outcome) -> None:
            waiting.append((outcome, categories.of(labels.get(outcome.key, ""))))
            if len(waiting) == _AT_ONCE:
                flush()

        yield add
        flush()
        out.write(b'],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, out, _COPY_BYTES)
        out.write(f'],"categories":{_json(categories.plain())}}}'.encode("ascii"))


class _Categories:
    """The ids of classes: from 1 on in their order; then those that left the data set since, and that of no class."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._numbers = {name: n for n, name in enumerate(classes, 1)}
        self._unlabelled = 0

    def of(self, label: str) -> int:
        """Return the id of a class, which is a new one where it has none; the empty text is no class."""
        if label:
            return self._numbers.setdefault(label, len(self._numbers) + 1 + bool(self._unlabelled))
        self._unlabelled = self._unlabelled or len(self._numbers) + 1
        return self._unlabelled

    def plain(self) -> list[dict[str, Any]]:
        """Return COCO's categories, by their ids."""
        named = [*self._numbers.items()]
        named += [(_unlabelled_name(self._numbers), self._unlabelled)] if self._unlabelled else []
        return [{"id": n, "name": name, "supercategory": ""} for name, n in sorted(named, key=itemgetter(1))]


def _unlabelled_name(classes: Collection[str]) -> str:
    """Return the name of the category of images without a class, which no class has."""
    name = "unlabelled"
    while name in classes:
        name += " (no class)"
    return name


def _size(outcome: Outcome, frame: Frame) -> Size:
    return (outcome.twin_size if frame == "twin" else outcome.size) or _NO_SIZE


def _images(images: Sequence[tuple[Outcome, int]], frame: Frame) -> Iterator[str]:
    """Yield COCO images; formatting them here takes a third of the time of `json.dumps`."""
    for outcome, _ in images:
        height, width = _size(outcome, frame)
        name = outcome.twin if frame == "twin" else outcome.key
        yield f'{{"id":{outcome.id},"file_name":{_json(name)},"width":{width},"height":{height}}}'


def _annotations(
    images: Sequence[tuple[Outcome, int]],
    frame: Frame,
    attributes: Callable[[Outcome], Mapping[str, str]] | None,
    polygons: Callable[[Outcome], list[list[int]]] | None,
) -> Iterator[str]:
    """Yield COCO annotations."""
    try:
        strings = [_counts_in_twin(outcome) if frame == "twin" else outcome.rle or b"" for outcome, _ in images]
        boxes, areas = boxes_and_areas(strings, [_size(outcome, frame) for outcome, _ in images])
    except ValueError as error:  # the ledger may be anybody's
        raise OutputRefusedError(
            f"the ledger is damaged (a mask between {images[0][0].key!r} and {images[-1][0].key!r} is none: {error}): "
            "delete the output and convert again, or choose another --out"
        ) from error
    rows = zip(images, strings, boxes.tolist(), areas.tolist(), strict=True)
    for (outcome, category), counts, (x0, y0, x1, y1), area in rows:
        height, width = _size(outcome, frame)
        score = "" if outcome.quality is None else f',"score":{_number(outcome.quality)}'
        flags = f',"flags":{_json(outcome.reasons)}' if outcome.reasons else ""
        more = f',"attributes":{_json(attributes(outcome))}' if attributes else ""
        runs = f'{{"size":[{height},{width}],"counts":{_json(counts.decode("ascii"))}}}'
        yield (
            f'{{"id":{outcome.id},"image_id":{outcome.id},"category_id":{category},'
            f'"bbox":[{x0}.0,{y0}.0,{x1 - x0}.0,{y1 - y0}.0],"area":{area},'
            f'"segmentation":{_json(polygons(outcome)) if polygons else runs},'
            f'"iscrowd":0{score}{flags}{more}}}'
        )


def _number(value: float) -> str:
    return float.__repr__(value) if type(value) is float and math.isfinite(value) else _json(value)


def _counts_in_twin(outcome: Outcome) -> bytes:
    """Return a written image's mask as a run-length string in the frame of the twin's image."""
    assert outcome.rle is not None
    if outcome.offset == (0, 0) and outcome.twin_size == outcome.size:
        return outcome.rle
    return ops.rle_encode(mask_in_twin(outcome))


def mask_in_twin(outcome: Outcome) -> Bool:
    """Return a written image's mask in the frame of the twin's image, (h, w) bool."""
    assert outcome.size is not None and outcome.twin_size is not None and outcome.rle is not None
    bits = ops.rle_decode(outcome.rle, outcome.size.height, outcome.size.width)
    (x, y), (height, width) = outcome.offset, outcome.twin_size
    framed = np.zeros((height, width), np.bool_)
    inside = bits[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    top, left = max(0, -y), max(0, -x)
    framed[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return framed


@contextlib.contextmanager
def parquet(target: Target) -> Iterator[Add]:
    """Write masks as one Parquet file: key, twin, height, width, counts (COCO run-length string), status, reasons.

    Masks are in the frame of the stored image, as in the ledger. A row group holds 4096 masks.

    Raises:
        OutputFailedError: the disk is full, read-only or failing.
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
    waiting: list[Outcome] = []
    with replacing(target) as out, pq.ParquetWriter(out, schema, compression="zstd") as writer:

        def flush() -> None:
            sizes = [o.size or _NO_SIZE for o in waiting]
            columns = [
                [o.key for o in waiting],
                [o.twin for o in waiting],
                [size.height for size in sizes],
                [size.width for size in sizes],
                [o.rle for o in waiting],
                [o.status for o in waiting],
                [o.reasons for o in waiting],
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            waiting.clear()

        def add(outcome: Outcome) -> None:
            waiting.append(outcome)
            if len(waiting) == _PARQUET_ROWS:
                flush()

        yield add
        flush()
