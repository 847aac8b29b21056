"""The flags of all entries, which are in the long rows of the ledger: looked up beside everything else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from fgfast.errors import FgfastError
from fgfast.review.entries import Entries
from fgfast.review.items import Flag
from fgfast.review.opening import Opening
from fgfast.review.outliers import NAME, SENTENCE, unlike
from fgfast.review.reading import Reading, Record

log = logging.getLogger("fgfast")

# Entries whose flags are looked up at once: some 20 ms, for which other reading waits. Seconds without a request before
# the next ones are, and the longest wait for such a moment.
_CHUNK, _QUIET, _LONGEST_WAIT = 200, 0.3, 1.0


class FlagIndex:
    """Looks up the flags of all entries, in a thread of its own, from when it is made until it is closed.

    Args:
        opening: how the parts of the run are opened.
        entries: what is listed; gets the flags.
        read: calls a method of `Reading` in its thread.
    """

    def __init__(self, opening: Opening, entries: Entries, read: Callable[..., Future[Any]]) -> None:
        self._opening, self._entries, self._read = opening, entries, read
        self._closed = threading.Event()
        self._asked = time.monotonic()
        self._unlike: Mapping[int, Flag] = {}
        self._thread = threading.Thread(target=self._index, name="flags")
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def asked(self) -> None:
        """Note that a request came: the index waits."""
        self._asked = time.monotonic()

    def _index(self) -> None:
        """Look up the flags of all entries, most doubtful first, while nobody waits for anything else."""
        order = self._entries.by_doubt()
        try:
            with self._opening.twin() as twin:  # a connection of its own: others read in between
                self._unlike = unlike(twin.output.ledger, self._pause)
            for start in range(0, len(order), _CHUNK):
                self._wait_for_quiet(self._entries.known)
                if self._closed.is_set():
                    return
                places = order[start : start + _CHUNK].tolist()
                numbers = [self._entries.number(place) for place in places]
                found = self._read(Reading.flags, numbers, self._opening.flags).result()
                for place, number, names in zip(places, numbers, found, strict=True):
                    more = {NAME: SENTENCE} if number in self._unlike else {}
                    self._entries.set_flags(place, names | more)
                self._entries.known = start + len(places)
        except (FgfastError, RuntimeError) as error:  # damaged, or closed in between
            if not self._closed.is_set():
                log.warning("flags cannot be listed: %s", error)

    def unlike_its_class(self, record: Record) -> list[Flag]:
        """Return the flag of an entry that is unlike its class; a person's mask is not that of the run any more."""
        found = self._unlike.get(record.outcome.id or 0)
        masked = record.decision is not None and record.decision.verdict == "mask"
        return [] if found is None or masked else [found]

    def _pause(self) -> bool:
        """Wait until nobody waits for anything else; return whether the review is closed."""
        self._wait_for_quiet(0)
        return self._closed.is_set()

    def _wait_for_quiet(self, known: int) -> None:
        begun = time.monotonic()
        while not self._closed.wait(0.002):
            now = time.monotonic()
            if now - self._asked > _QUIET or now - begun > _LONGEST_WAIT:
                return
