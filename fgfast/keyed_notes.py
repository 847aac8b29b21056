"""Notes that only this user can have written: JSON files that carry a code made with a key of the user's own.

What fgfast has checked or built here, it notes beside the file, so that gigabytes are not hashed at every start and an
engine is not built twice. Such a folder may also be a stranger's: an archive brings files and notes about them. So each
note carries an HMAC-SHA256 over all that it says, and a note without the right one counts as no note.

The key is 32 random bytes in a private file of the user (`key_file`), outside the cache folder, which people archive
and share. Where no such file can be kept, notes last as long as the process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout

from fgfast.errors import OutputFailedError, OutputRefusedError
from fgfast.files import open_regular, read_regular
from fgfast.writing import Target, locked, make_folder, write_file
from fgfast.writing import remove as remove_file

log = logging.getLogger("fgfast")

_KEY_BYTES = 32
# Notes hold a few facts each; the largest, the figures measured here, some kilobytes.
_MOST_BYTES = 1 << 20
_LOCK_SECONDS = 10
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


class Stamp(NamedTuple):
    """What tells whether a file has changed. An archive sets times of change (mtime) as it likes, but not ctime."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: Path) -> Stamp:
        """Return a file's stamp as it is now; links are followed."""
        found = file.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Key(NamedTuple):
    """The key; and, where it is not kept in a file, the notes of this process by their paths."""

    secret: bytes
    kept: bool
    notes: dict[Path, bytes]


def write(note: Path, kind: str, file: Path, stamp: Stamp, facts: Mapping[str, str]) -> None:
    """Note facts about a file. Where the note's folder is not writable, the note goes to the user's own folder.

    Args:
        note: path of the note.
        kind: what is noted, so that a note of one kind does not stand in for another.
        file: the file.
        stamp: of the file, taken before its content was read.
        facts: what was found, its SHA-256 among them.
    """
    write_sealed(note, kind, {"file": file.name, **stamp._asdict(), **facts})


def read(note: Path, kind: str, file: Path) -> dict[str, Any]:
    """Return the facts noted about a file of this name; empty where there is no note of this user's."""
    found = read_sealed(note, kind)
    return found if found.get("file") == file.name else {}


def unchanged(facts: Mapping[str, Any], file: Path) -> bool:
    """Whether a file is as it was when `facts` were noted."""
    try:
        return bool(facts) and all(facts.get(name) == value for name, value in Stamp.of(file)._asdict().items())
    except OSError:
        return False


def write_sealed(note: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write plain values to a note; see `write`."""
    key = _key()
    plain = {**content, "kind": kind}
    data = json.dumps({**plain, "mac": _mac(key, plain)}, indent=1).encode()
    if not key.kept:
        key.notes[note.absolute()] = data
        return
    own = _own_place(note)
    with suppress(OSError, OutputFailedError, OutputRefusedError):
        write_file(Target.file(note), data, mode=_PRIVATE_FILE)
        if _read_file(note) == data:
            remove_file(Target.file(own))
            return
    with suppress(OSError, OutputFailedError, OutputRefusedError):
        make_folder(Target(own.parent), mode=_PRIVATE_FOLDER)
        write_file(Target.file(own), data, mode=_PRIVATE_FILE)


def read_sealed(note: Path, kind: str) -> dict[str, Any]:
    """Return the values of a note of this kind; empty where there is none, or none of this user's."""
    key = _key()
    kept = [_read_file(place) for place in (_own_place(note), note)] if key.kept else [key.notes.get(note.absolute())]
    for data in kept:
        try:
            content = json.loads(data or b"")
            code = content.pop("mac")
            if content["kind"] == kind and hmac.compare_digest(_mac(key, content).encode(), code.encode()):
                return dict(content)
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            continue  # damaged, or of an older fgfast
    return {}


def remove(note: Path) -> None:
    """Remove a note."""
    _key().notes.pop(note.absolute(), None)
    remove_file(Target.file(note))
    with suppress(OSError):
        remove_file(Target.file(_own_place(note)))


def private_name(purpose: str) -> str:
    """Return a name that only this user can know, for a folder whose content is trusted; empty without a kept key."""
    key = _key()
    return hmac.digest(key.secret, f"name {purpose}".encode(), "sha256").hex()[:32] if key.kept else ""


def key_file() -> Path:
    """Return the path of the key: fgfast/note.key in the platform's folder for state, XDG_STATE_HOME on Linux."""
    from platformdirs import user_state_path

    return user_state_path("fgfast", appauthor=False) / "note.key"


def _own_place(note: Path) -> Path:
    """Return the place of a note whose folder is not writable."""
    return key_file().parent / "notes" / f"{hashlib.sha256(str(note.absolute()).encode(errors='replace')).hexdigest()}"


def _mac(key: _Key, content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key.secret, b"fgfast note 1\n" + plain.encode(), "sha256").hex()


def _key() -> _Key:
    return _key_in(key_file())


@cache
def _key_in(path: Path) -> _Key:
    """Return the key of a file, made where it is missing; one of this process alone where the file is not private."""
    try:
        return _Key(_kept_key(path), True, {})
    except (OSError, OutputFailedError, OutputRefusedError, Timeout, NotImplementedError) as error:
        why = error.__cause__ if isinstance(error.__cause__, OSError) else error  # without advice about an output
        log.warning(
            "%s cannot keep the key of this user's notes: %s. What was checked or built here is not remembered after "
            "this process: files are hashed at each start, and engines are built again. Make it a file that only you "
            "can read, or set XDG_STATE_HOME to a private folder",
            path,
            why.strerror if isinstance(why, OSError) and why.strerror else why,
        )
        return _Key(secrets.token_bytes(_KEY_BYTES), False, {})


def _kept_key(path: Path) -> bytes:
    folder = path.parent
    if (chosen := os.environ.get("FGFAST_CACHE")) and folder.resolve().is_relative_to(
        Path(chosen).expanduser().resolve()
    ):
        raise PermissionError(f"it lies in FGFAST_CACHE ({chosen}), which an archive could bring")
    make_folder(Target(folder), mode=_PRIVATE_FOLDER)
    _check_owner(folder.lstat(), stat.S_ISDIR, 0o022, "its folder")
    if key := _read_key(path):
        return key
    with locked(Target(folder, f"{path.name}.lock"), timeout=_LOCK_SECONDS):
        return _read_key(path) or _make_key(path)


def _read_key(path: Path) -> bytes:
    """Return the key of a private file; empty where it is absent, or being written."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise PermissionError("it is a link")
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        return b""
    with file:
        found = os.fstat(file.fileno())
        _check_owner(found, stat.S_ISREG, 0o077, "it")
        if found.st_nlink != 1:
            raise PermissionError("it has several names (hard links)")
        key = file.read(_KEY_BYTES + 1)
    if len(key) > _KEY_BYTES:
        raise PermissionError("it is no key; remove it")
    return key if len(key) == _KEY_BYTES else b""


def _make_key(path: Path) -> bytes:
    """Make the key, under the lock; half of one was left behind by a killed process."""
    key = secrets.token_bytes(_KEY_BYTES)
    write_file(Target.file(path), key, mode=_PRIVATE_FILE)
    return key


def _check_owner(found: os.stat_result, right_kind: Any, forbidden: int, what: str) -> None:
    """Raise PermissionError unless something is of the right kind, this user's, and closed to others."""
    if not right_kind(found.st_mode):
        raise PermissionError(f"{what} is not a plain file or folder")
    if not hasattr(os, "geteuid"):
        return  # Windows: access lists of the profile folder
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{what} belongs to user {found.st_uid}")
    if found.st_mode & forbidden:
        raise PermissionError(f"{what} is open to others (mode {stat.S_IMODE(found.st_mode):04o}; chmod go-rwx it)")


def _read_file(note: Path) -> bytes | None:
    """Return the bytes of a note, None where there is none; a note of another user is none."""
    try:
        with open_regular(note) as file:
            if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
        return read_regular(note, _MOST_BYTES)
    except OSError:
        return None
