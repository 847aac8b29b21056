"""What a worker process prints to standard error.

Libraries print there about single images; their messages are logged at debug level, and do not disturb the terminal.
The tracebacks of a worker that fails are shown as errors.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import BinaryIO

log = logging.getLogger("fgfast")

# First lines of what Python prints about its own failures; the last of them ends with the process.
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):|Exception (in thread|ignored in)")
_FATAL = re.compile(r"Fatal Python error")
# Bytes of a line that are read at a time.
_LONGEST = 4096


def forward(stream: BinaryIO, worker: str) -> None:
    """Start a thread that logs what a worker prints, until its process ends."""
    threading.Thread(target=_forward, args=(stream, worker), name=f"output of {worker}", daemon=True).start()


def _forward(stream: BinaryIO, worker: str) -> None:
    traceback = fatal = False
    with stream:
        while raw := stream.readline(_LONGEST):
            line = raw.decode("utf-8", "replace").rstrip()
            begins = _TRACEBACK.match(line) is not None
            fatal |= _FATAL.match(line) is not None
            traceback |= begins
            log.log(logging.ERROR if traceback or fatal else logging.DEBUG, "%s: %s", worker, line)
            # The first line that is neither indented nor a heading is the exception's own, the last of its traceback.
            traceback = traceback and (begins or not line or line[0].isspace())
