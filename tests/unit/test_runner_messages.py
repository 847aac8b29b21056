"""How many messages the parent sends: each costs it and the worker more than a small item does."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest

from fgfast.runner import Supervisor, WorkerSpec, worker
from fgfast.runner.queues import Tasks
from fgfast.runner.worker_handle import WorkerHandle

LIMIT, ITEMS = 12, 400


class Sent:
    """Stands for the channel to a process."""

    def __init__(self) -> None:
        self.works: list[list[int]] = []

    def send(self, kind: str, *content: Any) -> None:
        if kind == "work":
            self.works.append([ticket for ticket, _ in content[0]])


def test_work_is_sent_many_items_at_a_time_and_the_worker_never_runs_out() -> None:
    job: Any = type("Job", (), {"phases": 1})()
    supervisor: Supervisor[int, int] = Supervisor(job, [WorkerSpec("cpu", "cpu")], lambda *given: 0)
    supervisor._tasks = Tasks(range(ITEMS), 1)
    handle: WorkerHandle[int] = supervisor.handles[0]
    handle.channel = sent = Sent()  # type: ignore[assignment]
    handle.opened(LIMIT, {})
    done: list[int] = []
    least = ITEMS
    while True:
        supervisor._give()
        if not handle.given:
            break
        if len(done) + len(handle.given) < ITEMS:
            least = min(least, len(handle.given))
        ticket = next(iter(handle.given))
        supervisor._results(handle, [(ticket, False, ticket)], [])  # the worker answers one by one
        done.append(ticket)
    assert sorted(done) == list(range(1, ITEMS + 1))
    assert len(sent.works) <= ITEMS // 8 + 1, "a message per result"
    assert least >= 2 * LIMIT + 8, "fewer than twice what it has in flight, and what is on its way"
    assert [ticket for work in sent.works for ticket in work] == sorted(done)


def test_a_worker_sends_results_together_and_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    channel: Any = SimpleNamespace(send=lambda kind, results, events: sent.put(results))
    for gather, many in ((0.2, worker._MOST - 1), (60.0, worker._MOST)):  # few after a while, many without waiting
        monkeypatch.setattr(worker, "_GATHER", gather)
        results = worker._Results(channel)
        given = [(n, False, n) for n in range(many)]
        for one in given:
            results.put(one)
        assert sent.get(timeout=30) == given
