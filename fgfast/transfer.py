"""Downloads, resumed and checked, and the cache folder for downloaded and computed files."""

from __future__ import annotations

import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from fgfast import web
from fgfast.errors import DownloadError, OfflineError, UsageError
from fgfast.web import is_url as is_url
from fgfast.writing import Target, append, remove, rename

# Called with the file's name, the bytes received so far, and the total where the server reports it.
Progress = Callable[[str, int, "int | None"], None]

TIMEOUT = 30.0
ATTEMPTS = 4
BACKOFF = 1.0
_CHUNK = 1 << 20
# Transient HTTP codes; every other 4xx is final.
_PASSING = (408, 425, 429)
_OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Remote:
    """One file on a server.

    Attributes:
        url: official address; FGFAST_MIRROR replaces all but the file's name.
        digest: "md5:..." or "sha256:..."; empty where none is published.
        size: size in bytes, where known.
        most: bytes that it may have where its size is not known.
        mirrored: whether FGFAST_MIRROR applies: it does not to an address that a person gave.
    """

    url: str
    digest: str
    size: int | None = field(default=None, kw_only=True)
    most: int = field(default=8 << 30, kw_only=True)
    mirrored: bool = field(default=True, kw_only=True)

    @property
    def limit(self) -> int:
        """The most bytes that are received, whatever the server says."""
        return self.most if self.size is None else self.size

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1].partition("?")[0]

    def address(self) -> str:
        """Return the URL to download from: the official one, or that of FGFAST_MIRROR."""
        mirror = os.environ.get("FGFAST_MIRROR", "").rstrip("/") if self.mirrored else ""
        if mirror and not mirror.startswith(("http://", "https://")):
            raise UsageError(f"FGFAST_MIRROR must start with http:// or https://, not {mirror!r}")
        return f"{mirror}/{self.file}" if mirror else self.url


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet: FGFAST_CACHE, else fgfast in the platform's cache folder.

    The latter is XDG_CACHE_HOME or ~/.cache on Linux, ~/Library/Caches on macOS and LOCALAPPDATA on Windows.
    """
    if chosen := os.environ.get("FGFAST_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("fgfast", appauthor=False)


def switched_on(variable: str) -> bool:
    """Return whether an environment variable is set to something other than 0, false, no or off."""
    return os.environ.get(variable, "").strip().lower() not in _OFF


def digest_of(path: Path, kind: str = "sha256") -> str:
    """Return a file's digest in hexadecimal digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(remote: Remote, into: Path, progress: Progress | None = None) -> Path:
    """Download one file and check its digest. A broken transfer is resumed up to three times, with growing delays.

    An existing file is only checked. The folder is made when the first bytes arrive.

    Raises:
        OfflineError: the file is absent, and FGFAST_OFFLINE is set.
        DownloadError: the transfer failed, leads to an address that is not fetched, has more bytes than the file can
            have, or the digest differs; a file with another digest is removed.
    """
    url, target = remote.address(), into / remote.file
    part = target.with_name(f"{target.name}.part")
    if not target.is_file():
        check_online(remote, into)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _transfer(url, part, remote.limit, progress)
                break
            except urllib.error.HTTPError as error:
                if attempt == ATTEMPTS or (error.code < 500 and error.code not in _PASSING):
                    raise DownloadError(_failed(url, f"HTTP {error.code} {error.reason}", target)) from error
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                if attempt == ATTEMPTS:
                    raise DownloadError(_failed(url, str(getattr(error, "reason", error)), target)) from error
            except ValueError as error:  # the address, or one that it leads to, is none
                raise DownloadError(_failed(url, str(error), target)) from error
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        rename(Target.file(part), Target.file(target))
    _check(remote, url, target)
    return target


def check_online(remote: Remote, into: Path) -> None:
    """Raise OfflineError where a file is absent, and FGFAST_OFFLINE forbids fetching it."""
    target = into / remote.file
    if switched_on("FGFAST_OFFLINE") and not target.is_file():
        raise OfflineError(
            f"{remote.address()} is not fetched while FGFAST_OFFLINE is set. Unset it, or download the file manually "
            f"and save it as {target.absolute()}."
        )


def is_address(text: object) -> bool:
    """Whether a text is an address of any kind: http, ftp, s3, hf, file, ..."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def read_url(url: str, most: int) -> bytes:
    """Fetch a small file from any http or https address, in one attempt; nothing is kept on disk.

    Args:
        url: the address. FGFAST_MIRROR does not apply to it.
        most: bytes from which the file is too large.

    Raises:
        OfflineError: FGFAST_OFFLINE is set.
        DownloadError: the transfer failed, leads to another kind of address, or is too large.
    """
    if switched_on("FGFAST_OFFLINE"):
        raise OfflineError(f"{url} is not fetched while FGFAST_OFFLINE is set. Unset it, or give a file.")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "fgfast"})
        with web.opener().open(request, timeout=TIMEOUT) as response:
            data: bytes = response.read(most + 1)
            length = web.length(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url}: HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # OSError: URLError, TimeoutError, broken connections
        raise DownloadError(f"{url}: {getattr(error, 'reason', error)}") from error
    if len(data) > most:
        raise DownloadError(f"{url} has more than {most / 1e6:,.0f} MB: download it and give the file")
    if length is not None and len(data) < length:
        raise DownloadError(f"{url}: the transfer broke off after {len(data)} of {length} bytes")
    return data


def _failed(url: str, why: str, target: Path) -> str:
    return (
        f"{url}: {why}. Try again later to resume the transfer, set FGFAST_MIRROR to the address of a mirror's folder, "
        f"or download the file manually and save it as {target.absolute()}."
    )


def _transfer(url: str, part: Path, limit: int, progress: Progress | None) -> None:
    """Download into `part`, resuming at its end where possible; raise ConnectionError where the transfer breaks."""
    if part.is_symlink() or (part.exists() and not part.is_file()):
        remove(Target.file(part))  # not made here: bytes would be written through it
    done = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "fgfast", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response = web.opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{done}":
            return  # the file was complete already
        remove(Target.file(part))
        raise ConnectionError("the file on the server has changed since the transfer began; starting over") from error
    with response:
        try:
            _store(response, part, done, limit, progress)
        except _TooLongError as error:
            remove(Target.file(part))
            raise DownloadError(
                f"{url} has more than {limit:,} bytes, which the file cannot have; what was received is removed. Try "
                "again from another network, or set FGFAST_MIRROR to the address of a mirror's folder."
            ) from error


class _TooLongError(Exception):
    """A server sends more bytes than a file can have."""


def _store(response: HTTPResponse, part: Path, done: int, limit: int, progress: Progress | None) -> None:
    resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
    done = done if resumed else 0
    length = web.length(response)
    total = None if length is None else done + length
    if max(done, total or 0) > limit:
        raise _TooLongError
    with append(Target.file(part), keep=resumed) as file:
        while chunk := _read(response):
            done += len(chunk)
            if done > limit:
                raise _TooLongError
            file.write(chunk)
            if progress:
                progress(part.name.removesuffix(".part"), done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the transfer broke off after {done} of {total} bytes")


def _read(response: HTTPResponse) -> bytes:
    """Read the next bytes. A network error becomes a ConnectionError, which distinguishes it from a disk error."""
    try:
        return response.read(_CHUNK)
    except OSError as error:
        raise ConnectionError(f"the transfer broke off: {error}") from error


def _check(remote: Remote, url: str, file: Path) -> None:
    """Compare the digest; remove a file that differs, so that the next attempt starts over."""
    kind, _, wanted = remote.digest.partition(":")
    if not wanted:
        return
    found = digest_of(file, kind)
    if found != wanted:
        size = file.stat().st_size
        remove(Target.file(file))
        raise DownloadError(
            f"{url}: {kind.upper()} is {found}, expected {wanted} ({size} bytes). The file was "
            "removed; try again, or set FGFAST_MIRROR to the address of another mirror's folder."
        )
