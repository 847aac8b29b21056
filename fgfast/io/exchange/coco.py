"""COCO instances, read: run-length strings, or their numbers. `fgfast.io.coco` writes them.

Polygons are read on request only: no tool keeps every pixel in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.errors import UsageError
from fgfast.io.exchange.found import STATE, Found, Mask, rle_of_columns, size_of, text_of
from fgfast.ops.polygons import polygon_mask
from fgfast.records import Size

# Drawing takes memory along the outline. Tools round corners, and put some just outside; the outline of a subject is
# far shorter than this.
_FAR = 2
_LONGEST_OUTLINE = 1_000_000


def read(content: Any, sizes: Mapping[str, Size], polygons: bool = False) -> Iterator[Found]:
    """Yield what a COCO file says about each of its images.

    Args:
        content: the JSON value.
        sizes: of the known images.
        polygons: whether polygons are taken, too, drawn as COCO's own tools draw them.

    Raises:
        UsageError: it is no COCO file.
    """
    try:
        images: list[dict[str, Any]] = content["images"]
        masks: dict[object, list[dict[str, Any]]] = {image["id"]: [] for image in images}
        labels = {each["id"]: str(each["name"]) for each in content.get("categories", ())}
        for annotation in content["annotations"]:
            if annotation["image_id"] in masks:
                masks[annotation["image_id"]].append(annotation)
        named = [(str(image["file_name"]), image) for image in images]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the file is no COCO file of instances ({type(error).__name__}: {error})") from None
    for name, image in named:
        size = size_of(image.get("height"), image.get("width"))
        if size is None or sizes.get(name) != size:  # nothing is allocated for a size that is only claimed
            yield Found(name, size, (), "" if size else "its height and width are missing")
            continue
        annotations = masks[image["id"]]
        found = [_mask(each.get("segmentation"), _label(labels, each), size, polygons) for each in annotations]
        attributes = [each.get("attributes") for each in annotations]
        states = {text_of(each.get(STATE)) for each in attributes if isinstance(each, dict)}
        yield Found(name, size, tuple(found), state=states.pop() if len(states) == 1 else "")


def _label(labels: Mapping[object, str], annotation: Mapping[str, Any]) -> str:
    number = annotation.get("category_id")
    return labels.get(number, "") if isinstance(number, int) else ""


def _mask(mask: Any, label: str, size: Size, polygons: bool) -> Mask:
    try:
        if isinstance(mask, list) and mask:
            if not polygons:
                return Mask(label, None, "its mask is no run-length string, but a polygon; --lossy takes it")
            return Mask(label, _drawn(mask, size), drawn=True)
        if not isinstance(mask, dict):
            return Mask(label, None, "it has no mask, neither run lengths nor polygons")
        if mask.get("size") != [size.height, size.width]:
            return Mask(label, None, "its mask has another size than the image in the same file")
        counts = mask.get("counts")
        if isinstance(counts, list):
            return Mask(label, rle_of_columns(counts, size))
        if isinstance(counts, str):
            return Mask(label, counts.encode("ascii"))
    except (ValueError, TypeError, OverflowError) as error:
        return Mask(label, None, str(error))
    return Mask(label, None, "its mask has no run lengths")


def _drawn(polygons: list[Any], size: Size) -> bytes:
    """Return the mask inside polygons, as pycocotools draws them.

    Raises:
        ValueError, TypeError, OverflowError: they are none.
    """
    bits = np.zeros(size, np.bool_)
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError("a polygon of it has fewer than three points")
        if not np.isfinite(points).all() or np.abs(points).max() > _FAR * max(size):
            raise ValueError("a polygon of it has points far outside the image")
        corners = points.reshape(-1, 2)
        if np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum() > _LONGEST_OUTLINE:
            raise ValueError(f"the outline of a polygon is longer than {_LONGEST_OUTLINE:,} pixels")
        bits |= polygon_mask(corners, size)
    return ops.rle_encode(bits)
