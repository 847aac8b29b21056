"""What a file was when it was last hashed, noted beside it, so that gigabytes are not hashed at every start.

A note, FILE.checked, holds the SHA-256 with the file's size and time of change; as long as those stay, the digest is
believed. Where no digest is published, the first note is the pin that later files are held to.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from fgfast.errors import WeightsError
from fgfast.transfer import digest_of

log = logging.getLogger("fgfast")


def checked(file: Path, published: str = "", note: Path | None = None, again: bool = False) -> str:
    """The file's SHA-256, which agrees with the published or pinned digest.

    Args:
        file: to be hashed, if it has changed since it was last hashed.
        published: "sha256:..." or "md5:...", or empty.
        note: where the note is, if not beside the file.
        again: hash it in any case.

    Raises:
        WeightsError: it does not agree.
    """
    known = recorded(file, note)
    if known and not again:
        return known
    kind, _, wanted = published.partition(":")
    if wanted and (found := digest_of(file, kind)) != wanted:
        raise WeightsError(
            file, f"its {kind.upper()} is {found}, not {wanted} as published. Remove it and pull it again."
        )
    found = found if kind == "sha256" else digest_of(file)
    pin = pinned(file, note)
    if not wanted and pin and found != pin:
        raise WeightsError(
            file,
            f"its SHA256 is {found}, not {pin} as when it was first seen here. If it is meant to be another file, "
            f"remove {note or _beside(file)}; else remove the file and pull it again.",
        )
    if not wanted and not pin:
        log.warning("no digest is published for %s; from now on it must stay SHA256 %s", file.name, found)
    record(file, found, note)
    return found


def record(file: Path, sha256: str, note: Path | None = None) -> None:
    """Note a file's digest. A folder that cannot be written is put up with: the file is hashed again then."""
    stat = file.stat()
    content = {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = note or _beside(file)
    part = note.with_name(f"{note.name}.{os.getpid()}.part")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content))
        os.replace(part, note)


def recorded(file: Path, note: Path | None = None) -> str:
    """The SHA-256 noted for a file that has not changed since; else empty."""
    try:
        content = json.loads((note or _beside(file)).read_text())
        stat = file.stat()
        same = (content["size"], content["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
        return str(content["sha256"]) if same else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def pinned(file: Path, note: Path | None = None) -> str:
    """The SHA-256 noted for a file, whether or not it has changed since; else empty."""
    try:
        return str(json.loads((note or _beside(file)).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def converted(checkpoint: Path) -> Path | None:
    """The safetensors copy of a checkpoint, if it was made of that very file and has not changed since."""
    sha256 = recorded(checkpoint)
    copy = copy_of(checkpoint, sha256)
    return copy if sha256 and recorded(copy) else None


def copy_of(checkpoint: Path, sha256: str) -> Path:
    """Where the safetensors copy lies. The checkpoint's digest is in its name, so that it cannot be another's."""
    return checkpoint.with_name(f"{checkpoint.stem}.{sha256[:16]}.safetensors")


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.checked")
