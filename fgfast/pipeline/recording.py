"""What every run shares, whatever it makes: open and compare an output; commit, record and count results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fgfast.io.output import Mode, Output
from fgfast.io.portable_paths import PortablePaths
from fgfast.pipeline.resume import Expected, Found, examine
from fgfast.pipeline.work import Progress, Recorder, Work
from fgfast.pipeline.workers import Workers
from fgfast.records import Status
from fgfast.runner import Watch


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


def recorder(
    output: Output, portable: PortablePaths, found: Found, progress: Progress, watch: Watch | None
) -> Recorder:
    """Return what takes a run's results, which begins with what the output holds already, and reports that."""
    counts: Counter[Status] = Counter(found.finished.values())
    progress(dict(counts), found.total)
    return Recorder(output, portable, counts, found.total, progress, watch)


def work(workers: Workers, works: Iterable[Work], results: Recorder) -> None:
    """Let workers process works, and record their results; remove what crashed workers left."""
    workers.work(works, results.collect)
    if workers.crashes():
        results.output.sweep_temp_files()
