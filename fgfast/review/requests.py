"""What is in a request, checked: numbers of entries, queries, decisions, clicks. All of it may be hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgfast.errors import UnknownNameError, UsageError
from fgfast.io.decisions import CAUSES
from fgfast.records import Float32, Size
from fgfast.review.entries import Query
from fgfast.review.images import KINDS, LARGEST_SIDE, SMALLEST_SIDE

MOST_ITEMS = 200
"""Entries in one answer."""
MOST_AT_ONCE = 10_000
"""Entries that are decided, or put off, at once."""
MOST_POINTS = 100
"""Points in one request for a mask."""
_VERDICTS = ("accept", "reject", "mask")
_LONGEST_HOW, _LONGEST_NOTE = 100, 10_000
_LONGEST_TEXT = 1000
# Numbers of entries and decisions that a file can hold.
_LARGEST_NUMBER = 1 << 62


def content(body: bytes) -> dict[str, Any]:
    """Return the object in the body of a request.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        found = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is no JSON ({str(error)[:200]})") from None
    if not isinstance(found, dict):
        raise UsageError("the request must be a JSON object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def number(value: Any, name: str, most: int = _LARGEST_NUMBER) -> int:
    """Return a whole number from 0 to `most`, given as one or, in an address, as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise UsageError(f"{name} must be a whole number from 0 to {most}, not {str(value)[:50]!r}")
    return value


def numbers(values: Any, name: str, most: int) -> list[int]:
    """Return whole numbers, at most so many, each once."""
    if not isinstance(values, list) or len(values) > most:
        raise UsageError(f"{name} must be a list of at most {most:,} numbers")
    return list(dict.fromkeys(number(value, name) for value in values))


def item_numbers(text: str) -> list[int]:
    """Return the numbers in `ids=1,2,3`."""
    if len(text) > 20 * MOST_ITEMS:
        raise UsageError(f"ids must be at most {MOST_ITEMS} numbers")
    return numbers(text.split(",") if text else [], "ids", MOST_ITEMS)


def query(asked: Mapping[str, str]) -> Query:
    """Return the query in an address."""
    for name, value in asked.items():
        if len(value) > _LONGEST_TEXT:
            raise UsageError(f"{name} has {len(value):,} characters; at most {_LONGEST_TEXT} are taken")
    cause = asked.get("cause", "")
    if cause not in ("", *CAUSES):
        raise UnknownNameError("cause", cause, CAUSES)
    return Query(
        order=asked.get("order") or "doubt",
        flag=asked.get("flag", ""),
        cause=cause,
        # An empty class is one, too: that of samples without.
        label=asked["class"] if asked.get("class") else None,
        split=asked["split"] if asked.get("split") else None,
        status=asked.get("status", ""),
        decided=asked.get("decided", ""),
        text=asked.get("q", ""),
    )


def image(asked: Mapping[str, str]) -> tuple[str, int]:
    """Return kind and longer side of the image that is asked for."""
    kind = asked.get("kind", "source")
    if kind not in KINDS:
        raise UnknownNameError("kind of image", kind, KINDS)
    side = number(asked.get("side", str(LARGEST_SIDE)), "side", LARGEST_SIDE)
    if side < SMALLEST_SIDE:
        raise UsageError(f"side must be {SMALLEST_SIDE} to {LARGEST_SIDE}, not {side}")
    return kind, side


def text(value: Any, name: str, most: int) -> str:
    """Return a text of at most so many characters."""
    if not isinstance(value, str) or len(value) > most:
        raise UsageError(f"{name} must be a text of at most {most:,} characters")
    return value.encode("utf-8", "replace").decode()  # halves of characters are not stored


def box(value: Any) -> Float32:
    """Return a box, (4,) float32 x0 y0 x1 y1 in pixels; it may reach beyond the image."""
    if not isinstance(value, list) or len(value) != 4:
        raise UsageError("a box must be four numbers: x0, y0, x1, y1")
    x0, y0, x1, y1 = (_coordinate(edge) for edge in value)
    if x1 <= x0 or y1 <= y0:
        raise UsageError(f"a box needs x0 < x1 and y0 < y1, not {[x0, y0, x1, y1]}")
    return np.array([x0, y0, x1, y1], np.float32)


def points(value: Any, size: Size) -> list[tuple[float, float, int]]:
    """Return points inside the image: x, y, and 1 for subject or 0 for background."""
    if not isinstance(value, list) or len(value) > MOST_POINTS:
        raise UsageError(f"points must be a list of at most {MOST_POINTS}")
    found = []
    for one in value:
        if not isinstance(one, list) or len(one) != 3 or one[2] not in (0, 1):
            raise UsageError("a point must be [x, y, 1 for subject or 0 for background]")
        x, y = _coordinate(one[0]), _coordinate(one[1])
        if not (0 <= x <= size.width and 0 <= y <= size.height):
            raise UsageError(f"the point {x:g}, {y:g} is outside the image of {size.width} x {size.height} pixels")
        found.append((x, y, int(one[2])))
    return found


def _coordinate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > 1e6:
        raise UsageError(f"a coordinate must be a number of pixels, not {str(value)[:50]!r}")
    return float(value)


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A decision that a person wants.

    Attributes:
        number: of the entry.
        seen: number of the last decision that the person saw.
        verdict: "accept", "reject" or "mask".
        how: what it was made with.
        cause: one of the four causes, or empty.
        note: what the person wrote.
        runs: the new mask, as sent; None for accept and reject.
        box: its prompt, or None.
    """

    number: int
    seen: int
    verdict: str
    how: str
    cause: str
    note: str
    runs: str | None
    box: Float32 | None


def wishes(asked: Mapping[str, Any]) -> list[Wish]:
    """Return the decisions in a request, at most one an entry."""
    changes = asked.get("changes")
    if not isinstance(changes, list) or not 0 < len(changes) <= MOST_AT_ONCE:
        raise UsageError(f"changes must be a list of 1 to {MOST_AT_ONCE:,} decisions")
    found = [_wish(change) for change in changes]
    if len({wish.number for wish in found}) != len(found):
        raise UsageError("changes decide on an entry twice")
    return found


def _wish(change: Any) -> Wish:
    if not isinstance(change, dict):
        raise UsageError("a decision must be an object")
    verdict, cause, runs = change.get("verdict"), change.get("cause") or "", change.get("runs")
    if verdict not in _VERDICTS:
        raise UnknownNameError("verdict", str(verdict)[:50], _VERDICTS)
    if cause not in ("", *CAUSES):
        raise UnknownNameError("cause", str(cause)[:50], CAUSES)
    if (runs is None) == (verdict == "mask"):
        raise UsageError("a mask has runs, and nothing else has")
    return Wish(
        number=number(change.get("id"), "id"),
        seen=number(change.get("seen", 0), "seen"),
        verdict=verdict,
        how=text(change.get("how") or verdict, "how", _LONGEST_HOW),
        cause=cause,
        note=text(change.get("note") or "", "note", _LONGEST_NOTE),
        runs=runs,
        box=None if change.get("box") is None else box(change["box"]),
    )
