"""The Chrome trace of a run: complete, in order, and by the rules of the Trace Event Format."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fgfast.bench.trace import PARENT, trace, write
from fgfast.runner import Event

# Two workers with a device each, whose forwards overlap by a third; a pool thread; the parent.
RUN = [
    Event("decode", "cuda:0", "pool-0", 100.0, 100.5, 1, 0),
    Event("encode", "cuda:0", "device", 100.5, 103.5, 4, 3),
    Event("encode", "cuda:0", "device", 102.5, 105.5, 4, 1),
    Event("encode", "cuda:1", "device", 101.0, 102.0, 4, 2),
    Event("commit", "", "collect", 105.5, 106.000000001, 8, 0),
]


def entries(kind: str) -> list[dict[str, Any]]:
    return [entry for entry in trace(RUN, "a run")["traceEvents"] if entry["ph"] == kind]


def test_a_written_trace_has_what_viewers_read(tmp_path: Path) -> None:
    write(tmp_path / "run.json", RUN, "a run")
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["otherData"] == {"title": "a run"}
    assert found["displayTimeUnit"] == "ms"
    wanted = {"M": {"args"}, "X": {"ts", "dur", "cat", "args"}, "C": {"ts", "args"}}
    for entry in found["traceEvents"]:
        assert wanted[entry["ph"]] | {"name", "pid"} <= entry.keys()
        assert all(isinstance(entry[key], int) for key in ("pid", "tid") if key in entry)
        assert entry["ph"] == "C" or entry["tid"] >= 0


def test_every_event_is_there_with_its_time() -> None:
    pieces = entries("X")
    assert len(pieces) == len(RUN)
    for stage in {e.stage for e in RUN}:
        microseconds = sum(piece["dur"] for piece in pieces if piece["name"] == stage)
        assert microseconds == pytest.approx(1e6 * sum(e.end - e.start for e in RUN if e.stage == stage))
    assert sum(piece["args"]["images"] for piece in pieces) == sum(e.items for e in RUN)
    assert {piece["name"] for piece in pieces if piece["cat"] == "forward"} == {"encode"}


def test_times_are_in_order_and_begin_with_the_run() -> None:
    times = [entry["ts"] for entry in trace(RUN, "")["traceEvents"] if "ts" in entry]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] == pytest.approx(5.5e6)


def test_pieces_of_a_thread_do_not_overlap() -> None:
    threads = defaultdict(list)
    for piece in entries("X"):
        threads[piece["pid"], piece["tid"]].append(piece)
    assert len(threads) == 5  # the overlapping forwards of one device take a row more
    for pieces in threads.values():
        assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(pieces))


def test_processes_are_workers_and_threads_are_threads() -> None:
    names = {(entry["name"], entry["pid"], entry["tid"]): entry["args"].get("name") for entry in entries("M")}
    processes = {pid: name for (kind, pid, _), name in names.items() if kind == "process_name"}
    assert list(processes.values()) == ["cuda:0", "cuda:1", PARENT]
    threads = [(processes[pid], name) for (kind, pid, _), name in names.items() if kind == "thread_name"]
    assert threads == [
        ("cuda:0", "device"),
        ("cuda:0", "device (2)"),
        ("cuda:0", "pool-0"),
        ("cuda:1", "device"),
        (PARENT, "collect"),
    ]


def test_counters_are_the_queues_of_each_worker() -> None:
    counters = [(entry["name"], entry["pid"], entry["ts"], entry["args"]) for entry in entries("C")]
    assert counters == [
        ("waiting for encode", 1, 0.5e6, {"images": 3}),
        ("waiting for encode", 2, 1e6, {"images": 2}),
        ("waiting for encode", 1, 2.5e6, {"images": 1}),
    ]


def test_a_run_without_events_is_an_empty_trace() -> None:
    assert trace([], "nothing")["traceEvents"] == []
