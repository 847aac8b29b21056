"""VOC XML files, with the size and the objects of one image, for Oxford-IIIT Pet and Stanford Dogs."""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ET
from pathlib import PurePosixPath

from fgfast.data_paths import AnyPath
from fgfast.datasets.annotation_files import (
    Box,
    move_box,
    numbers_of,
    pixels_from_box,
    read_bytes,
    short,
    write_bytes,
)
from fgfast.datasets.layout import ImagePlacement
from fgfast.errors import DatasetError
from fgfast.writing import Target

# 1-based pixels, both ends inclusive: Everingham & Winn, The PASCAL VOC2012 Development Kit, section 4.
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(r"<\?xml\s[^?>]*\?>")
_ENCODING = re.compile(r"\sencoding\s*=\s*[\"']([^\"']*)")
_ENCODINGS = ("utf-8", "utf8", "utf-16", "ascii", "us-ascii")  # ASCII is UTF-8, too
_DEEPEST = 20


def _parse(path: AnyPath) -> ET.Element:
    text = _text(path, read_bytes(path, "voc"))
    if "<!DOCTYPE" in text:  # entities, and defaults of attributes, multiply what is written once
        raise DatasetError(path, "it has a <!DOCTYPE ...>, which no VOC file needs; remove it")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise DatasetError(path, f"malformed XML: {error}") from None
    level, depth = [root], 0
    while level:
        level, depth = [child for element in level for child in element], depth + 1
        if depth > _DEEPEST:
            raise DatasetError(path, f"its elements are nested more than {_DEEPEST} deep; those of VOC are 4 deep")
    return root


def _text(path: AnyPath, content: bytes) -> str:
    """Return XML as text without its declaration; raise DatasetError unless it is UTF-8, or UTF-16 with its mark.

    The parser gets text, so that no declaration makes it read other characters than those that were checked.
    """
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"expected XML in UTF-8 or UTF-16: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise DatasetError(path, "expected XML in UTF-8 or UTF-16: it has zero bytes")
    declaration = _DECLARATION.match(text)
    if declaration is None:
        return text
    stated = _ENCODING.search(declaration[0])
    if stated is not None and stated[1].lower() not in _ENCODINGS:
        raise DatasetError(path, f"expected XML in UTF-8 or UTF-16, not {short(stated[1])}; save it as UTF-8")
    return text[declaration.end() :]


def _box(path: AnyPath, element: ET.Element) -> Box | None:
    """Return the box of one object, None where it has no area. Stanford Dogs has zeros, which count as ones."""
    box = element.find("bndbox")
    if box is None:
        raise DatasetError(path, "expected a <bndbox> in each <object>")
    xmin, ymin, xmax, ymax = numbers_of(path, None, (box.findtext(corner) for corner in _CORNERS))
    x0, y0 = max(xmin - 1, 0.0), max(ymin - 1, 0.0)
    return (x0, y0, xmax, ymax) if xmax > x0 and ymax > y0 else None


def read_voc(path: AnyPath) -> list[Box]:
    """Read the boxes of all objects, x0 y0 x1 y1 in continuous pixels."""
    found = (_box(path, element) for element in _parse(path).iter("object"))
    return [box for box in found if box is not None]


def _move(path: AnyPath, root: ET.Element, placement: ImagePlacement) -> None:
    """Move all objects with the crop; objects outside it are removed."""
    for element in root.findall("object"):
        box = _box(path, element)
        moved = None if box is None else move_box(box, placement)
        if box is None or moved is None or moved[2] <= moved[0] or moved[3] <= moved[1]:
            root.remove(element)
            continue
        for corner, pixel in zip(_CORNERS, pixels_from_box(box, placement), strict=True):
            node = element.find(f"bndbox/{corner}")
            assert node is not None  # _box has read it
            node.text = str(pixel)
    for side, pixels in zip(("height", "width"), placement.size, strict=True):
        node = root.find(f"size/{side}")
        if node is not None:
            node.text = str(pixels)


def rewrite_voc(source: AnyPath, target: Target, placement: ImagePlacement) -> Target:
    """Write the VOC file of the twin's image: its name, its size, and its objects, moved with the crop."""
    root = _parse(source)
    name = root.find("filename")
    if name is not None and PurePosixPath(name.text or "").suffix.lower() in (".jpg", ".jpeg"):
        name.text = PurePosixPath(placement.key).name
    if placement.moved:
        _move(source, root, placement)
    return write_bytes(target, ET.tostring(root, "utf-8", xml_declaration=False) + b"\n", sync=False)
