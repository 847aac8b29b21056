"""Label Studio's tasks as JSON: a brush annotation per image, with the run lengths of label-studio-sdk.

The run lengths (label_studio_sdk/converter/brush.py) are bits: 32 for the number of values, 5 for the bits of a value
less one, four times 4 for the bits of the four kinds of lengths less one; then per run a bit (1: one value repeated, 0:
each value written), 2 for the kind of its length, the length less one, and the value or values. The values are the four
channels of each pixel, row-major; the fourth is the mask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from fgfast import ops
from fgfast.errors import UsageError
from fgfast.io.exchange.found import KEY, NO_CLASS, STATE, Found, Mask, size_of, text_of
from fgfast.records import Bool, Outcome, Size

_CHANNELS = 4
# The four kinds of lengths of label-studio-sdk, in bits.
_LENGTHS = (3, 4, 8, 16)
_VALUE_BITS = 8
_SUBJECT = 255
# A brush has soft edges in Label Studio: a pixel belongs to the subject from half opacity.
_OPAQUE = 128
_HEADER_BITS = 32 + 5 + 4 * 4


def write(outcomes: Iterable[Outcome], labels: Mapping[str, str], state: Callable[[Outcome], str]) -> Iterator[bytes]:
    """Yield the file in pieces: a task per outcome, with the stored image's size. Images are local files of its server.

    Its labelling configuration needs `<Image name="image" value="$image"/>` and `<BrushLabels name="mask"
    toName="image">` with the classes.
    """
    comma = "["
    for outcome in outcomes:
        assert outcome.rle is not None and outcome.size is not None
        bits = ops.rle_decode(outcome.rle, *outcome.size)
        result = {
            "id": str(outcome.id),
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            "original_width": outcome.size.width,
            "original_height": outcome.size.height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": list(encoded(bits)),
                "brushlabels": [labels.get(outcome.key) or NO_CLASS],
            },
        }
        image = "/data/local-files/?d=" + quote(outcome.key, errors="surrogateescape")
        data = {"image": image, KEY: outcome.key, STATE: state(outcome)}
        task = {"data": data, "annotations": [{"result": [result]}]}
        yield f"{comma}\n{json.dumps(task, separators=(',', ':'))}".encode()
        comma = ","
    yield b"[]" if comma == "[" else b"\n]"


def read(content: Any, sizes: Mapping[str, Size]) -> Iterator[Found]:
    """Yield what Label Studio's export (JSON, not JSON-MIN) says about each of its images.

    Args:
        content: the JSON value.
        sizes: of the known images.

    Raises:
        UsageError: it is no such export.
    """
    if not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content):
        raise UsageError("the file is no export of Label Studio: each task has data (choose JSON there, not JSON-MIN)")
    for task in content:
        name = text_of(task["data"].get(KEY))
        try:
            yield _found(name, task, sizes)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            yield Found(name, None, (), f"its annotation is not understood ({type(error).__name__}: {error})")


def _found(name: str, task: dict[str, Any], sizes: Mapping[str, Size]) -> Found:
    if not name:
        return Found(text_of(task["data"].get("image")), None, (), f"its task has no {KEY}, which the export gave it")
    annotations = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
    if len(annotations) > 1:
        return Found(name, None, (), f"it has {len(annotations)} annotations; one is needed")
    results = [each for one in annotations for each in one["result"] if "rle" in each["value"]]
    found = {size_of(each.get("original_height"), each.get("original_width")) for each in results}
    size = found.pop() if len(found) == 1 else None
    if results and size is None:
        return Found(name, None, (), "its height and width are missing")
    if size is None or sizes.get(name) != size:
        return Found(name, size)
    masks = tuple(_mask(each["value"], size) for each in results)
    return Found(name, size, masks, state=text_of(task["data"].get(STATE)))


def _mask(value: dict[str, Any], size: Size) -> Mask:
    labels = value.get("brushlabels")
    label = text_of(labels[0]) if isinstance(labels, list) and len(labels) == 1 else ""
    try:
        return Mask(label, ops.rle_encode(decoded(bytes(list(value["rle"])), size)))
    except (ValueError, TypeError) as error:
        return Mask(label, None, f"its run lengths are damaged: {error}")


def encoded(bits: Bool) -> bytes:
    """Return a mask (H, W) as label-studio-sdk's `mask2rle` encodes it, byte for byte."""
    flat = np.repeat(bits.ravel(), _CHANNELS)
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    runs = np.diff(starts, append=flat.size).tolist()
    values = [f"{_SUBJECT if flat[start] else 0:08b}" for start in starts[:2].tolist()]
    parts = [f"{flat.size:032b}{_VALUE_BITS - 1:05b}", *(f"{length - 1:04b}" for length in _LENGTHS)]
    for place, run in enumerate(runs):
        value = values[place % 2]
        longest = 1 << _LENGTHS[-1]
        while run > longest:
            parts.append(f"111{longest - 1:016b}{value}")
            run -= longest
        kind = next(kind for kind, length in enumerate(_LENGTHS) if run <= 1 << length)
        parts.append(f"1{kind:02b}{run - 1:0{_LENGTHS[kind]}b}{value}")
    text = "".join(parts)
    text += "0" * (8 - len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def decoded(data: bytes, size: Size) -> Bool:
    """Return the mask (H, W) of Label Studio's run lengths.

    Raises:
        ValueError: they do not cover the image.
    """
    text = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    pixels = _CHANNELS * size.height * size.width
    if len(text) < _HEADER_BITS or int(text[:32], 2) != pixels:
        raise ValueError(f"they are not those of {size.width} x {size.height} pixels")
    wide = int(text[32:37], 2) + 1
    lengths = [int(text[at : at + 4], 2) + 1 for at in range(37, _HEADER_BITS, 4)]
    values, runs, at, left = [], [], _HEADER_BITS, pixels
    while left > 0:
        length = lengths[int(text[at + 1 : at + 3] or "0", 2)]
        start = at + 3 + length
        if start + wide > len(text):
            raise ValueError("they end too early")
        run = min(int(text[at + 3 : start], 2) + 1, left)
        if text[at] == "1":
            values.append(int(text[start : start + wide], 2))
            runs.append(run)
            at = start + wide
        else:
            at = start + run * wide
            if at > len(text):
                raise ValueError("they end too early")
            values += [int(text[each : each + wide], 2) for each in range(start, at, wide)]
            runs += [1] * run
        left -= run
    channels = np.repeat(np.array(values) >= _OPAQUE, runs).reshape(*size, _CHANNELS)
    return np.ascontiguousarray(channels[:, :, _CHANNELS - 1])
