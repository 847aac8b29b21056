"""Writes the events of a run as a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

The format is the Trace Event Format: a process per worker, a thread per thread, a complete event ("X") per piece of
work, and a counter ("C") of the images that wait for each stage of a worker, where any do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgfast.bench.events import by_thread, is_forward, span
from fgfast.writing import Target, write_file

if TYPE_CHECKING:
    from fgfast.runner import Event

PARENT = "parent process"
"""The name of the process that is not a worker."""


def write(path: Path, events: Sequence[Event], title: str) -> None:
    """Write the trace of a run to a JSON file."""
    write_file(Target.file(path), (json.dumps(trace(events, title)) + "\n").encode())


def trace(events: Sequence[Event], title: str) -> dict[str, Any]:
    """Return the trace of a run as plain values, its events in order of time.

    Args:
        events: the events of the run; their clock counts seconds.
        title: the run in words.
    """
    zero, _ = span(events)

    def at(seconds: float) -> float:
        """Return microseconds from the start of the run, to the nanosecond."""
        return round(1e6 * (seconds - zero), 3)

    names: list[dict[str, Any]] = []
    timed: list[dict[str, Any]] = []
    processes: dict[str, int] = {}
    queued = {e.stage for e in events if e.waiting}
    rows = 0
    for worker, thread, own in by_thread(events):
        if worker not in processes:
            processes[worker] = len(processes) + 1
            names += _named("process", processes[worker], 0, worker or PARENT)
        pid = processes[worker]
        for row, pieces in enumerate(_rows(own), 1):
            rows += 1
            names += _named("thread", pid, rows, (thread or "main") + (f" ({row})" if row > 1 else ""))
            for e in pieces:
                piece = {"name": e.stage, "cat": "forward" if is_forward(e) else "cpu", "ph": "X", "pid": pid}
                times = {"ts": at(e.start), "dur": round(at(e.end) - at(e.start), 3)}
                timed.append(piece | times | {"tid": rows, "args": {"images": e.items, "waiting": e.waiting}})
                if e.stage in queued:
                    counter = {"name": f"waiting for {e.stage}", "ph": "C", "pid": pid, "ts": at(e.start)}
                    timed.append(counter | {"args": {"images": e.waiting}})
    # The counter of a moment comes before the work that begins then.
    timed.sort(key=lambda entry: (entry["ts"], entry["ph"]))
    return {"traceEvents": names + timed, "displayTimeUnit": "ms", "otherData": {"title": title}}


def _named(kind: str, process: int, thread: int, name: str) -> Iterator[dict[str, Any]]:
    """Yield the metadata events that name a process or a thread and fix its position."""
    place = {"ph": "M", "pid": process, "tid": thread}
    yield {"name": f"{kind}_name", **place, "args": {"name": name}}
    yield {"name": f"{kind}_sort_index", **place, "args": {"sort_index": thread or process}}


def _rows(events: Sequence[Event]) -> list[list[Event]]:
    """Distribute the events of a thread over rows without overlaps, as the format requires."""
    rows: list[list[Event]] = []
    for e in events:
        free = next((row for row in rows if row[-1].end <= e.start), None)
        if free is None:
            rows.append([e])
        else:
            free.append(e)
    return rows
