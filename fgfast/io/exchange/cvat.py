"""CVAT for images 1.1: XML with an element `mask` per mask.

Its run lengths are row-major within the mask's box, background first, as CVAT writes and reads them
(cvat/apps/dataset_manager/formats/cvat.py and transformers.py).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from fgfast.errors import UsageError
from fgfast.io.exchange.found import NO_CLASS, STATE, Found, Mask, rle_of_rows, size_of
from fgfast.ops import rle_decode
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Outcome, Size

# Characters that XML 1.0 cannot hold, not even escaped, and surrogates.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SHAPES = ("mask", "polygon", "box", "ellipse", "polyline", "points", "cuboid", "skeleton")
# More digits are no number of pixels; Python refuses those of more than 4,300.
_NUMBER = re.compile(r"\d{1,15}")


def write(outcomes: Iterable[Outcome], labels: Mapping[str, str], state: Callable[[Outcome], str]) -> Iterator[bytes]:
    """Yield the file in pieces: one image and one mask per outcome, with the stored image's name and size.

    The state is an attribute of the mask. CVAT keeps it where the label has an attribute of this name.

    Raises:
        UsageError: a name cannot stand in XML.
    """
    yield b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    yield _meta(sorted({*labels.values(), NO_CLASS}))
    for outcome in outcomes:
        assert outcome.rle is not None and outcome.size is not None
        name, label = outcome.key, labels.get(outcome.key) or NO_CLASS
        if _NOT_IN_XML.search(name + label):
            raise UsageError(f"the name {name!r} ({label!r}) has a character that XML cannot hold: choose --to coco")
        (x0, y0, x1, y1), *_ = boxes_and_areas([outcome.rle], [outcome.size])[0].tolist()
        bits = rle_decode(outcome.rle, *outcome.size)[y0:y1, x0:x1].ravel()
        changes = np.flatnonzero(np.diff(bits, prepend=False))
        runs = np.diff(changes, prepend=0, append=len(bits)).tolist()
        height, width = outcome.size
        mask = (
            f'<mask label={quoteattr(label)} source="manual" occluded="0" rle="{", ".join(map(str, runs))}" '
            f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}" z_order="0">'
            f'<attribute name="{STATE}">{state(outcome)}</attribute></mask>'
        )
        image = f'<image id="{outcome.id}" name={quoteattr(name)} width="{width}" height="{height}">'
        yield f"{image}{mask}</image>\n".encode()
    yield b"</annotations>\n"


def _meta(labels: list[str]) -> bytes:
    """Return the labels, each with the attribute for the state, as CVAT writes them."""
    attribute = f"<attribute><name>{STATE}</name><mutable>False</mutable><input_type>text</input_type>"
    attribute += "<default_value></default_value><values></values></attribute>"
    named = "".join(
        f"<label><name>{escape(label)}</name><attributes>{attribute}</attributes></label>"
        for label in labels
        if not _NOT_IN_XML.search(label)  # refused where an image has it
    )
    return f"<meta><task><labels>{named}</labels></task></meta>\n".encode()


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
    if size is None or sizes.get(name) != size:  # nothing is allocated for a size that is only claimed
        return Found(name, size, (), "" if size else "its height and width are missing")
    states = {each.text or "" for each in image.iter("attribute") if each.get("name") == STATE}
    state = states.pop() if len(states) == 1 else ""
    return Found(name, size, tuple(_mask(shape, size) for shape in shapes), state=state)


def _mask(shape: ET.Element, size: Size) -> Mask:
    label = shape.get("label", "")
    if shape.tag != "mask":
        return Mask(label, None, f"it has a shape that is no mask, but a {shape.tag}")
    frame = size_of(_number(shape.get("height")), _number(shape.get("width")))
    left, top = _number(shape.get("left")), _number(shape.get("top"))
    if frame is None or left is None or top is None:
        return Mask(label, None, "its mask has no box")
    try:
        runs = [_number(run.strip()) for run in shape.get("rle", "").split(",")]
        return Mask(label, rle_of_rows(runs, frame, size, left, top))
    except ValueError as error:
        return Mask(label, None, str(error))


def _number(text: str | None) -> int | None:
    return int(text) if text and _NUMBER.fullmatch(text) and text.isascii() else None
