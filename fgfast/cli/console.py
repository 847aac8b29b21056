"""What a person sees while a run goes on and when it ends."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fgfast.pipeline.plan import Plan
    from fgfast.pipeline.run import Report
    from fgfast.records import Status

# Without a terminal a line now and then is enough for a log.
_PLAIN_SECONDS = 10.0


class Display(Protocol):
    """Shows counts as they come. Use as a context manager."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *exc: object) -> None: ...

    def __call__(self, counts: dict[Status, int], total: int) -> None: ...


def display(quiet: bool) -> Display:
    """A progress bar on a terminal, plain lines elsewhere, nothing when quiet. Always on standard error."""
    if quiet:
        return _Nothing()
    return _Bar() if sys.stderr.isatty() else _Lines()


class _Nothing:
    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def __call__(self, counts: dict[Status, int], total: int) -> None: ...


class _Lines(_Nothing):
    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, counts: dict[Status, int], total: int) -> None:
        done, now = sum(counts.values()), time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last < _PLAIN_SECONDS and done < total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = f", {duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        note(f"{done:,} of {total:,}" + (f" ({rate:.1f}/s{left})" if rate > 0 else ""))


class _Bar(_Nothing):
    """A bar with rate and time left (rich)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("", total=None, note="starting")
        self._start: tuple[float, int] | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def __call__(self, counts: dict[Status, int], total: int) -> None:
        done, now = sum(counts.values()), time.monotonic()
        self._start = self._start or (now, done)
        rate = (done - self._start[1]) / max(now - self._start[0], 1e-9)
        text = f"{rate:.1f}/s" if rate else ""
        for status in ("flagged", "failed"):
            if counts.get(status):
                text += f"  {counts[status]:,} {status}"
        self._progress.update(self._task, completed=done, total=total, note=text)


def note(text: str) -> None:
    """A line for a person, on standard error."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 10 s, 5 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe_plan(plan: Plan) -> str:
    """What is going to be done, in a few lines."""
    dataset, samples = plan.dataset, plan.selected
    splits: dict[str, int] = {}
    for sample in samples:
        splits[sample.split or "all"] = splits.get(sample.split or "all", 0) + 1
    parts = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    lines = [
        f"{dataset.name}: {len(samples):,} of {len(dataset.samples):,} images ({parts}) from {dataset.root}",
        *(f"  {reason}" for reason in plan.reasons),
        f"  background {plan.settings.fill.describe()}, format {plan.settings.format}, "
        f"crop {plan.settings.crop}, masks {plan.settings.masks}",
        f"  to {plan.out / dataset.folder}",
    ]
    return "\n".join(lines)


def plan_json(plan: Plan) -> str:
    """The same for machines."""
    content = {
        "dataset": plan.dataset.name,
        "root": str(plan.dataset.root),
        "twin": str(plan.out / plan.dataset.folder),
        "selected": len(plan.positions),
        "samples": len(plan.dataset.samples),
        "choices": plan.reasons,
        "fingerprint": plan.fingerprint,
    }
    return json.dumps(content, indent=2)


def summary(report: Report) -> str:
    """What happened, where it is, what to do next."""
    counts = report.counts
    worked = sum(counts.values()) - report.resumed
    lines = [
        f"{'Stopped' if report.stopped else 'Finished'}: {sum(counts.values()):,} of {report.total:,} images"
        + (f", {report.resumed:,} of them before" if report.resumed else "")
        + f"; {worked:,} in {duration(report.seconds)}"
        + (f" ({report.rate:.1f} a second)" if worked else ""),
        f"  done     {counts['done']:>7,}",
        f"  flagged  {counts['flagged']:>7,}{_reasons(report.flags)}",
    ]
    if counts["skipped"]:
        lines.append(f"  skipped  {counts['skipped']:>7,}")
    lines += [
        f"  failed   {counts['failed']:>7,}{_reasons(report.failures)}",
        f"Twin:   {report.twin}",
        f"Report: {report.html}",
        f"Next:   {_next(report)}",
    ]
    return "\n".join(lines)


def _reasons(reasons: Mapping[str, int]) -> str:
    return f"  ({', '.join(f'{name}: {count:,}' for name, count in reasons.items())})" if reasons else ""


def _next(report: Report) -> str:
    if report.stopped:
        return "start the same command again to go on where it stopped"
    if report.counts["failed"]:
        return "mend or replace the failed images (named in the report), then start the same command again"
    if report.counts["flagged"]:
        return "open the report and look at the flagged images first"
    return "load the twin with the data set's usual loader"


def report_json(report: Report) -> str:
    """The report for machines."""
    content: dict[str, Any] = {
        "out": str(report.out),
        "twin": str(report.twin),
        "report": str(report.html),
        "total": report.total,
        "counts": report.counts,
        "flags": report.flags,
        "failures": report.failures,
        "resumed": report.resumed,
        "seconds": round(report.seconds, 3),
        "rate": round(report.rate, 3),
        "stopped": report.stopped,
    }
    return json.dumps(content, indent=2)


class Interruption:
    """The first SIGINT or SIGTERM asks the run to end cleanly; the second ends the process at once.

    Ending at once is safe as well: what the ledger holds is on disk, and the rest is done again.

    Attributes:
        stop: set by the first signal.
        exit_code: 128 + the signal's number, or None.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.exit_code: int | None = None

    def __enter__(self) -> Interruption:
        import signal

        self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc: object) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.stop.is_set():
            import os

            os._exit(128 + number)
        self.exit_code = 128 + number
        self.stop.set()
        note("\nstopping: images under way are finished first; once more to end at once")


class Transfer:
    """Shows a download: `transfer(file name, bytes so far, bytes in all or None)`. Use as a context manager."""

    def __init__(self) -> None:
        self._last = 0.0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *exc: object) -> None:
        if sys.stderr.isatty() and self._last:
            note("")

    def __call__(self, name: str, so_far: int, total: int | None) -> None:
        now, complete = time.monotonic(), so_far == total
        pause = 0.2 if sys.stderr.isatty() else _PLAIN_SECONDS
        if now - self._last < pause and not complete:
            return
        self._last = now
        share = f" of {total / 1e6:,.1f} MB ({so_far / total:.0%})" if total else ""
        line = f"fetching {name}: {so_far / 1e6:,.1f} MB{share}"
        print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
