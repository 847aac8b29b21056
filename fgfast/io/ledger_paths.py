"""The paths in a ledger: they may be anybody's, and a file is only changed where a run of fgfast writes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import PurePosixPath

LONGEST = 4096
"""Most characters of a path, a key or a label."""

# Halves of characters, which no file system takes; Python writes the undecoded bytes of a name as U+DC80 to U+DCFF.
_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def can_be_named(text: str) -> bool:
    """Whether the name of a file can hold this text: no zero byte, and no surrogates but those for undecoded bytes."""
    return "\0" not in text and (text.isascii() or not _SURROGATES.search(text))


def is_below(path: object) -> bool:
    """Whether a value is a relative POSIX path that leads nowhere but below the folder that it is relative to."""
    return (
        isinstance(path, str)
        and 0 < len(path) <= LONGEST
        and path[0] != "/"
        and can_be_named(path)
        and "\\" not in path
        and not (os.name == "nt" and ":" in path)  # a drive, or a stream
        and not (".." in path and ".." in path.split("/"))
    )


def in_folders(path: str, folders: Collection[str]) -> bool:
    """Whether a path lies below one of these folders."""
    return is_below(path) and path.partition("/")[0] in folders and "/" in path


def named_after(path: str, key: str, suffix: str = "") -> bool:
    """Whether a path is one that a run could give a file of the sample `key`: in the same folder, with its stem.

    Args:
        path: of a file in the twin, or in the masks folder.
        key: the sample's key, or its image's key in the twin.
        suffix: the suffix that the file must have.
    """
    mine, theirs = PurePosixPath(path), PurePosixPath(key)
    return mine.parent == theirs.parent and mine.name.startswith(theirs.stem) and path.endswith(suffix)
