"""The rows of a pack, which may be anybody's: every value is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fgfast.files import FileStamp
from fgfast.io.ledger_paths import is_below
from fgfast.io.pixels import MAX_PIXELS
from fgfast.ops.runs import boxes_and_areas
from fgfast.records import Outcome, Size

PACKED = "pack"
"""The last stage of an image that was made from a pack: its flags are those of the pack."""
MOST_MASK = 1 << 25
"""Bytes of a mask: a checkerboard of 20 megapixels."""
# Characters of a short text, and of a long one: a sentence, the boxes that were not chosen.
_SHORT, _LONG = 1 << 10, 1 << 16
_MOST_REASONS, _MOST_NUMBERS, _LARGEST = 64, 256, 1e30
_TEXTS = {"detail": _LONG, "others": _LONG, "numbers": _LONG, "box_reason": _SHORT, "box_name": _SHORT}
_STATUSES = ("done", "flagged", "skipped")


def outcomes_of(rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
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
    _check(short and len(row["mask"]) <= MOST_MASK, f"the reasons or the mask of {key!r} are too long")
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
    right = isinstance(found, (list, dict)) and isinstance(found, kind) and len(found) <= _MOST_NUMBERS
    boxes = isinstance(found, dict) or (right and all(isinstance(one, list) and len(one) == 6 for one in found))
    _check(right and boxes, f"the numbers of {key!r} are none")
    return found


def _finite(value: Any) -> float:
    _check(type(value) in (int, float) and abs(value) < _LARGEST, "a number is none")
    return float(value)


def _check(true: object, what: str) -> None:
    if not true:
        raise ValueError(what)
