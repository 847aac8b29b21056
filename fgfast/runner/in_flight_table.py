"""The in-flight table of a worker process: which items it works on, in memory that outlives it, for its parent to read.

A message per item would cost more than a small item does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import threading
import time
from pathlib import Path

# A ticket, which is never zero, and the time.monotonic() since which it is in flight, one clock for all processes.
_ENTRY, _TICKET, _SINCE = struct.Struct("=qd"), struct.Struct("=q"), struct.Struct("=d")


class InFlightTable:
    """The table of one worker.

    Args:
        path: of its file; None makes one.
        entries: the most items at a time; what exceeds them is not noted.
    """

    def __init__(self, path: str | None = None, entries: int = 4096) -> None:
        self._own = path is None
        if path is None:
            # Memory where the system has a place for it; nothing here need outlive the machine.
            folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            handle, path = tempfile.mkstemp(prefix="fgfast-", suffix=".in-flight", dir=folder)
            allocate = getattr(os, "posix_fallocate", None)  # a full disk is an error now, and no signal later
            if allocate is not None:
                allocate(handle, 0, entries * _ENTRY.size)
            else:
                os.ftruncate(handle, entries * _ENTRY.size)
        else:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self.path = path
        self._table = mmap.mmap(handle, 0)
        os.close(handle)
        self._entries = len(self._table) // _ENTRY.size
        self._free = list(range(self._entries - 1, -1, -1))
        self._place: dict[int, int] = {}
        self._lock = threading.Lock()

    def begin(self, ticket: int) -> None:
        """Note, before anything is done to it, that an item is in flight."""
        with self._lock:
            if self._free:
                place = self._place[ticket] = self._free.pop()
                # The time first: a reader must not see a ticket without it.
                _SINCE.pack_into(self._table, place * _ENTRY.size + _TICKET.size, time.monotonic())
                _TICKET.pack_into(self._table, place * _ENTRY.size, ticket)

    def end(self, ticket: int) -> None:
        """Note that nothing more will be done to an item."""
        with self._lock:
            place = self._place.pop(ticket, None)
            if place is not None:
                _TICKET.pack_into(self._table, place * _ENTRY.size, 0)
                self._free.append(place)

    def read(self) -> dict[int, float]:
        """Ticket -> since when."""
        return {ticket: since for ticket, since in _ENTRY.iter_unpack(self._table[:]) if ticket}

    def unlink(self) -> None:
        """Remove the file once both sides have it open; where that is impossible, the maker's `close` does it."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    def close(self) -> None:
        """Give the memory back."""
        self._table.close()
        if self._own:
            self.unlink()
