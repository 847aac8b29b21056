"""The lock on an output folder."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from fgfast.errors import OutputLockedError


class OutputLock(contextlib.AbstractContextManager["OutputLock"]):
    """A lock on an output folder, for one run. The system releases it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock file at `path`.

        Raises:
            OutputLockedError: another run holds it; the message names its process where known.
        """
        from filelock import FileLock, Timeout

        self._note = path.with_name(path.name + ".owner")
        self._lock = FileLock(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = self._note.read_text().strip() if self._note.exists() else "unknown"
            raise OutputLockedError(
                f"another run (process {owner}) is writing to {path.parent.parent}: wait, or choose another --out"
            ) from None
        self._note.write_text(f"{os.getpid()} on {socket.gethostname()}\n")

    def __exit__(self, *exc: object) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()
