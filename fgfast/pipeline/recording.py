"""What every run shares, whatever it makes: open and compare an output; commit, record and count results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fgfast.io.output import Mode, Output
from fgfast.io.portable_paths import PortablePaths
from fgfast.pipeline.resume import Expected, Found, examine
from fgfast.pipeline.work import Result, Work, record
from fgfast.pipeline.workers import Workers
from fgfast.records import Status
from fgfast.runner import Event, Watch

Progress = Callable[[dict[Status, int], int], None]
"""Called with the counts so far and the number of selected samples."""


def open_output(
    output: Output,
    mode: Mode,
    fingerprint: Mapping[str, Any],
    meta: Mapping[str, Any],
    source: Path,
    expected: Callable[[], Expected],
    verify: bool,
) -> Found:
    """Open an output for a run, and return what it holds already.

    Args:
        output: the output, locked by this.
        mode, fingerprint, source: see `Output.open`.
        meta: what the ledger keeps about the run.
        expected: makes what the plan expects of the output; called once it is open.
        verify: whether to hash the files of an earlier run; this is always done where it did not end cleanly.
    """
    unclean = output.open(mode, fingerprint, source)
    output.ledger.set_meta(meta)
    return examine(expected(), output, read=verify or unclean)


class Recorder:
    """Takes the results of a run as they come; for one thread.

    Attributes:
        counts: status -> number of samples so far, those of earlier runs among them.
    """

    def __init__(
        self, output: Output, portable: PortablePaths, found: Found, progress: Progress, watch: Watch | None
    ) -> None:
        """Begin with what an output holds already, and report that."""
        self._output, self._portable, self._total = output, portable, found.total
        self._progress, self._watch = progress, watch
        self.counts: Counter[Status] = Counter(found.finished.values())
        progress(dict(self.counts), self._total)

    def collect(self, batch: list[Result]) -> None:
        """Commit and record results."""
        began = time.monotonic()
        outcomes = record(batch, self._output, self._portable)
        if self._watch:
            self._watch(Event("commit", "", "collect", began, time.monotonic(), len(batch), 0))
        self.counts.update(outcome.status for outcome in outcomes)
        self._progress(dict(self.counts), self._total)

    def work(self, workers: Workers, works: Iterable[Work]) -> None:
        """Let workers process works, and record their results; remove what crashed workers left."""
        workers.work(works, self.collect)
        if workers.crashes():
            self._output.sweep_temp_files()
