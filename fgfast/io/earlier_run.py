"""The files of an earlier run, to be deleted. Its ledger may be anybody's: only what lies where a run writes counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from fgfast.errors import OutputRefusedError
from fgfast.files import FileStamp
from fgfast.io.ledger import Ledger
from fgfast.io.ledger_paths import in_folders, is_below
from fgfast.io.stamps import states


def named_files(ledger: Ledger, folders: Collection[str]) -> Iterator[str]:
    """Yield the files of a run, those among them that it was about to write, as paths relative to its output.

    Args:
        ledger: the run's ledger.
        folders: the names of the folders in which it writes.
    """
    named = chain(ledger.paths(), ledger.meta("committing") or (), ledger.meta("whole_files") or ())
    return (path for path in named if in_folders(path, folders))


def unchanged_files(ledger: Ledger, out: Path, folder: str, others: Collection[str]) -> Iterator[str]:
    """Yield those files of a run that still are as it wrote them, as paths relative to its output.

    For a folder that is known from the ledger only: whoever wrote the ledger does not know what the files of another
    person hold.

    Args:
        ledger: the run's ledger.
        out: the output folder.
        folder: the name of the twin's folder.
        others: the names of the other folders in which it writes.

    Raises:
        OutputRefusedError: it is not the name of a twin's folder.
    """
    if folder.lower() in ("fgfast", *others):
        raise OutputRefusedError(f"{ledger.path} is damaged (its run has the folder {folder!r}): choose another --out")
    files = chain(ledger.stamps(), whole_files(ledger))
    there = ((path, out / path, stamp) for path, stamp in files if in_folders(path, (folder, *others)))
    return (path for path, state in states(there, read=True) if state == "same")


def elsewhere(ledger: Ledger, out: Path, folders: Collection[str]) -> list[str]:
    """Return the files of an expansion outside these folders that still are as it wrote them; none for a conversion.

    Another kind of expansion has other folders, and lists of its own beside them.

    Args:
        ledger: the expansion's ledger.
        out: the output folder.
        folders: the names of the folders whose files are not meant.
    """
    if not (ledger.meta("fingerprint") or {}).get("expansion"):
        return []
    files = chain(ledger.stamps(), whole_files(ledger))
    there = ((path, out / path, stamp) for path, stamp in files if is_below(path) and not in_folders(path, folders))
    return [path for path, state in states(there, read=True) if state == "same"]


def whole_files(ledger: Ledger) -> Iterator[tuple[str, FileStamp]]:
    """Yield path and stamp of the files about the whole twin; their time is not recorded."""
    for path, (size, sha256) in (ledger.meta("whole_files") or {}).items():
        yield path, FileStamp(size, 0, bytes.fromhex(sha256))
