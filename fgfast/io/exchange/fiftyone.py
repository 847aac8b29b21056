"""A FiftyOne data set as JSON, for `Dataset.from_json` and from `write_json`: a detection with a mask per image.

Masks are arrays of NumPy's file format, compressed with zlib, in base64, as FiftyOne stores them. A mask covers its
box, whose corners are shares of the image's width and height.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.errors import UsageError
from fgfast.io.exchange.found import KEY, NO_CLASS, STATE, Found, Mask, rle_within, size_of, text_of
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Bool, Outcome, Size

FIELD = "foreground"
_FIELDS = {
    FIELD: "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.Detections)",
    KEY: "fiftyone.core.fields.StringField",
    STATE: "fiftyone.core.fields.StringField",
}
# NumPy writes headers of 128 bytes for a matrix.
_HEADER_BYTES = 4096
# FiftyOne's own precision: a corner further from a pixel's than this is a box that was moved.
_ON_THE_GRID = 0.01


def write(
    outcomes: Iterable[Outcome], labels: Mapping[str, str], state: Callable[[Outcome], str], name: str
) -> Iterator[bytes]:
    """Yield the file in pieces: a sample per outcome; names are below the folder that `from_json` gets as `rel_dir`."""
    head = {"name": f"fgfast-{name}", "media_type": "image", "sample_fields": _FIELDS, "info": {}}
    yield json.dumps(head, separators=(",", ":"))[:-1].encode() + b',"samples":['
    comma = ""
    for outcome in outcomes:
        assert outcome.rle is not None and outcome.size is not None
        (x0, y0, x1, y1), *_ = boxes_and_areas([outcome.rle], [outcome.size])[0].tolist()
        height, width = outcome.size
        (left, wide), (top, high) = _shares(x0, x1, width), _shares(y0, y1, height)
        detection = {
            "_cls": "Detection",
            "label": labels.get(outcome.key) or NO_CLASS,
            "bounding_box": [left, top, wide, high],
            "mask": _text(ops.rle_decode(outcome.rle, *outcome.size)[y0:y1, x0:x1]),
        }
        sample = {
            "filepath": outcome.key,
            "metadata": {"_cls": "ImageMetadata", "width": width, "height": height},
            FIELD: {"_cls": "Detections", "detections": [detection]},
            KEY: outcome.key,
            STATE: state(outcome),
        }
        yield f"{comma}\n{json.dumps(sample, separators=(',', ':'))}".encode()
        comma = ","
    yield b"\n]}"


def read(content: Any, sizes: Mapping[str, Size]) -> Iterator[Found]:
    """Yield what a file of FiftyOne says about each of its images.

    Args:
        content: the JSON value.
        sizes: of the known images.

    Raises:
        UsageError: it is no such file.
    """
    samples = content["samples"]
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        raise UsageError("the file is no data set of FiftyOne: its samples are no list of samples")
    for sample in samples:
        name = text_of(sample.get(KEY)) or text_of(sample.get("filepath"))
        try:
            yield _found(name, sample, sizes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield Found(name, None, (), f"its sample is not understood ({type(error).__name__}: {error})")


def _found(name: str, sample: dict[str, Any], sizes: Mapping[str, Size]) -> Found:
    metadata = sample.get("metadata") or {}
    size = size_of(metadata.get("height"), metadata.get("width"))
    if size is None or sizes.get(name) != size:
        return Found(name, size, (), "" if size else "its height and width are missing: compute_metadata() adds them")
    detections = (sample.get(FIELD) or {"detections": []})["detections"]
    return Found(name, size, tuple(_mask(each, size) for each in detections), state=text_of(sample.get(STATE)))


def _mask(detection: dict[str, Any], size: Size) -> Mask:
    label, mask = text_of(detection.get("label")), detection.get("mask")
    if isinstance(mask, dict) and isinstance(mask.get("$binary"), dict):  # as `write_json` writes it
        mask = mask["$binary"].get("base64")
    if not isinstance(mask, str):
        return Mask(label, None, "it has a detection without a mask")
    try:
        x, y, wide, high = (float(share) for share in detection["bounding_box"])
        corners = [x * size.width, y * size.height, (x + wide) * size.width, (y + high) * size.height]
        if not all(math.isfinite(c) and abs(c - round(c)) < _ON_THE_GRID for c in corners):
            return Mask(label, None, "its box is not on whole pixels: the mask would be resized")
        x0, y0, x1, y1 = (round(corner) for corner in corners)
        bits = _bits(mask, size)
        if bits.shape != (y1 - y0, x1 - x0):
            return Mask(label, None, "its mask has another size than its box: it would be resized")
        return Mask(label, rle_within(bits, size, x0, y0))
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        return Mask(label, None, f"its mask is damaged: {error}")


def _shares(start: int, end: int, side: int) -> tuple[float, float]:
    """Return start and length of an interval of pixels as shares of a side, which FiftyOne's arithmetic takes back.

    FiftyOne cuts off what is behind the point of `side * share`, so that 0.3 * 10 may be pixel 2.
    """
    first = start / side
    while int(side * first) < start:
        first = math.nextafter(first, math.inf)
    length = end / side - first
    while int(side * (first + length)) < end:
        length = math.nextafter(length, math.inf)
    return first, length


def _text(bits: Bool) -> str:
    with io.BytesIO() as file:
        np.save(file, np.ascontiguousarray(bits), allow_pickle=False)
        return base64.b64encode(zlib.compress(file.getvalue())).decode("ascii")


def _bits(text: str, size: Size) -> Bool:
    """Return the array (h, w) of a mask, at most as large as the image.

    Raises:
        ValueError, zlib.error: it is none.
    """
    packed = base64.b64decode(text, validate=True)
    file = io.BytesIO(zlib.decompressobj().decompress(packed, _HEADER_BYTES + size.height * size.width))
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is no array of NumPy's format 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 2 or dtype not in (np.bool_, np.uint8):
        raise ValueError(f"it is no matrix of bool or uint8, but of {len(shape)} dimensions of {dtype}")
    found = np.frombuffer(file.read(), np.uint8)
    bits: Bool = found.reshape(shape, order="F" if by_columns else "C") != 0
    return bits
