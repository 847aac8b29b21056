"""COCO instances, read: run-length strings, or their numbers. `fgfast.io.coco` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fgfast.errors import UsageError
from fgfast.io.exchange.found import Found, rle_of_columns, size_of
from fgfast.records import Size


def read(data: bytes, sizes: Mapping[str, Size]) -> Iterator[Found]:
    """Yield what a COCO file says about each of its images; `sizes` are those of the known images.

    Raises:
        UsageError: it is no COCO file.
    """
    try:
        content = json.loads(data)
        images: list[dict[str, Any]] = content["images"]
        masks: dict[object, list[Any]] = {image["id"]: [] for image in images}
        for annotation in content["annotations"]:
            if annotation["image_id"] in masks:
                masks[annotation["image_id"]].append(annotation.get("segmentation"))
        named = [(str(image["file_name"]), image) for image in images]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"the file is no COCO file of instances ({type(error).__name__}: {error})") from None
    for name, image in named:
        yield _found(name, size_of(image.get("height"), image.get("width")), masks[image["id"]])


def _found(name: str, size: Size | None, masks: list[Any]) -> Found:
    if len(masks) != 1:
        return Found(name, size, None, f"it has {len(masks)} masks; one is needed")
    mask = masks[0]
    if size is None:
        return Found(name, size, None, "its height and width are missing")
    if not isinstance(mask, dict):
        return Found(name, size, None, "its mask is no run-length string, but a polygon: pixels would be guessed")
    if mask.get("size") != [size.height, size.width]:
        return Found(name, size, None, "its mask has another size than the image in the same file")
    counts = mask.get("counts")
    try:
        if isinstance(counts, list):
            return Found(name, size, rle_of_columns(counts, size))
        if isinstance(counts, str):
            return Found(name, size, counts.encode("ascii"))
    except ValueError as error:
        return Found(name, size, None, str(error))
    return Found(name, size, None, "its mask has no run lengths")
