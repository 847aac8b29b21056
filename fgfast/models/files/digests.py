"""Digests of files, noted beside them, so that gigabytes are not hashed at every start.

A note, FILE.checked, holds the SHA-256 with the file's size and time of change; as long as those are unchanged, the
digest is trusted. Where no digest is published, the first note is the pin for later files.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgfast.errors import OutputFailedError, WeightsError
from fgfast.transfer import digest_of
from fgfast.writing import Target, write_file

log = logging.getLogger("fgfast")


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
    known = recorded(file, note)
    if known and not again:
        return known
    kind, _, expected = published.partition(":")
    if expected and (found := digest_of(file, kind)) != expected:
        raise WeightsError(
            file, f"its {kind.upper()} is {found}, not {expected} as published. Remove it and pull it again."
        )
    found = found if kind == "sha256" else digest_of(file)
    pin = pinned(file, note)
    if not expected and pin and found != pin:
        raise WeightsError(
            file,
            f"its SHA256 is {found}, not {pin} as when it was first seen here. If the file was replaced on purpose, "
            f"remove {note or _beside(file)}; otherwise remove the file and pull it again.",
        )
    if not expected and not pin:
        log.warning("no digest is published for %s; from now on its SHA256 must stay %s", file.name, found)
    record(file, found, note)
    return found


def current(file: Path) -> str:
    """Return the file's SHA-256, hashing it only if it has changed since it was last hashed."""
    known = recorded(file)
    if not known:
        known = digest_of(file)
        record(file, known)
    return known


def record(file: Path, sha256: str, note: Path | None = None) -> None:
    """Note a file's digest. In a folder that is not writable there is no note, and the file is hashed every time."""
    stat = file.stat()
    content = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = note or _beside(file)
    with suppress(OutputFailedError):
        write_file(Target.file(note), json.dumps(content).encode(), sync=False)


def recorded(file: Path, note: Path | None = None) -> str:
    """Return the SHA-256 noted for a file that has not changed since; otherwise an empty string."""
    noted = _noted(file, note)
    try:
        stat = file.stat()
    except OSError:
        return ""
    same = (noted.get("size"), noted.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    return str(noted.get("sha256", "")) if same else ""


def pinned(file: Path, note: Path | None = None) -> str:
    """Return the SHA-256 noted for a file, whether or not it has changed since; otherwise an empty string."""
    return str(_noted(file, note).get("sha256", ""))


def converted(checkpoint: Path) -> Path | None:
    """Return the safetensors copy of a checkpoint, if it was made from this very file and has not changed since."""
    sha256 = recorded(checkpoint)
    copy = copy_of(checkpoint, sha256)
    return copy if sha256 and recorded(copy) else None


def copy_of(checkpoint: Path, sha256: str) -> Path:
    """Return the path of the safetensors copy, whose name contains the checkpoint's digest."""
    return checkpoint.with_name(f"{checkpoint.stem}.{sha256[:16]}.safetensors")


def _noted(file: Path, note: Path | None) -> dict[str, Any]:
    """Return the content of a note; empty where there is none or it is damaged."""
    try:
        content = json.loads((note or _beside(file)).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.checked")
