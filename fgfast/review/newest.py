"""Clicks that wait give way to later ones on the same image."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from fgfast.errors import SupersededError


@dataclass(slots=True)
class _Calls:
    newest: int = 0
    under_way: int = 0


class Newest:
    """Which call about the same thing came last; any thread may ask.

    Args:
        superseded: called when a call is no longer the last one, so that what waits for it can look.
    """

    def __init__(self, superseded: Callable[[], None] = lambda: None) -> None:
        self._superseded = superseded
        self._lock = threading.Lock()
        self._calls: dict[Hashable, _Calls] = {}

    @contextlib.contextmanager
    def call(self, about: Hashable) -> Iterator[Callable[[], None]]:
        """Begin a call, which is now the last one about this.

        Yields:
            A check, which raises SupersededError once a later call has begun.
        """
        with self._lock:
            calls = self._calls.setdefault(about, _Calls())
            calls.newest += 1
            calls.under_way += 1
            mine, others = calls.newest, calls.under_way > 1
        if others:
            self._superseded()

        def check() -> None:
            if calls.newest != mine:
                raise SupersededError("a later click on the same image takes the place of this one")

        try:
            yield check
        finally:
            with self._lock:
                calls.under_way -= 1
                if not calls.under_way:
                    del self._calls[about]
