"""Which samples of the data set are converted."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fgfast.errors import UsageError


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of the data set are converted; empty means all.

    Attributes:
        splits: names of splits.
        classes: class names.
        limit: at most this many samples, spread evenly over the data set; None means no limit.
        exclude: files that list samples to leave out: keys, one per line, or the flagged.csv or failed.csv of a run.
    """

    splits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    limit: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("splits", "classes", "exclude"):
            value = getattr(self, name)  # one name, not its characters
            object.__setattr__(
                self, name, (str(value),) if isinstance(value, (str, os.PathLike)) else tuple(map(str, value))
            )
        whole = isinstance(self.limit, int) and not isinstance(self.limit, bool)
        if self.limit is not None and (not whole or self.limit < 1):
            raise UsageError(f"limit must be a whole number of at least 1, not {self.limit!r}")
