"""What a person sees during a run and at its end."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.terminal import line, note

if TYPE_CHECKING:
    from fgfast.io.output import Mode, Output
    from fgfast.pipeline.finish import Report
    from fgfast.pipeline.plan import Plan
    from fgfast.pipeline.run import Progress
    from fgfast.records import Status

# Without a terminal a line now and then is enough for a log.
_PLAIN_SECONDS = 10.0
_BAD: tuple[Status, ...] = ("flagged", "failed")


@contextmanager
def progress(quiet: bool) -> Iterator[Progress | None]:
    """Show counts on standard error: as a bar on a terminal, as plain lines elsewhere, not at all when quiet."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        bar.add_task("", total=None, note="starting")
        (task,) = bar.tasks

        def update(counts: dict[Status, int], total: int) -> None:
            parts = [f"{task.speed:.1f}/s"] if task.speed else []
            parts += [f"{counts[status]:,} {status}" for status in _BAD if counts.get(status)]
            bar.update(task.id, completed=sum(counts.values()), total=total, note="  ".join(parts))

        yield update


def _plain_progress() -> Progress:
    due, start, first = _every(_PLAIN_SECONDS), time.monotonic(), None

    def update(counts: dict[Status, int], total: int) -> None:
        nonlocal first
        done = sum(counts.values())
        if first is None:  # images of an earlier run do not count for the rate
            first = done
        if done < total and not due():
            return
        rate = (done - first) / max(time.monotonic() - start, 1e-9)
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        note(f"{done:,} of {total:,}" + (f" ({rate:.1f}/s{left})" if rate else ""))

    return update


def _every(seconds: float) -> Callable[[], bool]:
    """A function that returns True when so many seconds have passed since it last did, or since it was made."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due


@contextmanager
def transfer() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show downloads: call it with a file's name, the bytes so far, and the bytes in all or None."""
    if not sys.stderr.isatty():
        yield _plain_transfer()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("fetching {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        tasks: dict[str, TaskID] = {}

        def update(name: str, so_far: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(line(name), total=None)
            bar.update(tasks[name], completed=so_far, total=total)

        yield update


def _plain_transfer() -> Callable[[str, int, int | None], None]:
    due = _every(_PLAIN_SECONDS)

    def update(name: str, so_far: int, total: int | None) -> None:
        if due() or so_far == total:
            share = f" of {total / 1e6:,.1f} MB ({so_far / total:.0%})" if total else ""
            note(f"fetching {name}: {so_far / 1e6:,.1f} MB{share}")

    return update


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 10 s, 5 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe_plan(plan: Plan) -> str:
    """What a run will do, in a few lines."""
    dataset, samples = plan.dataset, plan.selected
    splits = Counter(sample.split or "no split" for sample in samples)
    parts = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    parts = "" if [*splits] == ["no split"] else f" ({parts})"
    crop = plan.settings.crop + (f" with pad {plan.settings.pad:g}" if plan.settings.crop != "none" else "")
    lines = [
        f"{dataset.name}: {len(samples):,} of {len(dataset.samples):,} images{parts} from {dataset.root}",
        *(f"  {reason}" for reason in plan.reasons),
        *(f"  warning: {warning}" for warning in plan.warnings),
        f"  background {plan.settings.fill.describe()}, format {plan.settings.format}, "
        f"crop {crop}, masks {plan.settings.masks}",
        f"  to {plan.out / dataset.folder}",
    ]
    return "\n".join(map(line, lines))


@dataclass(frozen=True)
class Expected:
    """What is expected of a run, by the speed of the last run like it on this machine.

    Attributes:
        left: number of images that are still to be done.
        rate: images per second; None where it was not measured.
    """

    left: int
    rate: float | None

    @classmethod
    def of(cls, plan: Plan, output: Output, mode: Mode) -> Expected:
        """Return what is expected of a plan whose output may hold an earlier part of the run."""
        from fgfast.io.ledger import Ledger
        from fgfast.pipeline.rate import expected_rate

        left = len(plan.positions)
        if mode != "overwrite" and output.recorded() is not None:
            with Ledger(output.ledger_path, write=False) as ledger:
                counts = ledger.counts()
            left = max(0, left - counts["done"] - counts["flagged"])
        return cls(left, expected_rate(plan))

    def describe(self) -> str:
        """The expectation in a line."""
        if self.rate is None:
            return f"{self.left:,} images to do; how long that takes was not measured on this machine yet"
        time = duration(self.left / self.rate)
        return f"{self.left:,} images to do, in about {time}: the last run like this made {self.rate:.3g} images/s"


def plan_json(plan: Plan, expected: Expected, refused: Exception | None = None) -> str:
    """The plan as JSON, with the reason for which the run would be refused, if any."""
    content = {
        "dataset": plan.dataset.name,
        "root": str(plan.dataset.root),
        "twin": str(plan.out / plan.dataset.folder),
        "selected": len(plan.positions),
        "samples": len(plan.dataset.samples),
        "choices": plan.reasons,
        "warnings": plan.warnings,
        "left": expected.left,
        "images_per_second": expected.rate,
        "fingerprint": plan.fingerprint,
        "refused": None if refused is None else str(refused),
    }
    return json.dumps(content, indent=2)


def summary(report: Report, expanded: Path | None = None, told: Collection[str] = ()) -> str:
    """The counts of a run, the paths of its results, and what to do next.

    Args:
        report: the report.
        expanded: the run that was expanded, where it is the report of an expansion.
        told: messages that were printed while it ran; what they say is not said again.
    """
    counts = report.counts
    worked = sum(counts.values()) - report.resumed
    lines = [
        f"{'Stopped' if report.stopped else 'Finished'}: {sum(counts.values()):,} of {report.total:,} images"
        + (f", {report.resumed:,} of them in earlier runs" if report.resumed else "")
        + (f"; {worked:,} in {duration(report.seconds)} ({report.rate:.1f} images/s)" if worked else ""),
        f"  done     {counts['done']:>7,}",
        f"  flagged  {counts['flagged']:>7,}{_reasons(report.flags)}",
    ]
    if counts["skipped"]:
        lines.append(f"  skipped  {counts['skipped']:>7,}")
    lines += [
        f"  failed   {counts['failed']:>7,}{_reasons(report.failures)}",
        *(f"  {message}" for message in report.changes.messages() if message not in told),
        f"Result: {report.out}" if expanded else f"Twin:   {report.twin}",
        *([f"Load:   {report.load}"] if report.load else []),
        f"Report: {report.html}",
        *(f"Warning: {warning}" for warning in report.warnings),
    ]
    lines += [f"{'Next:' if n == 0 else '':<8}{sentence}" for n, sentence in enumerate(_next(report, expanded))]
    return "\n".join(map(line, lines))


def _reasons(reasons: Mapping[str, int]) -> str:
    return f"  ({', '.join(f'{name}: {count:,}' for name, count in reasons.items())})" if reasons else ""


def _next(report: Report, expanded: Path | None = None) -> list[str]:
    """What to do next, one sentence per line."""
    if report.stopped:
        return ["run the same command again to resume"]
    lines, lists = [], _lists(report)
    if failed := report.counts["failed"]:
        lines.append(
            f"repair or replace the {_images('failed', failed)} (listed in {lists['failed_csv']}), then run the same "
            "command again"
        )
    flagged = report.counts["flagged"]
    if flagged and expanded:
        lines.append(
            f"look at the {_images('flagged', flagged)} in the report; where a mask is wrong, mend it with "
            f"fgfast review {shlex.quote(str(expanded))}, then run the same command again: what was mended is made anew"
        )
    elif flagged:
        lines.append(
            f"look at the {_images('flagged', flagged)}, and mend them: fgfast review {shlex.quote(str(report.out))} "
            f"(they are in the report, too, and listed in {lists['flagged_csv']}); to leave some out, convert again "
            "with --exclude FILE, a list of their keys"
        )
    if expanded:
        return lines or ["open the report"]
    return lines or ["load the twin with the line above"]


def _images(kind: str, count: int) -> str:
    return f"{count:,} {kind} image{'' if count == 1 else 's'}"


def _lists(report: Report) -> dict[str, str]:
    """The paths of the lists of images that a person should look at."""
    from fgfast.io.listing import FAILED, FLAGGED

    return {"flagged_csv": str(report.html.with_name(FLAGGED)), "failed_csv": str(report.html.with_name(FAILED))}


def report_json(report: Report) -> str:
    """The report as JSON."""
    content: dict[str, Any] = {
        "out": str(report.out),
        "twin": str(report.twin),
        "report": str(report.html),
        "load": report.load,
        **_lists(report),
        "total": report.total,
        "counts": report.counts,
        "flags": report.flags,
        "failures": report.failures,
        "resumed": report.resumed,
        "changes": asdict(report.changes),
        "seconds": round(report.seconds, 3),
        "rate": round(report.rate, 3),
        "stopped": report.stopped,
        "warnings": report.warnings,
    }
    return json.dumps(content, indent=2)
