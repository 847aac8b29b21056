"""The lock on an output folder."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from fgfast.errors import OutputLockedError
from fgfast.files import read_regular
from fgfast.writing import Target, check_in_place, locked, remove, write_file

# Bytes of the note that are shown.
_NOTE = 200


class OutputLock(contextlib.AbstractContextManager["OutputLock"]):
    """A lock on an output folder, for one run. The system releases it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock file at `path`, which is OUT/fgfast/lock.

        Raises:
            OutputLockedError: another run holds it; the message names its process where known.
            OutputRefusedError: the file, or the note beside it, is a link, or no file.
            OutputFailedError: the disk is full, read-only or failing.
        """
        from filelock import Timeout

        target = Target.of(path.parent.parent, path)
        self._note = Target(target.root, f"{target.name}.owner")
        self._held = contextlib.ExitStack()
        there = check_in_place(self._note)
        try:
            self._held.enter_context(locked(target, timeout=0))
        except Timeout:
            owner = read_regular(self._note.path)[:_NOTE].decode("utf-8", "replace").strip() if there else "unknown"
            raise OutputLockedError(
                f"another run or review (process {owner}) is writing to {path.parent.parent}: wait for its end, or "
                "choose another output; fgfast review --read-only shows it meanwhile"
            ) from None
        try:
            write_file(self._note, f"{os.getpid()} on {socket.gethostname()}\n".encode(), sync=False)
        except BaseException:
            self._held.close()
            raise

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            remove(self._note)
        self._held.close()
