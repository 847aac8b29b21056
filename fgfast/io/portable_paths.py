"""Paths and sentences for the files of an output, which go to others: they name no folder of the person who ran it.

An output and its data set may move together, so a path is written relative to the output where it can be; a path below
the home folder is written with "~". Sentences (what libraries say, why an image failed) name files of the data set
relative to it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

LONGEST_SENTENCE = 10_000
"""Characters that are kept of what a library says."""


@dataclass(frozen=True)
class PortablePaths:
    """How an output names what is outside it.

    Attributes:
        out: the output folder.
        root: the data set's folder.
    """

    out: Path
    root: Path

    def path(self, path: str | Path) -> str:
        """Return a path in the form in which the output's files hold it; `resolved` reads it.

        That is relative to the output, with slashes, for whatever has a folder in common with it (other than the file
        system's own); "~/..." for what is in the home folder, but not beside the output; and else absolute.
        """
        whole, out = _absolute(path), _absolute(self.out)
        if _is_folder(out.parent) and whole.is_relative_to(out.parent):
            return _relative(whole, out)
        for home in _homes():
            if whole.is_relative_to(home):
                return f"~/{whole.relative_to(home).as_posix()}"
        if _is_folder(_common(whole, out)):
            return _relative(whole, out)
        return str(whole)

    def text(self, text: str) -> str:
        """Return a sentence without the data set's folder, the folder that holds the output, and the home folder.

        Files of the data set are named relative to it, others relative to the folder that holds the output, or by
        "~/...". What is longer than `LONGEST_SENTENCE` is cut.
        """
        if len(text) > LONGEST_SENTENCE:
            text = f"{text[:LONGEST_SENTENCE]} ..."
        if "/" not in text and "\\" not in text:
            return text
        for pattern, instead in self._replacements:
            text = pattern.sub(partial(_instead, instead), text)
        return text

    def plain(self, value: Any) -> Any:
        """Return a value that JSON can hold, with every text in it as `text` returns it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.plain(one) for name, one in value.items()}
        return [self.plain(one) for one in value] if isinstance(value, (list, tuple)) else value

    @cached_property
    def _replacements(self) -> list[tuple[re.Pattern[str], str]]:
        """Return what is looked for, longest first, and what takes its place where nothing follows."""
        found: dict[str, str] = {}
        for root in (_absolute(self.root), self.root.resolve()):
            found.setdefault(str(root), root.name)
        for folder in (_absolute(self.out).parent, self.out.resolve().parent):
            if _is_folder(folder):
                found.setdefault(str(folder), ".")
        for home in _homes():
            found.setdefault(str(home), "~")
        forms = {form: instead for text, instead in found.items() for form in (text, text.replace("\\", "\\\\"))}
        # A folder's name ends where the next character can be no part of a name.
        return [
            (re.compile(rf"(?<![\w.~-]){re.escape(form)}(?:([/\\]+)|(?![\w-]|\.\w))"), instead)
            for form, instead in sorted(forms.items(), key=lambda pair: -len(pair[0]))
        ]


def resolved(text: str, out: Path) -> Path:
    """Return the path that a file of an output holds.

    Args:
        text: what `PortablePaths.path` returned.
        out: the output folder, wherever it is now.
    """
    path = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    if path.is_absolute():
        return path
    # Where the output's folder is a link, it is not known which of its two places the path was relative to.
    places = [Path(os.path.normpath(place / path)) for place in (out.absolute(), out.resolve())]
    # Unlike Path.exists, it is False for a name that is too long, which somebody's ledger may hold.
    return next((place for place in places if os.path.exists(place)), places[0])  # noqa: PTH110


def _instead(alone: str, match: re.Match[str]) -> str:
    """Return what takes the place of a folder: `alone` where no name follows."""
    if not match[1]:
        return alone
    return "~/" if alone == "~" else ""


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100  # without resolving links


def _relative(path: Path, out: Path) -> str:
    found = Path(os.path.relpath(path, out)).as_posix()
    return f"./{found}" if found.startswith("~") else found


def _is_folder(path: Path | None) -> bool:
    """Whether a path is a folder other than the file system's topmost."""
    return path is not None and path != Path(path.anchor)


def _common(path: Path, other: Path) -> Path | None:
    try:
        return Path(os.path.commonpath((path, other)))
    except ValueError:  # on two drives
        return None


def _homes() -> list[Path]:
    """Return the home folder, as named and as it is."""
    try:
        home = Path.home()
    except RuntimeError:  # there is none
        return []
    return [place for place in dict.fromkeys((_absolute(home), home.resolve())) if _is_folder(place)]
