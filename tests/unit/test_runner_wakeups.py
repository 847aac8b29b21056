"""Which threads of a flow wake, and how often: those for which there is work, once for each piece of it.

Returns from `Condition.wait` are counted, because they do not depend on how busy the machine is; seconds do.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from fgfast.runner import BatchedStage, Failures, Finished
from fgfast.runner.flow import Flow

SECONDS = 8  # after which a run counts as hanging


class TooLargeError(Exception):
    """Stands for a device out of memory."""


class BrokenError(Exception):
    """Stands for a device beyond repair."""


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Thread name -> number of returns from the wait of any condition."""
    counts: Counter[str] = Counter()

    class Counting(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            answer = super().wait(timeout)
            counts[threading.current_thread().name] += 1
            return answer

    monkeypatch.setattr(threading, "Condition", Counting)
    return counts


@dataclass
class Asleep:
    """A model that sleeps on its device and computes nothing."""

    name: str = "model"
    device: str = "fake:0"
    batch: int = 4
    depth: int = 2
    seconds: float = 0.0
    buckets: int = 1
    no_memory: int = 0  # the slot, counted from 1, for which there is no memory; the next one replaces another
    unfillable: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()
    slots: int = 0

    def bucket(self, number: int) -> int:
        return number % self.buckets

    def rows(self, bucket: int) -> int:
        return self.batch

    def slot(self, bucket: int) -> list[int]:
        self.slots += 1
        if self.slots == self.no_memory:
            raise TooLargeError
        return [-1] * self.batch

    def fill(self, slot: list[int], row: int, number: int) -> None:
        if number in self.unfillable:
            raise ValueError("unfillable")
        slot[row] = number

    def launch(self, slot: list[int], rows: int) -> None:
        if set(slot[:rows]) & set(self.broken):
            raise BrokenError

    def wait(self, slot: list[int]) -> None:
        time.sleep(self.seconds)

    def read(self, slot: list[int], row: int) -> int:
        return slot[row]

    def shrink(self) -> None:
        """Its shapes are not fixed."""


class Nothing:
    """A step without work."""

    name = "nothing"

    def __call__(self, item: int) -> None:
        pass


@dataclass
class Given:
    """A source that has what it is given."""

    waiting: deque[int] = field(default_factory=deque)
    over: bool = False

    def take(self) -> int | None:
        return self.waiting.popleft() if self.waiting else None

    def ended(self) -> bool:
        return self.over and not self.waiting


@dataclass
class Running:
    """A flow that runs in a thread of its own."""

    flow: Flow[int]
    source: Given
    stop: threading.Event
    finished: list[int]
    failed: list[int]
    ended: threading.Event
    errors: list[BaseException]

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < end, "the flow hangs"
            time.sleep(0.001)


@contextmanager
def running(stages: list[Any], threads: int, given: int = 0, over: bool = False) -> Iterator[Running]:
    finished: list[int] = []
    failed: list[int] = []
    source, stop, ended, errors = Given(deque(range(given)), over), threading.Event(), threading.Event(), []

    def done(result: Finished[int]) -> None:
        (failed if result.error else finished).append(result.item)

    failures = Failures(memory=(TooLargeError,), broken=(BrokenError,))
    flow: Flow[int] = Flow(stages, source, done, threads=threads, stop=stop, failures=failures)

    def work() -> None:
        try:
            flow.run()
        except BaseException as error:
            errors.append(error)
        ended.set()

    threading.Thread(target=work, name="flow", daemon=True).start()
    yield Running(flow, source, stop, finished, failed, ended, errors)
    stop.set()
    flow.wake()
    assert ended.wait(SECONDS), "the flow hangs"


def batched(model: Asleep) -> BatchedStage[int]:
    return BatchedStage(model.name, model, lambda number: (number,), lambda number, result: None)


def pool(woken: Counter[str]) -> int:
    return sum(count for name, count in woken.items() if name.startswith("pool-"))


def wakes_per_item(woken: Counter[str], threads: int, count: int = 300) -> tuple[float, float]:
    """Return the wake-ups of the pool and of the device's threads per item of a run through two models."""
    woken.clear()
    models = [batched(Asleep("one", seconds=0.0005)), batched(Asleep("two", seconds=0.001))]
    stages = [Nothing(), models[0], Nothing(), models[1], Nothing()]
    with running(stages, threads, count, over=True) as run:
        assert run.ended.wait(SECONDS)
    assert len(run.finished) == count
    return pool(woken) / count, (woken["fake:0 launch"] + woken["fake:0 wait"]) / count


def test_a_large_pool_wakes_as_often_as_a_small_one(woken: Counter[str]) -> None:
    """An item has five pieces of work for the pool, and shares two batches; with one condition for all it wakes 25."""
    few, _ = wakes_per_item(woken, 2)
    many, device = wakes_per_item(woken, 64)
    assert few <= 5 and many <= 5, (few, many)
    assert device <= 4, device


def test_nobody_wakes_while_there_is_nothing_to_do(woken: Counter[str]) -> None:
    with running([Nothing(), batched(Asleep())], threads=16) as run:
        time.sleep(0.1)
        woken.clear()
        time.sleep(1.2)
        assert not {name for name in woken if name.startswith(("pool-", "fake:0", "flow"))}
    assert run.ended.is_set()


def test_an_item_from_outside_wakes_one_thread(woken: Counter[str]) -> None:
    with running([Nothing()], threads=16) as run:
        time.sleep(0.1)
        woken.clear()
        for number in range(20):
            run.source.waiting.append(number)
            run.flow.wake()
            run.until(lambda number=number: len(run.finished) == number + 1)
        assert pool(woken) <= 20


def test_stop_wakes_a_flow_whose_source_has_nothing() -> None:
    with running([Nothing(), batched(Asleep())], threads=4) as run:
        time.sleep(0.05)
        run.stop.set()
        run.flow.wake()
        assert run.ended.wait(SECONDS)


def test_the_end_of_the_source_wakes_a_flow_that_sleeps() -> None:
    with running([Nothing(), batched(Asleep())], threads=4, given=10) as run:
        run.until(lambda: len(run.finished) == 10)
        run.source.over = True
        run.flow.wake()
        assert run.ended.wait(SECONDS)


def test_a_broken_device_wakes_the_caller_though_everybody_else_sleeps() -> None:
    with running([batched(Asleep(batch=1, broken=(7,)))], threads=4, given=8) as run:
        assert run.ended.wait(SECONDS)
    assert isinstance(run.errors[0], BrokenError)


def test_a_batch_that_is_due_is_launched_though_everybody_sleeps() -> None:
    with running([batched(Asleep(batch=8))], threads=4, given=3) as run:
        run.until(lambda: len(run.finished) == 3)


def test_the_only_slot_whose_items_all_failed_is_free_for_the_next_bucket() -> None:
    """With memory for one slot, and one thread: nobody else comes by who would look once more."""
    model = Asleep(buckets=2, no_memory=2, unfillable=(0,))
    with running([batched(model)], threads=1, given=2, over=True) as run:
        assert run.ended.wait(SECONDS), "the flow hangs"
    assert (sorted(run.finished), sorted(run.failed)) == ([1], [0])
