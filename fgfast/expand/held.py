"""Something heavy that a step makes at first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """Makes something at first use, once per process, for any number of threads; it is pickled without that."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Keep the function, which can be pickled, for the first use."""
        self._make, self._lock = make, threading.Lock()
        self._made: list[T] = []
        self._failed: Exception | None = None

    def __call__(self) -> T:
        """Return what was made.

        Raises:
            Exception: what the function raised; it is not called again, for a model that is broken stays so.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            if not self._made:
                try:
                    self._made.append(self._make())
                except Exception as error:
                    self._failed = error
                    raise
            return self._made[0]

    def __reduce__(self) -> tuple[type[Held[T]], tuple[Callable[[], T]]]:
        return type(self), (self._make,)
