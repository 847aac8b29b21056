"""Digests of files, noted beside them, so that gigabytes are not hashed at every start.

A note, FILE.checked, holds the SHA-256 with the file's size and times of change; as long as those are unchanged, the
digest is trusted. Only notes that this user's fgfast wrote count (fgfast.keyed_notes): one that came with the file is
no note, and the file is hashed. Where no digest is published, the first note is the pin for later files.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fgfast import keyed_notes
from fgfast.errors import WeightsError
from fgfast.keyed_notes import Stamp
from fgfast.transfer import digest_of

log = logging.getLogger("fgfast")

_KIND = "digest"


def checked(file: Path, published: str = "", note: Path | None = None, again: bool = False) -> str:
    """Return the file's SHA-256 after comparing it with the published or pinned digest.

    Args:
        file: hashed if it has changed since it was last hashed.
        published: "sha256:..." or "md5:...", or empty.
        note: path of the note, if not beside the file.
        again: hash the file in any case.

    Raises:
        WeightsError: the digests differ.
    """
    kind, _, expected = published.partition(":")
    known = recorded(file, note)
    if known and not again and (kind != "sha256" or known == expected):
        return known
    stamp = Stamp.of(file)
    found = digest_of(file)
    other = digest_of(file, kind) if expected and kind != "sha256" else found
    if expected and other != expected:
        raise WeightsError(
            file, f"its {kind.upper()} is {other}, not {expected} as published. Remove it and pull it again."
        )
    pin = pinned(file, note)
    if not expected and pin and found != pin:
        raise WeightsError(
            file,
            f"its SHA256 is {found}, not {pin} as when it was first seen here. If the file was replaced on purpose, "
            f"remove {note or beside(file)}; otherwise remove the file and pull it again.",
        )
    if not expected and not pin:
        log.warning("no digest is published for %s; from now on its SHA256 must stay %s", file.name, found)
    record(file, found, stamp, note)
    return found


def current(file: Path) -> str:
    """Return the file's SHA-256, hashing it only if it has changed since it was last hashed."""
    known = recorded(file)
    if not known:
        stamp = Stamp.of(file)
        known = digest_of(file)
        record(file, known, stamp)
    return known


def record(file: Path, sha256: str, stamp: Stamp, note: Path | None = None) -> None:
    """Note a file's digest.

    Args:
        file: the file.
        sha256: its digest.
        stamp: of the file before it was hashed.
        note: path of the note, if not beside the file.
    """
    keyed_notes.write(note or beside(file), _KIND, file, stamp, {"sha256": sha256})


def recorded(file: Path, note: Path | None = None) -> str:
    """Return the SHA-256 noted for a file that has not changed since; otherwise an empty string."""
    facts = keyed_notes.read(note or beside(file), _KIND, file)
    return str(facts["sha256"]) if keyed_notes.unchanged(facts, file) else ""


def pinned(file: Path, note: Path | None = None) -> str:
    """Return the SHA-256 noted for a file, whether or not it has changed since; otherwise an empty string."""
    return str(keyed_notes.read(note or beside(file), _KIND, file).get("sha256", ""))


def converted(checkpoint: Path) -> Path | None:
    """Return the safetensors copy of a checkpoint, if it was made from this very file and has not changed since."""
    sha256 = recorded(checkpoint)
    copy = copy_of(checkpoint, sha256)
    return copy if sha256 and recorded(copy) else None


def copy_of(checkpoint: Path, sha256: str) -> Path:
    """Return the path of the safetensors copy, whose name contains the checkpoint's digest."""
    return checkpoint.with_name(f"{checkpoint.stem}.{sha256[:16]}.safetensors")


def beside(file: Path) -> Path:
    """Return the path of a file's note."""
    return file.with_name(f"{file.name}.checked")
