"""CVAT for images 1.1: XML with an element `mask` per mask.

Its run lengths are row-major within the mask's box, background first, as CVAT writes and reads them
(cvat/apps/dataset_manager/formats/cvat.py and transformers.py).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from xml.sax.saxutils import quoteattr

import numpy as np

from fgfast.errors import UsageError
from fgfast.io.exchange.found import Found, rle_of_rows, size_of
from fgfast.ops import rle_decode
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Outcome, Size

# Characters that XML 1.0 cannot hold, not even escaped, and surrogates.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SHAPES = ("mask", "polygon", "box", "ellipse", "polyline", "points", "cuboid", "skeleton")
# More digits are no number of pixels; Python refuses those of more than 4,300.
_NUMBER = re.compile(r"\d{1,15}")


def write(outcomes: Iterable[Outcome], labels: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the file in pieces: one image and one mask per outcome, with the stored image's name and size.

    Raises:
        UsageError: a name cannot stand in XML.
    """
    yield b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    for outcome in outcomes:
        assert outcome.rle is not None and outcome.size is not None
        name, label = outcome.key, labels.get(outcome.key) or "subject"
        if _NOT_IN_XML.search(name + label):
            raise UsageError(f"the name {name!r} ({label!r}) has a character that XML cannot hold: choose --to coco")
        (x0, y0, x1, y1), *_ = boxes_and_areas([outcome.rle], [outcome.size])[0].tolist()
        bits = rle_decode(outcome.rle, *outcome.size)[y0:y1, x0:x1].ravel()
        changes = np.flatnonzero(np.diff(bits, prepend=False))
        runs = np.diff(changes, prepend=0, append=len(bits)).tolist()
        height, width = outcome.size
        mask = (
            f'<mask label={quoteattr(label)} source="manual" occluded="0" rle="{", ".join(map(str, runs))}" '
            f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}" z_order="0"></mask>'
        )
        image = f'<image id="{outcome.id}" name={quoteattr(name)} width="{width}" height="{height}">'
        yield f"{image}{mask}</image>\n".encode()
    yield b"</annotations>\n"


def read(data: bytes, sizes: Mapping[str, Size]) -> Iterator[Found]:
    """Yield what a CVAT file says about each of its images; `sizes` are those of the known images.

    Raises:
        UsageError: it is no CVAT file.
    """
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text:  # entities multiply what is written once
            raise UsageError("the file has a <!DOCTYPE ...>, which no CVAT file needs; remove it")
        root = ET.fromstring(text.split("?>", 1)[1] if text.startswith("<?xml") else text)
    except (ET.ParseError, ValueError, IndexError) as error:
        raise UsageError(f"the file is no CVAT file ({error})") from None
    if root.tag != "annotations":
        raise UsageError(f"the file is no CVAT file: its root is <{root.tag[:40]}>, not <annotations>")
    for image in root.iter("image"):
        yield _found(image, sizes)


def _found(image: ET.Element, sizes: Mapping[str, Size]) -> Found:
    name = image.get("name", "")
    size = size_of(_number(image.get("height")), _number(image.get("width")))
    shapes = list(chain.from_iterable(image.iter(kind) for kind in _SHAPES))
    if len(shapes) != 1 or shapes[0].tag != "mask":
        return Found(name, size, None, f"it has {len(shapes)} shapes; one is needed, a mask")
    if size is None or sizes.get(name) != size:  # nothing is allocated for a size that is only claimed
        return Found(name, size, None, "" if size else "its height and width are missing")
    mask = shapes[0]
    frame = size_of(_number(mask.get("height")), _number(mask.get("width")))
    left, top = _number(mask.get("left")), _number(mask.get("top"))
    if frame is None or left is None or top is None:
        return Found(name, size, None, "its mask has no box")
    try:
        runs = [_number(run.strip()) for run in mask.get("rle", "").split(",")]
        return Found(name, size, rle_of_rows(runs, frame, size, left, top))
    except ValueError as error:
        return Found(name, size, None, str(error))


def _number(text: str | None) -> int | None:
    return int(text) if text and _NUMBER.fullmatch(text) and text.isascii() else None
