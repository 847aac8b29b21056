"""What lies on the disk under the name of a SQLite file, and beside it, before SQLite opens it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fgfast.files import open_regular
from fgfast.io.database_kinds import Kind

# SQLite's file format: the header's first bytes; its bytes 18 and 19, which are 1 and 1 without a write-ahead log; and
# what begins every journal. A journal ends with the same bytes where it names a super-journal, the file that holds
# together a transaction over several databases (sqlite.org/fileformat2.html; pager.c, readSuperJournal).
_HEADER, _ROLLBACK = b"SQLite format 3\0", b"\1\1"
_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def check_files(path: Path, kind: Kind) -> bool:
    """Return whether a transaction was interrupted; raise if opening the file could do more than open the file."""
    for suffix in ("-wal", "-shm"):
        if _what(path.with_name(path.name + suffix), kind):
            raise kind.not_ours(
                path, f"it has a write-ahead log beside it ({path.name}{suffix}), which fgfast never makes"
            )
    if found := _what(path, kind):
        if found != "file":
            raise kind.not_ours(path, "it is a link, or no file")
        header = _piece(path, 0, kind)
        if header.startswith(_HEADER) and header[18:20] != _ROLLBACK:
            raise kind.not_ours(path, "it has a write-ahead log, which fgfast never makes")
    journal = path.with_name(path.name + "-journal")
    if not (found := _what(journal, kind)):
        return False
    if found != "file":
        raise kind.not_ours(path, f"{journal.name} is a link, or no file")
    if (end := _piece(journal, -16, kind)).endswith(_JOURNAL) and len(end) == 16:
        raise kind.not_ours(
            path, f"{journal.name} names another file, which SQLite would delete; fgfast makes no such one"
        )
    return bool(end)


def _what(path: Path, kind: Kind) -> str:
    """Return "file", "other" (a link, a folder, a device, ...), or "" where there is nothing."""
    try:
        return "file" if stat.S_ISREG(path.lstat().st_mode) else "other"
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise kind.unreadable(path, error) from error


def _piece(path: Path, start: int, kind: Kind) -> bytes:
    """Return the first 100 bytes of a file, or those from `start` before its end."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size + start) if start < 0 else 0)
            return file.read(100)
    except OSError as error:
        raise kind.unreadable(path, error) from error
