"""The options of a kind: their check, and how run.json and the fingerprint name them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from fgfast.errors import UsageError
from fgfast.setting import WHOLE, Setting


def check_options(options: Any) -> None:
    """Raise UsageError unless the options of a kind have allowed values."""
    for f in fields(options):
        setting: Setting = f.metadata["setting"]
        value = getattr(options, f.name)
        name = f.name.rstrip("_").replace("_", "-")
        if value is not None or str(f.type).endswith("None") is False:
            setting.check(name, value, str(f.type) in WHOLE)
        if value != f.default and (why := setting.idle(options)):
            raise UsageError(f"{name} has no effect {why}")


def plain(options: Any) -> dict[str, Any]:
    """Return options by the names that people give them."""
    return {f.name.rstrip("_"): getattr(options, f.name) for f in fields(options)}


def without_paths(value: Any, instead: Callable[[str], str]) -> Any:
    """Return an option's value with a path in it, also behind a word as in "places:/ROOT", replaced.

    An output goes to others, and files may move: what a file holds is in the kind's own fingerprint.
    """
    if not isinstance(value, (str, Path)):
        return value
    word, colon, rest = str(value).partition(":")
    prefix, place = (f"{word}:", rest) if colon and word.isalpha() and len(word) > 1 else ("", str(value))
    named = "/" in place or os.sep in place
    return f"{prefix}{instead(place)}" if named and os.path.exists(Path(place).expanduser()) else value  # noqa: PTH110
