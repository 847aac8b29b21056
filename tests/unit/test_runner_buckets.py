"""Items of several buckets in any order: full batches while the device is busy, no idle device, few slots."""

from __future__ import annotations

import itertools
import random
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from fgfast.runner import BatchedStage, Event, Failures, Finished, batching, run
from fgfast.runner.batching import Ring
from fgfast.runner.stages import InFlightItem


class TooLargeError(Exception):
    """Stands for a device out of memory."""


@dataclass
class Item:
    number: int
    bucket: int = 0
    entered: float = 0.0
    left: float = 0.0
    got: int | None = None


class Slot(dict[str, Any]):
    """A dict of which there are weak references."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass
class Model:
    """Sleeps in place of a device, as long for a part-filled batch as for a full one: its shapes are fixed."""

    buckets: int = 3
    seconds: float = 0.0
    making: float = 0.0
    memory_for: int = 1000
    device: str = "fake:0"
    batch: int = 4
    depth: int = 2
    made: list[int] = field(default_factory=list)
    launches: list[list[int]] = field(default_factory=list)
    alive: weakref.WeakSet[Slot] = field(default_factory=weakref.WeakSet)
    most: int = 0

    def bucket(self, item: Item) -> int:
        return item.bucket

    def rows(self, bucket: int) -> int:
        return self.batch

    def slot(self, bucket: int) -> Slot:
        time.sleep(self.making)
        if len(self.made) >= self.memory_for:
            raise TooLargeError("no memory for another slot")
        self.made.append(bucket)
        slot = Slot(bucket=bucket, rows=[-1] * self.batch)
        self.alive.add(slot)
        self.most = max(self.most, len(self.alive))
        return slot

    def fill(self, slot: Slot, row: int, item: Item) -> None:
        assert slot["bucket"] == item.bucket
        slot["rows"][row] = item.number

    def launch(self, slot: Slot, rows: int) -> None:
        self.launches.append(slot["rows"][:rows])

    def wait(self, slot: Slot) -> None:
        time.sleep(self.seconds)

    def read(self, slot: Slot, row: int) -> int:
        number: int = slot["rows"][row]
        return number

    def shrink(self) -> None:
        """Its shapes are not shrunk."""


def stage(model: Model) -> BatchedStage[Item]:
    def store(item: Item, number: int) -> None:
        item.got, item.left = number, time.monotonic()

    return BatchedStage("model", model, lambda item: (item,), store)


def mixed(count: int, shares: tuple[float, ...], seed: int = 0) -> list[Item]:
    """Items in random order; shares[n] of them of bucket n."""
    order = random.Random(seed)
    return [Item(n, order.choices(range(len(shares)), shares)[0]) for n in range(count)]


class Enter:
    name = "enter"

    def __call__(self, item: Item) -> None:
        item.entered = time.monotonic()


def through(items: list[Item], model: Model, **options: Any) -> tuple[list[Finished[Item]], list[Event]]:
    finished: list[Finished[Item]] = []
    events: list[Event] = []
    options.setdefault("threads", 3)
    run(
        iter(items),
        [Enter(), stage(model)],
        lambda done: done,
        finished.extend,
        stop=threading.Event(),
        failures=Failures(memory=(TooLargeError,)),
        watch=events.append,
        **options,
    )
    assert sorted(f.item.number for f in finished) == [item.number for item in items]
    assert all(f.error is None and f.item.got == f.item.number for f in finished), [f.error for f in finished]
    return finished, events


def idle_share(events: list[Event]) -> float:
    """Share of the time from the first batch to the last one in which the device had none."""
    batches = sorted((e for e in events if e.thread == "device"), key=lambda e: e.start)
    gaps = sum(max(0.0, b.start - a.end) for a, b in itertools.pairwise(batches))
    return gaps / (batches[-1].end - batches[0].start)


@pytest.mark.parametrize("shares", [(0.5, 0.4, 0.1), (0.36, 0.36, 0.05, 0.05, 0.03, 0.1, 0.05)], ids=["3", "7"])
def test_batches_are_full_whatever_the_order_of_the_buckets(shares: tuple[float, ...]) -> None:
    """In the ratio of a GPU: a batch takes two thirds of the time that one waits for more. Seven as CUB mixes them."""
    model = Model(buckets=len(shares), seconds=0.01)
    finished, events = through(mixed(500, shares), model, linger=0.015)
    while_items_came = model.launches[: -len(shares)]  # when the source has ended, each bucket may have a rest
    assert sum(map(len, while_items_came)) / len(while_items_came) >= 3.9
    assert len(model.launches) <= 125 + len(shares) + 2
    assert max(f.item.left - f.item.entered for f in finished) < batching.PATIENCE
    assert idle_share(events) < 0.1  # of a sleeping model on a busy machine


def test_a_rare_item_waits_no_longer_than_patience_while_the_device_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.3)
    model, items = Model(seconds=0.01, buckets=2), [Item(n, int(n == 40)) for n in range(600)]
    finished, _ = through(items, model, linger=0.01)
    waited = {f.item.number: f.item.left - f.item.entered for f in finished}
    assert [40] in model.launches
    assert 0.2 < waited[40] < 0.3 + 0.3, waited[40]  # neither at once, although others are queued, nor at the end


def test_a_dry_device_gets_what_there_is() -> None:
    """Where items come more slowly than the device computes, they are not held back."""

    class Slow(Enter):
        def __call__(self, item: Item) -> None:
            time.sleep(0.01)
            super().__call__(item)

    model, finished = Model(), []
    run(
        iter(mixed(40, (1, 1, 1))),
        [Slow(), stage(model)],
        lambda done: done,
        finished.extend,
        threads=1,
        stop=threading.Event(),
        linger=0.02,
    )
    assert max(f.item.left - f.item.entered for f in finished) < 0.5


@pytest.mark.parametrize("shares", [(1,) * 2, (1,) * 8, (90, 4, 1, 1, 1, 1, 1, 1), (1,) * 20])
def test_slots_are_few_and_are_hardly_ever_remade(shares: tuple[float, ...]) -> None:
    """One per open batch, and depth + 1. With more buckets than slots some are replaced, but the number holds."""
    model = Model(buckets=len(shares))
    through(mixed(800, shares), model, linger=0.05)
    slots = Ring(stage(model), 0.05).slots
    assert slots == 2 + 1 + min(len(shares), batching.MOST_OPEN)
    assert model.most <= slots
    if len(shares) <= batching.MOST_OPEN:
        assert len(model.made) <= 50, model.made  # in 200 batches


def test_slots_follow_when_the_mix_changes() -> None:
    """A data set that is sorted by shape: a shape that becomes common gets the slots of the one that has been."""
    model = Model(buckets=2, seconds=0.002)
    _, events = through([Item(n, int(n >= 400)) for n in range(800)], model)
    assert sorted(Counter(model.made).values()) >= [2, 3] and len(model.made) <= 12, model.made
    assert idle_share(events) < 0.2


def test_the_lock_is_free_while_slots_are_made() -> None:
    """Other work goes on while a slot is being made, which takes long where memory is pinned and cleared."""
    model = Model(buckets=8, making=0.1)
    start = time.monotonic()
    finished: list[Finished[Item]] = []
    run(
        iter([Item(n, n % 8) for n in range(16)]),
        [stage(model)],
        lambda done: done,
        finished.extend,
        threads=8,
        stop=threading.Event(),
    )
    assert len(finished) == 16
    assert time.monotonic() - start < 0.1 * 8 * 0.7  # eight slots, made at the same time


@pytest.mark.parametrize("memory_for", [1, 2, 4])
def test_items_whose_slot_had_no_memory_wait_for_the_others(memory_for: int) -> None:
    """One bucket, so that no slot is replaced: what has been made must do."""
    model = Model(buckets=3, memory_for=memory_for, making=0.002)
    through([Item(n) for n in range(200)], model, threads=4)
    assert len(model.made) <= memory_for


def test_the_ring_alone() -> None:
    """Which batches are sealed: none while the device has enough, then the fullest due one, and the late ones."""
    model = Model(buckets=3)
    ring: Ring[Item] = Ring(stage(model), linger=1.0)
    room = 0
    ring.room = lambda: room - ring.coming
    for n, bucket in enumerate((0, 1, 1, 2)):
        ring.waiting.append((InFlightItem(Finished(Item(n, bucket))), bucket))
    while (work := ring.take_waiting(now=100.0)) is not None:
        assert work[1] is not None
        ring.filled(*work[1], failed=False)
    ring.seal(102.0, everything=False)
    assert not ring.ready and ring.next_due() == 100.0 + batching.PATIENCE
    room = 1
    assert ring.next_due() == 101.0
    ring.seal(100.5, everything=False)
    assert not ring.ready
    ring.seal(102.0, everything=False)
    assert [batch.bucket for batch in ring.ready] == [1]
    ring.seal(100.0 + batching.PATIENCE, everything=False)
    assert [batch.bucket for batch in ring.ready] == [1, 0, 2] and ring.next_due() is None
