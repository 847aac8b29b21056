"""Signals that ask a run to end."""

from __future__ import annotations

import os
import signal
import threading

from fgfast.terminal import note


class Interruption:
    """The first SIGINT, SIGTERM or SIGHUP asks the run to end cleanly; the second ends the process at once.

    Ending at once is safe as well: whatever is in the ledger is on disk, and the rest is done again.

    Args:
        first: what is done before the end, for the message.

    Attributes:
        stop: set by the first signal.
        exit_code: 128 + the signal's number, or None.
    """

    def __init__(self, first: str = "images in progress are finished first") -> None:
        self._first = first
        self.stop = threading.Event()
        self.exit_code: int | None = None

    def __enter__(self) -> Interruption:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # A process that ignores the end of its terminal (nohup) goes on.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.stop.is_set():
            os._exit(128 + number)
        self.exit_code = 128 + number
        self.stop.set()
        if number == getattr(signal, "SIGHUP", None):  # nothing can be written to a terminal that is gone
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
        note(f"\nstopping: {self._first}; press again to end at once")
