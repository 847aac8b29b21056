from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fgfast.runner import Failures, Finished, run


class Step:
    def __init__(self, name: str, act=lambda item: None) -> None:
        self.name = name
        self.act = act

    def __call__(self, item: dict) -> None:
        self.act(item)


def keep(finished: Finished) -> Finished:
    return finished


def collected(items, stages, **options):
    finished: list[Finished] = []
    options.setdefault("threads", 3)
    options.setdefault("stop", threading.Event())
    run(items, stages, keep, finished.extend, **options)
    return finished


def test_every_item_goes_through_every_stage_once() -> None:
    steps = [Step(str(n), lambda item, n=n: item["seen"].append(n)) for n in range(4)]
    finished = collected([{"id": n, "seen": []} for n in range(500)], steps)
    assert sorted(f.item["id"] for f in finished) == list(range(500))
    assert all(f.item["seen"] == [0, 1, 2, 3] and f.error is None and f.stage == "3" for f in finished)
    assert all(set(f.seconds) == {"0", "1", "2", "3"} for f in finished)


def test_failures_travel_as_values() -> None:
    def pick(item: dict) -> None:
        if item["id"] % 3 == 0:
            raise ValueError(item["id"])

    after: list[int] = []
    finished = collected(
        [{"id": n} for n in range(30)],
        [Step("pick", pick), Step("after", lambda item: after.append(item["id"]))],
    )
    failed = [f for f in finished if f.error]
    assert sorted(f.item["id"] for f in failed) == list(range(0, 30, 3))
    assert {f.stage for f in failed} == {"pick"}
    assert sorted(after) == [n for n in range(30) if n % 3]


def test_a_fatal_error_ends_the_run_and_keeps_what_is_done() -> None:
    def full(item: dict) -> None:
        if item["id"] == 50:
            raise OSError("disk full")

    finished: list[Finished] = []
    with pytest.raises(OSError, match="disk full"):
        run(
            ({"id": n} for n in range(100_000)),
            [Step("write", full), Step("slow", lambda item: time.sleep(0.001))],
            keep,
            finished.extend,
            threads=2,
            stop=threading.Event(),
            failures=Failures(fatal=(OSError,)),
        )
    ids = sorted(f.item["id"] for f in finished)
    assert 50 not in ids
    assert set(range(50)) <= set(ids)
    assert len(ids) < 5000


def test_stop_finishes_what_is_under_way() -> None:
    stop = threading.Event()
    taken: list[int] = []

    def source() -> Iterator[dict]:
        for n in range(100_000):
            taken.append(n)
            yield {"id": n}

    def step(item: dict) -> None:
        if item["id"] == 20:
            stop.set()
        time.sleep(0.001)

    finished = collected(source(), [Step("work", step)], stop=stop)
    assert sorted(f.item["id"] for f in finished) == taken
    assert len(taken) < 100


def test_items_are_taken_only_as_workers_become_free() -> None:
    """Back-pressure: a slow collector does not let finished items pile up without bound."""
    taken = 0

    def source() -> Iterator[dict]:
        nonlocal taken
        for n in range(20_000):
            taken += 1
            yield {"id": n}

    lead = 0
    seen = 0

    def collect(batch: list[Finished]) -> None:
        nonlocal lead, seen
        lead = max(lead, taken - seen)
        seen += len(batch)
        if seen < 5000:
            time.sleep(0.01)

    run(source(), [Step("work")], keep, collect, threads=2, stop=threading.Event())
    assert seen == 20_000
    assert lead < 3000


def test_an_error_of_the_collector_reaches_the_caller() -> None:
    def collect(batch: list[Finished]) -> None:
        raise RuntimeError("ledger gone")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="ledger gone"):
        run(
            ({"id": n} for n in range(10_000)),
            [Step("work")],
            keep,
            collect,
            threads=2,
            stop=threading.Event(),
        )
    assert threading.active_count() == before


def test_an_error_of_the_source_reaches_the_caller() -> None:
    def source() -> Iterator[dict]:
        yield {"id": 0}
        raise RuntimeError("list broken")

    finished: list[Finished] = []
    with pytest.raises(RuntimeError, match="list broken"):
        run(source(), [Step("work")], keep, finished.extend, threads=2, stop=threading.Event())
    assert [f.item["id"] for f in finished] == [0]


def test_what_is_large_does_not_wait_for_the_collector() -> None:
    """Only what `close` keeps is queued: pixels are freed as soon as their image is written."""
    alive: set[int] = set()
    most = 0

    class Image:
        def __init__(self, n: int) -> None:
            self.n = n
            alive.add(n)

        def __del__(self) -> None:
            alive.discard(self.n)

    def collect(batch: list[int]) -> None:
        nonlocal most
        most = max(most, len(alive))

    run(
        (Image(n) for n in range(2000)),
        [Step("work")],
        lambda finished: finished.item.n,
        collect,
        threads=2,
        stop=threading.Event(),
    )
    assert most <= 4


def test_a_fault_of_close_reaches_the_caller() -> None:
    def close(finished: Finished) -> None:
        raise RuntimeError("cannot be recorded")

    with pytest.raises(RuntimeError, match="cannot be recorded"):
        run(({"id": n} for n in range(100)), [Step("work")], close, print, threads=2, stop=threading.Event())


def test_an_exception_that_is_no_exception_does_not_hang_the_run() -> None:
    def leave(item: dict) -> None:
        raise SystemExit(1)

    with pytest.raises(RuntimeError, match="SystemExit"):
        run(({"id": n} for n in range(50)), [Step("x", leave)], keep, print, threads=2, stop=threading.Event())
