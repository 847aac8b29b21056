"""The values that a ledger stores under names, as JSON: each has a form and a size, and anything else is damage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from fgfast.io.ledger_paths import can_be_named, is_below

# Most characters. "whole_files" names an annotation file per image in some data sets; "committing" a batch of images.
_LONGEST = {"whole_files": 1 << 27, "committing": 1 << 24}
_LONG = 1 << 20


def meta_value(name: str, text: Any) -> Any:
    """Return the value that is stored as `text` under a name.

    Raises:
        ValueError, RecursionError: no run of fgfast stores that under this name.
    """
    if not isinstance(text, str) or len(text) > _LONGEST.get(name, _LONG):
        raise ValueError(f"its {name!r} is no text, or too long")
    value = json.loads(text)
    if name in _FORMS and not _FORMS[name](value):
        raise ValueError(f"its {name!r} is not what a run stores")
    return value


def _folder(value: Any) -> bool:
    return is_below(value) and "/" not in value and value != "."


def _paths(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_below, value))


def _described(value: Any) -> bool:
    """Whether a value maps paths to size and SHA-256 in hexadecimal."""
    return isinstance(value, dict) and all(
        is_below(path) and isinstance(about, list) and len(about) == 2 and _is_size(about[0]) and _is_hex(about[1])
        for path, about in value.items()
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _source(value: Any) -> bool:
    root = value.get("root", "") if isinstance(value, dict) else None
    return isinstance(root, str) and can_be_named(root)


def _runs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(run, dict) and _is_size(run.get("processed")) and _is_seconds(run.get("seconds")) for run in value
    )


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1e12


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "fingerprint": lambda value: isinstance(value, dict),
    "folder": _folder,
    "clean": _is_bool,
    "lists_stale": _is_bool,
    "reviewing": _is_bool,
    "being_deleted": _is_bool,
    "committing": _paths,
    "whole_files": _described,
    "source": _source,
    "runs": _runs,
}
